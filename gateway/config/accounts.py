"""The provider entries of gateway.yaml against what their types allow: options, address, headers, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from string import Formatter
from urllib.parse import urlsplit

from msgspec.structs import replace

from gateway.config.document import Node
from gateway.config.findings import Findings, Mark, nearest
from gateway.config.plugins import NoProvider
from gateway.config.secrets import Secret
from gateway.config.types import Config, ProviderEntry
from gateway.config.urls import LABEL, is_local, url_problem
from gateway.contract import Problem, Provider
from gateway.egress import BadProxy, read_proxy, socket_path

COMMON = ("type", "base_url", "api_key", "headers", "ca_file", "proxy", "fetch_images")
# Headers that the gateway writes itself, or that belong to one connection.
FORBIDDEN_HEADERS = frozenset(
    (
        *("authorization", "proxy-authorization", "host", "content-length", "content-type", "content-encoding"),
        *("accept-encoding", "transfer-encoding", "te", "trailer", "connection", "keep-alive", "proxy-connection"),
        *("upgrade", "expect", "cookie"),
    )
)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class Accounts:
    """Checks every provider entry and every model of a deployment or adapter at its provider."""

    def __init__(self, tree: Node, providers: Mapping[str, Provider], found: Findings, open_files: set[str]) -> None:
        self._tree = tree
        self._providers = providers
        self._found = found
        self._open_files = open_files
        self._known: dict[str, tuple[Provider, ProviderEntry, frozenset[Problem]]] = {}

    def complete(self, config: Config) -> Config:
        """The configuration with every `base_url` filled in; findings for all that is wrong."""
        entries = {name: self._entry(name, entry) for name, entry in config.providers.items()}
        for name, deployment in config.deployments.items():
            self._model(f"deployments.{name}", ("deployments", name), deployment.provider, deployment.model)
        for name, adapter in config.adapters.items():
            if base := config.deployments.get(adapter.deployment):
                self._model(f"adapters.{name}", ("adapters", name), base.provider, adapter.model)
        return replace(config, providers=entries)

    def _entry(self, name: str, entry: ProviderEntry) -> ProviderEntry:
        self._check_headers(name, entry)
        provider = self._provider(name, entry.type)
        if provider is None:
            self._check_secrets(name, entry)
            return entry
        for option in entry.options:
            if option not in provider.options:
                self._unknown(name, option, provider)
        problems = frozenset(_problems(provider, entry, ""))
        self._report(f"providers.{name}", ("providers", name), problems)
        self._known[name] = provider, entry, problems
        entry = replace(entry, base_url=self._base_url(name, entry, provider))
        self._check_proxy(name, entry)
        self._check_secrets(name, entry)
        return entry

    def _unknown(self, name: str, option: str, provider: Provider) -> None:
        node = self._tree.get("providers", name) or self._tree
        near = nearest(option, (*COMMON, *provider.options))
        message = f"unknown option '{option}' of type {provider.name}{near}"
        self._found.error(node.mark_of(option), f"providers.{name}.{option}", message)

    def _provider(self, name: str, kind: str) -> Provider | None:
        if not kind:
            return None
        try:
            return self._providers[kind]
        except NoProvider as error:
            self._error(name, "type", str(error))
        except KeyError:
            self._error(name, "type", f"no provider type '{kind}'{nearest(kind, self._providers)}")
        return None

    def _base_url(self, name: str, entry: ProviderEntry, provider: Provider) -> str:
        url = entry.base_url or self._filled(name, entry, provider)
        if not url:
            return ""
        if problem := url_problem(url):
            self._error(name, "base_url", problem)
            return ""
        if urlsplit(url).scheme == "http" and not is_local(url):
            message = "plain http to a host that is not loopback: key and prompts travel in clear text"
            self._found.warning(self._mark(("providers", name), "base_url"), f"providers.{name}.base_url", message)
        return url.rstrip("/")

    def _filled(self, name: str, entry: ProviderEntry, provider: Provider) -> str:
        """The provider's own address with its placeholders filled from the options."""
        if not provider.base_url:
            self._error(name, "base_url", f"is missing, and type {entry.type} has no default")
            return ""
        values: dict[str, str] = {}
        for option in (field for _, field, _, _ in Formatter().parse(provider.base_url) if field):
            value = entry.options.get(option)
            if value is None:
                self._error(name, option, f"is missing: {provider.base_url} needs it, unless base_url is set")
            elif not isinstance(value, str) or not LABEL.fullmatch(value):
                self._error(name, option, "becomes part of a host name: only letters, digits and hyphens")
            else:
                values[option] = value
                continue
            return ""
        return provider.base_url.format_map(values)

    def _check_headers(self, name: str, entry: ProviderEntry) -> None:
        for header, value in entry.headers.items():
            where, mark = f"providers.{name}.headers.{header}", self._mark(("providers", name, "headers"), header)
            if not _TOKEN.fullmatch(header):
                self._found.error(mark, where, "not a header name")
            elif header.lower() in FORBIDDEN_HEADERS:
                self._found.error(mark, where, "this header is the gateway's own")
            elif not _VALUE.fullmatch(value.reveal()):
                self._found.error(mark, where, "not a header value: printable ASCII only")
        if entry.api_key and not _VALUE.fullmatch(entry.api_key.reveal()):
            self._error(name, "api_key", "cannot be sent in a header: printable ASCII only")

    def _check_proxy(self, name: str, entry: ProviderEntry) -> None:
        if entry.proxy is None:
            return
        try:
            read_proxy(entry.proxy.reveal())
        except BadProxy as error:
            self._error(name, "proxy", str(error))
        if socket_path(entry.base_url):
            self._error(name, "proxy", "leads nowhere: base_url is a socket on this machine")

    def _check_secrets(self, name: str, entry: ProviderEntry) -> None:
        if is_local(entry.base_url):
            return
        secrets = {"api_key": entry.api_key, "proxy": _password(entry.proxy), **entry.options}
        for option, value in secrets.items():
            if any(secret.source == "literal" for secret in _secrets(value)):
                warn_literal(self._mark(("providers", name), option), f"providers.{name}.{option}", self)

    def warn(self, mark: Mark, where: str, message: str) -> None:
        """Add a warning; says so when the file it stands in can be read by everyone."""
        readable = " (and everyone may read this file)" if mark.path in self._open_files else ""
        self._found.warning(mark, where, message + readable)

    def _model(self, where: str, path: tuple[str, str], provider_name: str, model: str) -> None:
        if not model or model == "*" or provider_name not in self._known:
            return
        provider, entry, known = self._known[provider_name]
        news = frozenset(_problems(provider, entry, model)) - known
        self._report(where, path, news)

    def _report(self, where: str, path: tuple[str, str], problems: Iterable[Problem]) -> None:
        for problem in sorted(problems, key=lambda each: (each.option, each.message)):
            place = f"{where}.{problem.option}" if problem.option else where
            self._found.error(self._mark(path, problem.option), place, problem.message)

    def _error(self, name: str, option: str, message: str) -> None:
        self._found.error(self._mark(("providers", name), option), f"providers.{name}.{option}", message)

    def _mark(self, path: tuple[str, ...], option: str) -> Mark:
        """Where the value of an option stands; else where its entry does."""
        node = self._tree.get(*path, option) or self._tree.get(*path)
        return node.mark if node else self._tree.mark


def warn_literal(mark: Mark, where: str, accounts: Accounts) -> None:
    """Warn of a secret that stands in the file itself."""
    accounts.warn(mark, where, "a secret in the file itself: write {env: NAME}, {file: path} or {credential: name}")


def _password(proxy: Secret | None) -> Secret | None:
    """The proxy's URL when it is a secret."""
    return proxy if proxy and "@" in proxy.reveal() else None


def _secrets(value: object) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _secrets(inner)


def _problems(provider: Provider, entry: ProviderEntry, model: str) -> list[Problem]:
    """What the plugin says of the options; it also sees whether the entry has an address and a key."""
    seen = {**entry.options, "base_url": entry.base_url, "api_key": entry.api_key}
    try:
        return list(provider.check({name: value for name, value in seen.items() if value}, model))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return [Problem("", f"the options cannot be checked: {type(error).__name__}")]
