"""gateway.yaml, whole: read, resolved and checked in one pass."""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import replace

from gateway.config.accounts import Accounts, warn_literal
from gateway.config.budgets import Budgets
from gateway.config.document import Node
from gateway.config.files import Sources
from gateway.config.findings import Finding, Findings, Mark, nearest
from gateway.config.names import Names
from gateway.config.reader import INVALID, Bases, Reader, bases, kind_of
from gateway.config.resolve import Resolver
from gateway.config.secrets import Pem
from gateway.config.telemetry import check_otlp
from gateway.config.tls import problems
from gateway.config.types import Address, Config, Retry
from gateway.config.unsupported import check_supported
from gateway.config.urls import is_loopback
from gateway.contract import Provider
from gateway.hub import PARAMS

# What an adapter must not touch: it would be another request.
_NOT_SET = ("model", "messages", "stream")
_REDIS = ("redis://", "rediss://", "unix://")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of a file: the configuration (None when any finding is an error), the findings, a name of the
    text, and the paths whose change may change the configuration."""

    config: Config | None
    findings: list[Finding]
    digest: str
    files: list[Path]


def load(
    path: str | None,
    environ: Mapping[str, str],
    providers: Mapping[str, Provider],
    strict: bool = False,
    text: str | bytes | None = None,
) -> Loaded:
    """Read and check a configuration: the file at `path`, or `text` (then `path` is only its name in findings).

    With `strict` every warning is an error.
    """
    found = Findings()
    sources = Sources(found)
    shown = path or "<text>"
    root = Path.cwd() if text is not None else Path(shown).parent
    if text is None:
        sources.add_file(Path(shown), shown, Mark(shown))
    else:
        sources.add_text(text.encode() if isinstance(text, str) else text, shown)
    sources.include(root)
    resolver = Resolver(environ, root)
    config = _checked(sources.tree, resolver, providers, found, sources.readable_by_all) if sources.tree else None
    findings = found.listed(strict)
    bad = any(finding.level == "error" for finding in findings)
    return Loaded(None if bad else config, findings, sources.digest, [*sources.files, *resolver.files])


def _checked(
    tree: Node, resolver: Resolver, providers: Mapping[str, Provider], found: Findings, open_files: set[str]
) -> Config:
    config: Config = Reader(found, resolver).read(kind_of(Config), tree, "", _bases(tree, resolver))
    accounts = Accounts(tree, providers, found, open_files)
    config = _settled(accounts.complete(config), resolver)
    Names(config, tree, found).check()
    check_supported(tree, found)
    Budgets(config, tree, found).check()
    _Rest(config, tree, found, accounts).check()
    return config


def _bases(tree: Node, resolver: Resolver) -> Bases:
    """The file's own `retry`, which its entries start from. Its mistakes are reported where it is read again."""
    node = tree.get("retry")
    retry = Reader(Findings(), resolver).read(kind_of(Retry), node, "", {}) if node else Retry()
    return bases(Retry() if retry is INVALID else retry)


def _settled(config: Config, resolver: Resolver) -> Config:
    """The configuration whose deployments say the same timers and breaker under `retry` as beside it, with the file
    of its state."""
    deployments = {
        name: replace(each, retry=replace(each.retry, timeouts=each.timeouts, breaker=each.breaker))
        for name, each in config.deployments.items()
    }
    state = config.state if config.state.file else replace(config.state, file=resolver.state_file())
    return replace(config, deployments=deployments, state=state)


