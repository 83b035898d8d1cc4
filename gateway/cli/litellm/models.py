"""The entries of `model_list` to deployments, each with the parameters that go into an adapter."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gateway.cli.litellm.accounts import Accounts, Entry
from gateway.cli.litellm.limits import LIMITS
from gateway.cli.litellm.pieces import Piece, is_name
from gateway.cli.litellm.report import Fields, Grade, Report, Row, number
from gateway.cli.litellm.vendors import VENDORS, Vendor, does_no_chat, split
from gateway.cli.litellm.verify import refusals
from gateway.hub import PARAMS

# Parameters of a request that an entry cannot preset.
_NOT_PRESET = frozenset(("model", "messages", "stream"))
_UNKNOWN = Vendor()
_PARAMS_KNOWN = {
    "tags": "no routing by tags: name a routing for each",
    "tag_regex": "no routing by tags: name a routing for each",
    "mock_response": "no answers that are made up: `sluiceway demo` has upstreams to try things with",
    "azure_ad_token": "manual: give the provider entry `entra: true`, or a tenant, a client and its secret",
    "aws_role_name": "manual: put the role into a profile of ~/.aws/config and name it in `profile`",
    "aws_web_identity_token": "manual: the machine's own identity is used, with the `aws` extra",
    "additional_drop_params": "what a provider does not take is dropped by its own table",
    "allowed_openai_params": "what a provider takes is in its own table",
    "litellm_credential_name": "manual: credential_list has no entry of this name",
    "region_name": "manual: write `region` or `location` into the provider entry",
}
_LEFT_OUT = "the deployment is left out"
_INFO = "only told by LiteLLM's model information"
_INFO_KNOWN = {
    "access_groups": "manual: list the models under `keys.*.models`",
    "supported_environments": "manual: use a file for each environment",
    **dict.fromkeys(
        ("max_tokens", "max_input_tokens", "max_output_tokens", "description", "version", "metadata"), _INFO
    ),
}


class Models:
    """Converts entries. `defaults` are parameters for all of them; `credentials` are named sets of some."""

    def __init__(
        self, report: Report, defaults: Mapping[str, Any], credentials: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._report = report
        self._defaults = defaults
        self._credentials = credentials
        self.accounts = Accounts(report)

    def pieces(self, entries: Any) -> list[Piece]:
        """All deployments of the list."""
        if not isinstance(entries, list):
            self._report.add("model_list", "unsupported", note="not a list")
            return []
        self._reserve(entries)
        made: list[Piece] = []
        for index, entry in enumerate(entries):
            made += self._entry(Fields(entry, f"model_list[{index}]", self._report))
        return made

    def _reserve(self, entries: list[Any]) -> None:
        """Keep the variables that entries without a key lead to for those."""
        for entry in entries:
            params = entry.get("litellm_params") if isinstance(entry, Mapping) else None
            if isinstance(params, Mapping) and params.get("api_key") is None:
                prefix, _ = split(str(params.get("model")), str(params.get("custom_llm_provider") or ""))
                self._report.reserved.add(VENDORS.get(prefix, _UNKNOWN).env)

    def _entry(self, entry: Fields) -> list[Piece]:
        group = entry.value("model_name")
        given = entry.open("litellm_params")
        given = {str(name): value for name, value in given.items()} if isinstance(given, Mapping) else {}
        own = {*given, *self._credentials.get(str(given.get("litellm_credential_name")), ())}
        for name in ("tpm", "rpm"):
            if name in entry:
                given.setdefault(name, entry.take(name))
                entry.add(name, "exact", note=f"as litellm_params.{name}")
        info = Fields(entry.open("model_info"), entry.at("model_info"), self._report)
        made: list[Piece] = []
        for each in self._organizations(given, entry.at("litellm_params.litellm_credential_name")):
            params = Fields(each, entry.at("litellm_params"), self._report)
            piece = self._piece(str(group or ""), params, info, first=not made)
            self._forget(params, own)
            if piece is None:
                break
            made.append(piece)
        if made:
            made[0].rows.append(entry.add("model_name", "exact"))
        else:
            entry.add("model_name", "unsupported", note=_LEFT_OUT)
        entry.leave({})
        return made

    def _organizations(self, given: dict[str, Any], where: str) -> list[dict[str, Any]]:
        """The parameters with named credentials and defaults; once per organization where several are listed."""
        named = self._credentials.get(str(given.get("litellm_credential_name")))
        if named is not None:
            self._report.add(where, "exact", note="its values are part of the provider entry")
            given = {**named, **{name: value for name, value in given.items() if name != "litellm_credential_name"}}
        given = {**self._defaults, **given}
        organizations = given.get("organization")
        if isinstance(organizations, list) and organizations:
            return [{**given, "organization": each} for each in organizations]
        return [given]

    def _piece(self, group: str, params: Fields, info: Fields, *, first: bool) -> Piece | None:
        report = self._report if first else Report(self._report.environ)
        if not first:
            report.variables = self._report.variables
            params, info = Fields(params.raw, params.where, report), Fields(info.raw, info.where, report)
        reason, piece = self._made(group, params, info)
        if reason:
            for row in (*self._rows(params), *self._rows(info)):
                row.grade, row.to, row.note = "unsupported", "", _LEFT_OUT
            params.add("model", "unsupported", note=reason)
            params.leave({}, _LEFT_OUT)
            info.leave({}, _LEFT_OUT)
        return piece

    def _forget(self, given: Fields, own: Collection[str]) -> None:
        """Take out the rows of what came from the settings and is as good here."""
        inherited = {given.at(name) for name in given.raw if name not in own}
        self._report.rows = [
            row
            for row in self._report.rows
            if row.field not in inherited or (row.grade != "exact" and row.note != _LEFT_OUT)
        ]

    def _made(self, group: str, params: Fields, info: Fields) -> tuple[str, Piece | None]:
        """The deployment, or why there is none."""
        model, custom = params.value("model"), params.value("custom_llm_provider")
        if not is_name(group) or not isinstance(model, str) or not model:
            return "no name that can stand here, or no model", None
        prefix, own = split(model, str(custom or ""))
        if reason := does_no_chat(prefix, own, str(info.value("mode") or "")):
            return reason, None
        vendor = VENDORS.get(prefix, _UNKNOWN)
        if prefix not in VENDORS and not ("api_base" in params or "base_url" in params):
            return "no provider that is known, and no api_base", None
        if ("*" in group) != ("*" in own) or ({group.rpartition("/")[2], own} != {"*"} and "*" in group):
            return "a wildcard stands alone, after the last '/': openai/*", None
        entry = self.accounts.entry(prefix, vendor, params, own)
        deployment: Entry = {"provider": "", "model": vendor.model(own)}
        if reasons := refusals(entry, deployment):
            return "; ".join(reasons), None
        deployment["provider"] = self.accounts.name(prefix, entry)
        self._place(params, f"providers.{deployment['provider']}")
        piece = Piece(group, deployment)
        self._describe(piece, params, info, _note(prefix, vendor))
        return "", piece

    def _place(self, params: Fields, place: str) -> None:
        """Put the name of the provider entry before the options that were reported without it."""
        for row in self._rows(params):
            if row.to:
                row.to = f"{place}.{row.to}"

    def _rows(self, fields: Fields) -> Iterator[Row]:
        """What was reported of these fields so far."""
        yield from (row for row in self._report.rows if row.field.startswith(f"{fields.where}."))

    def _describe(self, piece: Piece, params: Fields, info: Fields, note: str) -> None:
        grade: Grade = "approximate" if note else "exact"
        piece.rows.append(params.add("model", grade, note=note))
        if "custom_llm_provider" in params:
            params.add("custom_llm_provider", "exact", note="part of the provider entry")
        if "mode" in info:
            info.add("mode", "exact", note="chat is what is served")
        for fields in (params, info):
            for name, limit in LIMITS.items():
                if name in fields and name in fields.names():
                    limit(piece, name, fields)
        self._identity(piece, info)
        self._routing(piece, params)
        self._presets(piece, params)
        params.leave(_PARAMS_KNOWN)
        info.leave(_INFO_KNOWN | {name: _INFO for name in info.names() if name.startswith("supports_")})

    def _identity(self, piece: Piece, info: Fields) -> None:
        if "id" in info:
            piece.id = str(info.value("id") or "")
            piece.rows.append(info.add("id", "exact", note="the deployment's name, where it needs one of its own"))

    def _routing(self, piece: Piece, params: Fields) -> None:
        if "weight" in params and (weight := number(params.value("weight"))) is not None:
            piece.weight["weight"] = weight
            piece.rows.append(params.add("weight", "exact", note="the target's weight"))
        if "order" in params and (order := number(params.value("order"))) is not None:
            piece.order = order
            piece.rows.append(params.add("order", "exact", note="lower ones are the targets, the others follow"))

    def _presets(self, piece: Piece, params: Fields) -> None:
        """Request parameters are what a client's own go over; `extra_body` is sent whatever the client says."""
        wild = "*" in piece.group
        for name in list(params.names()):
            if name in PARAMS and name not in _NOT_PRESET:
                if wild:
                    params.add(name, "unsupported", note="a wildcard has no adapter")
                else:
                    piece.default[name] = params.value(name)
                    piece.preset_rows.append(params.add(name, "exact"))
        extra = params.take("extra_body")
        if isinstance(extra, Mapping) and not wild and not _NOT_PRESET & set(extra):
            piece.set |= {str(name): value for name, value in extra.items()}
            piece.preset_rows.append(params.add("extra_body", "exact"))
        elif extra is not None:
            params.add("extra_body", "unsupported", note="not for a wildcard, and not model, messages or stream")


def _note(prefix: str, vendor: Vendor) -> str:
    return vendor.note if prefix in VENDORS else "taken for a server that speaks OpenAI's dialect"
