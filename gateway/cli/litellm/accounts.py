"""The connection part of `litellm_params` to provider entries; deployments with the same one share it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.cli.litellm.report import Fields, Report, is_reference, variable
from gateway.cli.litellm.vendors import Vendor, region_in
from gateway.config.accounts import FORBIDDEN_HEADERS

Entry = dict[str, Any]

# What people write where a server asks for no key.
PLACEHOLDERS = frozenset(
    ("", "-", "none", "null", "empty", "dummy", "fake", "fake-key", "anything", "not-needed", "no-key", "sk-dummy", "x")
)
# What people write who think of a shell.
_SHELL = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_SECRET = re.compile(r"auth|token|secret|key|cookie|password|credential", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"(bearer|basic)\s|(sk|pk|gsk|xai|hf|ghp|key)[-_]|eyJ", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Options whose literal value is a secret.
_SECRET_PARAMS = frozenset(("client_secret", "aws_access_key_id", "aws_secret_access_key", "aws_session_token"))
_HEADERS = ("extra_headers", "default_headers", "headers")


class Accounts:
    """The provider entries that were needed so far, by name."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.entries: dict[str, Entry] = {}
        self._secrets: dict[tuple[str, str], dict[str, str]] = {}

    def entry(self, prefix: str, vendor: Vendor, params: Fields, model: str) -> Entry:
        """The provider entry that these parameters describe; its fields are reported as exact."""
        entry: Entry = {"type": vendor.type}
        self._address(entry, vendor, params)
        self._key(entry, prefix, vendor, params)
        for param, option in vendor.options.items():
            if param in params:
                self._option(entry, prefix, param, option, params)
        if "region" in vendor.options.values() and (region := region_in(model)):
            entry.setdefault("region", region)
        for option, name in vendor.variables.items():
            if option not in entry and "base_url" not in entry:
                entry[option] = self._report.env(name, f"LiteLLM's own default for {option}")
        if "api_key" not in entry:
            entry |= {option: value for option, value in vendor.needs.items() if option not in entry}
        for name in _HEADERS:
            if name in params:
                self._headers(entry, prefix, name, params)
        return entry

    def name(self, prefix: str, entry: Entry) -> str:
        """The name of an entry; a new one gets the prefix, with a number where it is taken."""
        for name, known in self.entries.items():
            if known == entry:
                return name
        base = re.sub(r"[^A-Za-z0-9_-]+", "-", prefix) or "openai"
        name, count = base, 1
        while name in self.entries:
            count += 1
            name = f"{base}-{count}"
        self.entries[name] = entry
        return name

    def _address(self, entry: Entry, vendor: Vendor, params: Fields) -> None:
        given = next((name for name in ("api_base", "base_url") if name in params), "")
        if not given:
            if vendor.base_url:
                entry["base_url"] = vendor.base_url
            return
        value = params.take(given)
        if is_reference(value):
            entry["base_url"] = self._report.env(variable(value))
            note = f"it must end with {vendor.tail}" if vendor.tail else ""
            params.add(given, "approximate" if note else "exact", "base_url", note)
            return
        url = _trimmed(str(value), vendor)
        changed = url.rstrip("/") != str(value).rstrip("/")
        entry["base_url"] = url
        shown = f"now {url}" if "@" not in url else ""
        params.add(given, "approximate" if changed else "exact", "base_url", shown if changed else "")

    def _key(self, entry: Entry, prefix: str, vendor: Vendor, params: Fields) -> None:
        value = params.take("api_key")
        if value is None:
            if vendor.env and not _signs_in_otherwise(vendor, params):
                entry["api_key"] = self._report.env(vendor.env, "LiteLLM's own default")
        elif is_reference(value):
            entry["api_key"] = self._report.env(variable(value))
            params.add("api_key", "exact", "api_key")
        elif shell := _SHELL.fullmatch(str(value)):
            entry["api_key"] = self._report.env(shell[1])
            params.add("api_key", "approximate", "api_key", "LiteLLM does not look this up, and we do")
        elif str(value).lower() in PLACEHOLDERS:
            params.add("api_key", "approximate", note="a placeholder: no key is sent")
        else:
            entry["api_key"] = self._hidden(params, "api_key", f"{prefix or 'openai'}_API_KEY", str(value))
            params.add("api_key", "manual", "api_key", _moved(entry["api_key"]))

    def _option(self, entry: Entry, prefix: str, param: str, option: str, params: Fields) -> None:
        value = params.take(param)
        place, _, inner = option.partition(".")
        into = entry.setdefault(place, {}) if inner else entry
        name = inner or place
        if is_reference(value):
            into[name] = self._report.env(variable(value))
        elif param in _SECRET_PARAMS or _is_document(param, value):
            into[name] = self._hidden(params, param, f"{prefix}_{param}", str(value))
            params.add(param, "manual", option, _moved(into[name]))
            return
        elif option == "api_version" and str(value) in ("v1", "preview", "latest"):
            params.add(param, "exact", note="the path /openai/v1 needs no version")
            return
        else:
            into[name] = str(value)
        params.add(param, "exact", option)

    def _headers(self, entry: Entry, prefix: str, field: str, params: Fields) -> None:
        given = Fields(params.open(field), params.at(field), self._report)
        for name in list(given.names()):
            value = given.take(name)
            if not _TOKEN.fullmatch(name) or name.lower() in FORBIDDEN_HEADERS:
                given.add(name, "unsupported", note="not a header that an entry may set")
                continue
            headers = entry.setdefault("headers", {})
            if is_reference(value):
                headers[name] = self._report.env(variable(value))
            elif _SECRET.search(name) or _SECRET_VALUE.match(str(value)):
                headers[name] = self._hidden(given, name, f"{prefix}_{name}", str(value))
                given.add(name, "manual", "headers", _moved(headers[name]))
                continue
            else:
                headers[name] = str(value)
            given.add(name, "exact", "headers")

    def _hidden(self, params: Fields, field: str, wanted: str, value: str) -> dict[str, str]:
        """A reference instead of a secret; the same secret gets the same one."""
        known = self._secrets.get((wanted, value))
        if known is None:
            known = self._secrets[wanted, value] = self._report.literal(params.at(field), wanted)
        return known


def _trimmed(url: str, vendor: Vendor) -> str:
    """An address without what the gateway adds itself, and with what it must end with."""
    url = re.sub(r"(/chat/completions|/completions)/?$", "", url.split("?", maxsplit=1)[0])
    if vendor.root:
        url = re.sub(r"(/openai(/deployments)?(/.*)?|/models)/?$", "", url)
    if vendor.tail and not url.rstrip("/").endswith(vendor.tail):
        url = url.rstrip("/") + vendor.tail
    return url


def _signs_in_otherwise(vendor: Vendor, params: Fields) -> bool:
    """Do the parameters hold credentials that stand for a key?"""
    return any(param in params for param, option in vendor.options.items() if option.startswith("entra"))


def _is_document(param: str, value: Any) -> bool:
    """Is it a service account itself, not the path of one?"""
    return param == "vertex_credentials" and (isinstance(value, Mapping) or str(value).lstrip().startswith("{"))


def _moved(reference: Mapping[str, str]) -> str:
    return f"a secret in the source: put it into the environment as {reference['env']}"