class _Rest:
    """The checks that belong to one option each."""

    def __init__(self, config: Config, tree: Node, found: Findings, accounts: Accounts) -> None:
        self._config = config
        self._tree = tree
        self._found = found
        self._accounts = accounts

    def check(self) -> None:
        self._check_listeners()
        self._check_owner()
        self._check_tls()
        self._check_parameters()
        self._check_keys()
        self._check_state()
        self._check_places()
        check_otlp(self._config.telemetry.otlp, self._tree, self._found)
        if not self._tree.get("deployments"):
            self._found.warning(self._tree.mark, "deployments", "none is defined: every model is unknown")

    def _mark(self, *path: str) -> Mark:
        node = self._tree.get(*path)
        return node.mark if node else self._tree.mark

    def _check_listeners(self) -> None:
        server = self._config.server
        if server.insecure:
            return
        if not _stays_here(server.listen) and not self._config.keys:
            message = "not a loopback address: define keys, or set server.insecure: true"
            self._found.error(self._mark("server", "listen"), "server.listen", message)
        for name, address in (("admin", server.admin), ("demo", server.demo)):
            if address and not _stays_here(address):
                message = "not a loopback address, and it asks for no key: set server.insecure: true to allow that"
                self._found.error(self._mark("server", name), f"server.{name}", message)

    def _check_owner(self) -> None:
        server = self._config.server
        for option, name, known in (
            ("unix_owner", server.unix_owner, pwd.getpwnam),
            ("unix_group", server.unix_group, grp.getgrnam),
        ):
            try:
                if name and not name.isdecimal():
                    known(name)
            except KeyError:
                self._found.error(self._mark("server", option), f"server.{option}", f"this machine has no '{name}'")

    def _check_tls(self) -> None:
        tls = self._config.server.tls
        # What could not be read is no Pem, and reported already.
        if tls is None or not (isinstance(tls.cert, Pem) and isinstance(tls.key, Pem)):
            return
        for problem in problems(tls):
            where = f"server.tls.{problem.option}"
            self._found.error(self._mark("server", "tls", problem.option), where, str(problem))

    def _check_parameters(self) -> None:
        for name, deployment in self._config.deployments.items():
            for param in deployment.emulate:
                if param not in PARAMS:
                    message = f"no request parameter '{param}'{nearest(param, PARAMS)}"
                    where = ("deployments", name, "emulate")
                    self._found.error(self._mark(*where), ".".join(where), message)
        for name, adapter in self._config.adapters.items():
            for option, values in (("set", adapter.set), ("default", adapter.default)):
                for param in (each for each in _NOT_SET if each in values):
                    mark = self._mark("adapters", name, option, param)
                    self._found.error(mark, f"adapters.{name}.{option}.{param}", "an adapter does not choose this")

    def _check_keys(self) -> None:
        hashes: dict[str, str] = {}
        for name, key in self._config.keys.items():
            other = hashes.setdefault(key.hash, name)
            if key.hash and other != name:
                message = f"the same key as {other}"
                self._found.error(self._mark("keys", name, "hash"), f"keys.{name}.hash", message)
            if key.expires is not None and key.expires <= time.time():
                self._found.warning(self._mark("keys", name, "expires"), f"keys.{name}.expires", "is over")

    def _check_state(self) -> None:
        state = self._config.state
        if state.store == "redis":
            if state.url is None:
                self._found.error(self._mark("state"), "state.url", "is missing: store: redis needs it")
            if find_spec("redis") is None:
                message = "a package is missing: pip install 'sluiceway[redis]'"
                self._found.error(self._mark("state", "store"), "state.store", message)
        text = state.url.reveal() if state.url is not None else ""
        if text and not text.startswith(_REDIS):
            self._found.error(self._mark("state", "url"), "state.url", f"must begin with {', '.join(_REDIS)}")
        if state.url is not None and state.url.source == "literal" and "@" in text:
            warn_literal(self._mark("state", "url"), "state.url", self._accounts)

    def _check_places(self) -> None:
        log = self._config.telemetry.access_log
        if log is not None and log.to not in ("stdout", "stderr"):
            self._check_directory(log.to, "telemetry", "access_log", "to")
        # A directory of systemd's is there when it matters, and not when somebody only checks.
        if self._tree.get("state", "file") is not None and self._config.state.file:
            self._check_directory(self._config.state.file, "state", "file")

    def _check_directory(self, file: str, *path: str) -> None:
        directory = Path(file).parent
        if not directory.is_dir() or not os.access(directory, os.W_OK):
            self._found.error(self._mark(*path), ".".join(path), f"no directory that can be written: {directory}")


def _stays_here(address: Address) -> bool:
    return bool(address.path or address.fd) or is_loopback(address.host)
