"""Wires configuration, plugins and listeners into one serving process: start, reload, drain."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp.http_parser import HttpRequestParser

from gateway import systemd
from gateway.access import Access
from gateway.admin import Admin
from gateway.config.loader import Loaded
from gateway.config.models import abilities_of
from gateway.config.types import Address, Config, ProviderEntry
from gateway.contract import Provider
from gateway.credentials import Source, source
from gateway.demo.server import Demo, start_demo
from gateway.dialects import openai_chat
from gateway.errors import GatewayError
from gateway.exchange import Upstreams
from gateway.front import Bounds, Front
from gateway.log import Log
from gateway.proxy import Proxy, Snapshot
from gateway.router import Router
from gateway.upstream import Account, Sweep
from gateway.upstream.dial import Resolver

POLL = 1.0
CUT = 2.0
BACKLOG = 4096
USER_AGENT = "sluiceway"
FIXED_HEADERS = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
DIALECTS = {openai_chat.DIALECT.path: openai_chat.DIALECT}

Reader = Callable[[], Loaded]


class CannotServe(Exception):
    """The process cannot start; the message says why."""


def shutting_down() -> GatewayError:
    """What a stream is told that outlives the drain."""
    return GatewayError("The gateway is shutting down.", status=503, kind="overloaded_error", code="shutting_down")


class App:
    """One serving process. `serve` returns its exit code after SIGTERM, SIGINT or a second of either."""

    def __init__(self, config: Config, loaded: Loaded, read: Reader, providers: Mapping[str, Provider]) -> None:
        self._read = read
        self._providers = providers
        self._loaded = loaded
        telemetry = config.telemetry.access_log
        self.log = Log(
            telemetry.to if telemetry else "stdout",
            access=telemetry is not None,
            text=telemetry is not None and telemetry.format == "text",
        )
        self._stop = asyncio.Event()
        self._signals = 0
        self._sweep = Sweep()
        self._resolver = Resolver()
        self._accounts: dict[tuple[Any, ...], Account] = {}
        self._sources: dict[tuple[Any, ...], Source] = {}
        self._upstreams = Upstreams(self._sweep, self.log.news)
        self._tasks: set[asyncio.Task[None]] = set()
        self.reload_failed = False
        self.ready = False
        self._demo: Demo | None = None
        self._servers: list[asyncio.Server] = []
        self._config = config
        self.proxy = Proxy(self._snapshot(config, loaded.digest), DIALECTS, self.log, _bounds(config))
        self.front = Front(self.proxy.handle, _bounds(config), self._sweep, self._refused)
        pages = {"/livez": self._live, "/readyz": self._readyz}
        self._admin_front = Front(Admin(pages).handle, Bounds(max_connections=256), self._sweep, lambda error: None)

    async def serve(self, announce: Callable[[Config], None]) -> int:
        """Listen until told to stop, then drain; `announce` is called when the listeners are open."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._background(self._reload()))
        self.log.start()
        self._sweep.add(self.log)
        self._sweep.start()
        await self._listen()
        await self._start_sources()
        self._background(self._watch())
        self._background(self._live_sign())
        _calm_collector()
        self.ready = True
        announce(self._config)
        systemd.notify(os.environ, "READY=1")
        await self._stop.wait()
        await self._drain()
        return 0

    async def _listen(self) -> None:
        server = self._config.server
        passed = systemd.sockets(os.environ, os.getpid())
        if server.demo is not None:
            self._demo = await start_demo(server.demo.host, server.demo.port)
        await self._open(self.front, server.listen, passed)
        if server.admin is not None:
            await self._open(self._admin_front, server.admin, passed)

    async def _open(self, front: Front, address: Address, passed: Mapping[str, socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        try:
            opened = await loop.create_server(front.server, address.host, address.port, backlog=BACKLOG)
        except OSError as error:
            raise CannotServe(f"cannot listen on {address}: {os.strerror(error.errno or 0).lower()}") from error
        self._servers.append(opened)

    async def _start_sources(self) -> None:
        await asyncio.gather(*(each.start() for each in self._sources.values()))

    def _snapshot(self, config: Config, digest: str) -> Snapshot:
        """Everything a request needs, built from the file; accounts and secrets that did not change are kept."""
        accounts, sources = {}, {}
        used_accounts, used_sources = set(), set()
        for name, entry in config.providers.items():
            headers = {**FIXED_HEADERS, **{key.lower(): value.reveal() for key, value in entry.headers.items()}}
            account = (name, tuple(sorted(headers.items())), str(entry.ca_file or ""))
            used_accounts.add(account)
            if account not in self._accounts:
                self._accounts[account] = Account(
                    headers, self._resolver, str(entry.ca_file) if entry.ca_file else None
                )
                self._sweep.add(self._accounts[account])
            accounts[name] = self._accounts[account]
            kind, options = _secret(self._providers[entry.type], entry)
            secret = (name, kind, repr(sorted(options.items())))
            used_sources.add(secret)
            if secret not in self._sources:
                self._sources[secret] = source(kind, options)
            sources[name] = self._sources[secret]
        for gone in self._accounts.keys() - used_accounts:
            retired = self._accounts.pop(gone)
            retired.retire()
            self._sweep.discard(retired)
        for old in self._sources.keys() - used_sources:
            self._background(self._sources.pop(old).close())
        upstreams = Upstreams(
            self._sweep,
            self.log.news,
            config.server.write_timeout,
            accounts,
            sources,
            self._upstreams.health,
            self._upstreams.images,
        )
        return Snapshot(config, digest, Router(config, self._providers, abilities_of), Access(config.keys), upstreams)

    async def _reload(self) -> None:
        """Read the file again; a good one replaces what is in force, a bad one changes nothing."""
        systemd.notify(os.environ, *systemd.reloading())
        loaded = await asyncio.to_thread(self._read)
        if loaded.config is None:
            self.reload_failed = True
            errors = [str(finding) for finding in loaded.findings if finding.level == "error"]
            self.log.news(
                "error", "the configuration is wrong; the one before serves on", findings=errors[:20], count=len(errors)
            )
        else:
            self.reload_failed = False
            self._loaded = loaded
            self._config = loaded.config
            self.proxy.snapshot = self._snapshot(loaded.config, loaded.digest)
            await self._start_sources()
            self.log.reopen()
            self.log.news("info", "configuration loaded", digest=loaded.digest)
        systemd.notify(os.environ, "READY=1")

    async def _watch(self) -> None:
        """Reload when a file of the configuration changes; a look per second at resolved paths."""
        seen = _stamps(self._loaded.files)
        while not self._stop.is_set():
            await asyncio.sleep(POLL)  # a poll, because inotify does not see a mounted ConfigMap's symlink swap
            now = _stamps(self._loaded.files)
            if now != seen:
                seen = now
                await self._reload()

    async def _live_sign(self) -> None:
        interval = systemd.watchdog_interval(os.environ, os.getpid())
        while interval is not None and not self._stop.is_set():
            systemd.notify(os.environ, "WATCHDOG=1")
            await asyncio.sleep(interval)  # from the event loop: a loop that hangs sends nothing

    async def _drain(self) -> None:
        """Stop accepting, let requests finish, tell the rest, go."""
        self.ready = False
        self.proxy.draining = True
        systemd.notify(os.environ, "STOPPING=1")
        self.log.news("info", "draining", active=self.proxy.active)
        for server in self._servers[:1]:
            server.close()
        self.front.close_idle()
        self._stop.clear()
        await self._until_idle(self._config.server.drain)
        for client in tuple(self.front.clients):
            if client.pump is not None:
                client.pump.fail(shutting_down())
        await self._until_idle(CUT if self.proxy.active else 0)
        for client in tuple(self.front.clients):
            client.force_close()
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._demo is not None:
            await self._demo.stop()
        self._sweep.stop()
        self._resolver.close()
        self._upstreams.images.close()
        self.log.news("info", "stopped", active=self.proxy.active)
        self.log.close()

    async def _until_idle(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.proxy.active and loop.time() < until and not self._stop.is_set():
            await asyncio.sleep(0.02)  # a look at a counter; nothing on the request path has to know of the drain

    def _terminate(self) -> None:
        self._stop.set()

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refused(self, error: GatewayError) -> None:
        self.log.news("info", "a connection was refused", status=error.status, code=error.code)

    def _live(self) -> tuple[int, str, bytes]:
        return 200, "text/plain", b"alive\n"

    def _readyz(self) -> tuple[int, str, bytes]:
        return (200, "text/plain", b"ready\n") if self.ready else (503, "text/plain", b"not ready\n")


def check_parser() -> None:
    """Raise CannotServe on aiohttp's pure-Python parser, which lets nine malformed requests through that the C one refuses."""
    if HttpRequestParser.__module__ != "aiohttp._http_parser" and not os.environ.get("SLUICEWAY_ALLOW_PYTHON_PARSER"):
        raise CannotServe(
            "aiohttp runs without its C parser; install a wheel with extensions, or set SLUICEWAY_ALLOW_PYTHON_PARSER=1"
        )


def _bounds(config: Config) -> Bounds:
    server = config.server
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = max(16, descriptors // 2 - 64)
    return Bounds(
        max_body=server.max_body,
        max_connections=min(server.max_connections or most, most),
        header_timeout=server.header_timeout,
        body_timeout=server.body_timeout,
        keepalive=server.keepalive,
    )


def _secret(provider: Provider, entry: ProviderEntry) -> tuple[str, dict[str, Any]]:
    """Which source keeps the entry's secret, and what the source needs to know."""
    options = entry.revealed()
    return provider.credential(options), options


def _stamps(files: list[Path]) -> list[tuple[int, int, int] | None]:
    stamps: list[tuple[int, int, int] | None] = []
    for path in files:
        try:
            stat = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return stamps


def _calm_collector() -> None:
    """What exists now lives for ever: leave it out of every collection, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
