"""Wires a configuration into a running gateway: one process that serves, or a supervisor of workers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from aiohttp.http_parser import HttpRequestParser
from msgspec.structs import replace

from gateway import systemd
from gateway.config.loader import Loaded
from gateway.config.types import Config
from gateway.contract import Provider
from gateway.lifecycle import Lifecycle, Reader, Service, exposure
from gateway.listeners import CannotServe, Opened, Passed, Rights, open_sockets
from gateway.log import Log
from gateway.metrics import Figures
from gateway.serving import Serving, log_of
from gateway.supervisor import Supervisor
from gateway.upstream import Sweep
from gateway.worker import work

__all__ = ["App", "CannotServe", "Reader", "check_parser"]


class Alone:
    """The service of this very process."""

    def __init__(
        self, config: Config, digest: str, passed: Passed, providers: Mapping[str, Provider], log: Log, sweep: Sweep
    ) -> None:
        server = config.server
        self._opened = open_sockets(server.listen, passed, rights=Rights.of(server))
        if why := exposure(config, self._opened):
            raise CannotServe(why)
        self.serving = Serving(located(config, self._opened), digest, providers, log, sweep)

    @property
    def ready(self) -> bool:
        """Are requests answered?"""
        return self.serving.ready

    async def start(self) -> None:
        """Answer requests."""
        await self.serving.start(self._opened.sockets)

    async def apply(self, config: Config, digest: str) -> None:
        """Serve the next requests by another configuration."""
        await self.serving.apply(located(config, self._opened), digest)

    async def drain(self, limit: float, hurry: asyncio.Event) -> None:
        """Stop within `limit` seconds, or at once with `hurry`."""
        self._opened.remove_path()
        await self.serving.drain(limit, hurry)

    def opened(self) -> Opened:
        """Where it listens."""
        return self._opened

    def vitals(self) -> dict[str, float]:
        """What the process has to say about itself."""
        return self.serving.vitals()

    def figures(self) -> Figures:
        """What it has counted."""
        return self.serving.figures()


class App:
    """The gateway under a configuration. `serve` returns its exit code after SIGTERM or SIGINT."""

    def __init__(self, config: Config, loaded: Loaded, read: Reader, providers: Mapping[str, Provider]) -> None:
        self._config = config
        self._loaded = loaded
        self._read = read
        self._providers = providers

    async def serve(self, announce: Callable[[Config], None]) -> int:
        """Listen until told to stop, then drain; `announce` is called when requests are answered."""
        config, digest = self._config, self._loaded.digest
        passed = systemd.sockets(os.environ, os.getpid())
        log, sweep = log_of(config), Sweep()
        service: Service
        if config.server.workers > 1:
            service = Supervisor(config, digest, passed, self._work, log)
        else:
            service = Alone(config, digest, passed, self._providers, log, sweep)
        return await Lifecycle(service, self._loaded, config, self._read, log, sweep).run(passed, announce)

    def _work(self, number: int, config: Config, digest: str, sockets: list[socket.socket], end: socket.socket) -> int:
        return work(located(config, Opened(sockets)), digest, self._providers, sockets, end)


def located(config: Config, opened: Opened) -> Config:
    """The configuration with the address at which it really listens: clients name its port in their Host."""
    listen = config.server.listen
    if not listen.fd and (listen.port or listen.path):
        return config
    return replace(config, server=replace(config.server, listen=opened.address))


def check_parser() -> None:
    """Raise CannotServe on aiohttp's pure-Python parser: nine malformed requests pass it that the C one refuses."""
    if HttpRequestParser.__module__ != "aiohttp._http_parser" and not os.environ.get("SLUICEWAY_ALLOW_PYTHON_PARSER"):
        raise CannotServe(
            "aiohttp runs without its C parser; install a wheel with extensions, or set SLUICEWAY_ALLOW_PYTHON_PARSER=1"
        )
