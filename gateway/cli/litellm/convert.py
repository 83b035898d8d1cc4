"""A whole configuration of LiteLLM's proxy to a gateway.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.cli.litellm.groups import Groups
from gateway.cli.litellm.known import SECTIONS
from gateway.cli.litellm.models import Models
from gateway.cli.litellm.pieces import Entry
from gateway.cli.litellm.report import Fields, Report, Row, is_reference, variable
from gateway.cli.litellm.settings import Settings, read

MOST_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Imported:
    """The new file as values, what became of each field, and the variables that the environment must have."""

    values: Mapping[str, Any]
    rows: list[Row]
    variables: Mapping[str, str]


def convert(source: Mapping[str, Any], environ: Mapping[str, str]) -> Imported:
    """Convert the source; `environ` is what its references to the environment are looked up in."""
    report = Report(environ)
    fields = Fields(source, "", report)
    report.reserved |= _referred(source)
    report.environ = {**environ, **_variables(fields, report)}
    settings = read(fields, report)
    models = Models(report, settings.defaults, _credentials(fields, report))
    pieces = models.pieces(fields.open("model_list") or [])
    groups = Groups(report, settings.strategy)
    groups.build(pieces, _fallbacks(settings, [piece.group for piece in pieces]), settings.aliases)
    fields.leave(SECTIONS)
    used = {each["provider"] for each in groups.deployments.values()}
    providers = {name: entry for name, entry in models.accounts.entries.items() if name in used}
    values = _document(settings, providers, groups)
    return Imported(values, report.rows, _needed(values, report))


def _document(settings: Settings, providers: Mapping[str, Entry], groups: Groups) -> dict[str, Any]:
    values: dict[str, Any] = {
        "version": 1,
        "server": settings.server,
        "providers": providers,
        "deployments": groups.deployments,
        "adapters": groups.adapters,
        "routings": groups.routings,
        "retry": _retry(settings, groups),
        "keys": {},
        "state": settings.state,
    }
    if settings.master:
        values["keys"] = {"master": {"hash": settings.master, "models": sorted(groups.public)}}
    return {name: value for name, value in values.items() if value}


def _retry(settings: Settings, groups: Groups) -> Entry:
    """The file's `retry`; retries of one model and its fallbacks are attempts of one request here."""
    longest = max((len(routing.get("fallback", ())) for routing in groups.routings.values()), default=0)
    if settings.retries is None:
        return settings.retry
    return {"attempts": min(MOST_ATTEMPTS, settings.retries + 1 + longest), **settings.retry}


def _fallbacks(settings: Settings, groups: list[str]) -> dict[str, list[str]]:
    """Each group's own, or else those for everybody."""
    made = dict(settings.fallbacks)
    for group in dict.fromkeys(groups):
        rest = [name for name in settings.everywhere if name != group]
        if rest and group not in made and "*" not in group and group not in settings.everywhere:
            made[group] = rest
    return made


def _variables(fields: Fields, report: Report) -> dict[str, str]:
    """`environment_variables`: values that LiteLLM puts into its own environment, secrets among them."""
    given = Fields(fields.open("environment_variables"), "environment_variables", report)
    for name in given.names():
        given.add(name, "manual", note="set it in the environment of the service")
    return {name: str(value) for name, value in given.raw.items() if value is not None}


def _credentials(fields: Fields, report: Report) -> dict[str, Mapping[str, Any]]:
    """Named sets of parameters by name."""
    listed = fields.open("credential_list")
    found: dict[str, Mapping[str, Any]] = {}
    for index, each in enumerate(listed if isinstance(listed, list) else ()):
        entry = Fields(each, f"credential_list[{index}]", report)
        name, values = entry.take("credential_name"), entry.take("credential_values")
        if isinstance(values, Mapping):
            found[str(name)] = values
            entry.add("credential_name", "exact", note="part of the provider entries of the models that name it")
            entry.add("credential_values", "exact", note="each at the models that name it")
        entry.leave({"credential_info": "only a description", "credential_values": "not a map"})
    return found


def _referred(value: Any) -> set[str]:
    """The variables that the source refers to, wherever."""
    if isinstance(value, Mapping):
        return set().union(*(_referred(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(_referred(each) for each in value))
    return {variable(value)} if is_reference(value) else set()


def _needed(values: Any, report: Report) -> dict[str, str]:
    """The variables that the new file refers to."""
    names: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, Mapping):
            if set(value) == {"env"} and isinstance(value["env"], str):
                names.add(value["env"])
            for each in value.values():
                look(each)

    look({name: values.get(name, {}) for name in ("providers", "state")})
    return {name: why for name, why in report.variables.items() if name in names}
