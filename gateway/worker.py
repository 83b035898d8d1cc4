"""One worker process: serves until its supervisor, or a signal, tells it to drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping

import uvloop
from msgspec.structs import replace

from gateway.config.types import Config
from gateway.contract import Provider
from gateway.handover import Line
from gateway.serving import Serving, log_of
from gateway.upstream import Sweep

REPORT = 1.0
# Without a supervisor nobody restarts, reloads or drains this process: streams get so many seconds to end.
ORPHAN_DRAIN = 3.0


class WorkerProcess:
    """Serves on sockets that the supervisor opened, and reports to it once a second."""

    def __init__(self, config: Config, digest: str, providers: Mapping[str, Provider]) -> None:
        self._config = config
        self._log = log_of(config)
        self._sweep = Sweep()
        self._serving = Serving(config, digest, providers, self._log, self._sweep)
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._orphan = False

    async def run(self, sockets: list[socket.socket], end: socket.socket) -> int:
        """Serve, and drain in the end; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        line = await Line.over(end)
        self._log.start()
        self._sweep.add(self._log)
        self._sweep.start()
        supervisor = os.getppid()
        await self._serving.start(sockets, lambda: os.getppid() != supervisor)
        self._say(line, "ready")
        tasks = [asyncio.create_task(self._listen(line)), asyncio.create_task(self._report(line))]
        await self._stopping.wait()
        await self._serving.drain(ORPHAN_DRAIN if self._orphan else self._config.server.drain, self._hurry)
        for task in tasks:
            task.cancel()
        self._say(line, "vitals")
        self._sweep.stop()
        self._log.close()
        return 0

    async def _listen(self, line: Line) -> None:
        while said := await line.receive():
            config, digest = said[1]
            # Where it listens was settled at the start.
            self._config = replace(config, server=replace(config.server, listen=self._config.server.listen))
            try:
                await self._serving.apply(self._config, digest)
            except Exception as error:  # the old one serves on, and the next reload may be better
                self._log.news("error", "the configuration cannot be served", why=f"{type(error).__name__}: {error}")
        self._orphan = True
        self._stopping.set()

    async def _report(self, line: Line) -> None:
        while True:
            await asyncio.sleep(REPORT)  # counts go up in batches
            self._say(line, "vitals")

    def _say(self, line: Line, kind: str) -> None:
        line.send(kind, (self._serving.vitals(), self._serving.report()))

    def _terminate(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()


def work(
    config: Config, digest: str, providers: Mapping[str, Provider], sockets: list[socket.socket], end: socket.socket
) -> int:
    """The life of a worker; returns its exit code."""

    async def main() -> int:
        return await WorkerProcess(config, digest, providers).run(sockets, end)

    return uvloop.run(main())
