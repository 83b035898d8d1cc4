"""Several worker processes as one service: started, watched, started again, told of reloads, drained."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.config.types import Config
from gateway.handover import Line
from gateway.lifecycle import exposure
from gateway.listeners import CannotServe, Opened, Passed, Rights, open_sockets
from gateway.log import Log
from gateway.metrics import Figures, Values
from gateway.vitals import total

# Before restart k of a worker that keeps ending: this times 4^k, at most LONGEST.
FIRST_WAIT, LONGEST = 0.1, 30.0
# A worker that has served for so long has not failed at its start.
SOUND = 10.0
# A worker that has said nothing for so long hangs; it is ended so that another takes its place.
MUTE = 30.0
# After the drain a worker's last words to its streams take two seconds, and those to files and collectors up to four.
LAST = 8.0

Work = Callable[[int, Config, str, list[socket.socket], socket.socket], int]


@dataclass
class Worker:
    """One place among the workers, and the process that fills it now."""

    number: int
    opened: Opened | None
    pid: int = 0
    line: Line | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    vitals: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, Values] = field(default_factory=dict)
    heard: float = 0.0
    since: float = 0.0
    failures: int = 0
    past: dict[str, float] = field(default_factory=dict)


class Supervisor:
    """A service of `server.workers` processes.

    Each has a listening socket of its own, which is held here as well, so that no waiting connection is lost with a
    worker. A socket from systemd and a Unix socket are shared by all.
    """

    def __init__(self, config: Config, digest: str, passed: Passed, work: Work, log: Log) -> None:
        self._config = config
        self._digest = digest
        self._passed = passed
        self._work = work
        self._log = log
        self._workers: list[Worker] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._restarts = 0
        self._draining = False
        self._over = asyncio.Event()
        self._unix: Opened | None = None
        self._counted = Figures()

    @property
    def ready(self) -> bool:
        """Do all workers serve?"""
        return not self._draining and all(worker.ready.is_set() for worker in self._workers)

    async def start(self) -> None:
        """Start the workers; returns when all of them serve."""
        self._open()
        if why := exposure(self._config, self.opened()):
            raise CannotServe(why)
        gc.collect()
        gc.freeze()
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        await asyncio.gather(*(worker.ready.wait() for worker in self._workers))

    async def apply(self, config: Config, digest: str) -> None:
        """Hand a configuration to every worker."""
        self._config, self._digest = config, digest
        for worker in self._workers:
            if worker.line is not None:
                worker.line.send("config", (config, digest))

    async def drain(self, limit: float, hurry: asyncio.Event) -> None:
        """Tell the workers to drain, and wait until they are gone."""
        self._draining = True
        self._over.set()
        for worker in self._workers:
            self._close(worker)
        self._signal(signal.SIGTERM)
        for worker, keeper in zip(self._workers, self._keepers, strict=False):
            if not worker.pid:
                keeper.cancel()  # it waits before a restart that will not be
        gone = asyncio.gather(*self._keepers, return_exceptions=True)
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait((gone, hurried), timeout=limit + LAST, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if hurry.is_set():
            self._signal(signal.SIGTERM)
            await asyncio.wait((gone,), timeout=0.5)
        self._signal(signal.SIGKILL)
        await gone
        if self._unix is not None:
            self._unix.remove_path()

    def opened(self) -> Opened:
        """Where the workers listen."""
        return next(worker.opened for worker in self._workers if worker.opened is not None)

    def vitals(self) -> dict[str, float]:
        """The sum over all workers, the ended ones' counts included."""
        found = total(part for worker in self._workers for part in (worker.past, worker.vitals))
        return {**found, "workers": self._serving(), "worker_restarts_total": self._restarts}

    def figures(self) -> Figures:
        """What all workers have counted; the last second of one that was killed is lost."""
        figures = Figures(self._counted.counts, self._counted.histograms, {}, self._counted.errors)
        for worker in self._workers:
            figures.add(Figures(gauges=worker.gauges))
        return figures

    def _serving(self) -> int:
        return sum(worker.ready.is_set() for worker in self._workers)

    def _open(self) -> None:
        server = self._config.server
        if server.listen.fd or server.listen.path:
            shared = open_sockets(server.listen, self._passed, rights=Rights.of(server))
            self._unix = shared
            self._workers = [Worker(number, shared) for number in range(server.workers)]
            return
        # Once without sharing, so that another gateway at the same address is an error and not a rival.
        first = open_sockets(server.listen, {})
        address = first.address if not server.listen.port else server.listen
        for each in first.sockets:
            each.close()
        for number in range(server.workers):
            self._workers.append(Worker(number, open_sockets(address, {}, shared=True)))
        self._address = address

    async def _keep(self, worker: Worker) -> None:
        """Keep one place filled until the drain."""
        loop = asyncio.get_running_loop()
        while not self._draining:
            worker.since = worker.heard = loop.time()
            code = await self._run(worker)
            if self._draining:
                return
            lived = loop.time() - worker.since
            served = worker.ready.is_set()
            worker.ready.clear()
            self._restarts += 1
            worker.failures = 1 if served and lived >= SOUND else worker.failures + 1
            wait = min(LONGEST, FIRST_WAIT * 4.0 ** min(worker.failures - 1, 8))
            self._log.news("error", "a worker has ended", worker=worker.number, code=code, restart_in=round(wait, 1))
            await self._pause(worker, wait)

    async def _pause(self, worker: Worker, wait: float) -> None:
        """Wait before a restart, unless the drain begins; a longer wait gives the connections to the other workers."""
        if wait > 1 and worker.opened is not self._unix:
            self._close(worker)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), wait)

    def _close(self, worker: Worker) -> None:
        if worker.opened is not None and not (worker.opened is self._unix and not self._draining):
            for each in worker.opened.sockets:
                each.close()
            worker.opened = None

    async def _run(self, worker: Worker) -> int:
        """One process from its start to its end; returns its exit code, negative for a signal."""
        if worker.opened is None:
            worker.opened = open_sockets(self._address, {}, shared=True)
        here, there = socket.socketpair()
        given = self._config
        worker.pid = self._fork(worker, there, here)
        there.close()
        over = asyncio.get_running_loop().create_future()
        pidfd = os.pidfd_open(worker.pid)
        asyncio.get_running_loop().add_reader(pidfd, _settle, over)
        worker.line = await Line.over(here)
        if given is not self._config:  # a reload came in between
            worker.line.send("config", (self._config, self._digest))
        listening = asyncio.create_task(self._listen(worker, worker.line))
        try:
            await over
        finally:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
            worker.line.close()
            worker.line = None
            listening.cancel()
        code = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])  # noqa: ASYNC222 - it has ended
        worker.pid = 0
        counts = {name: value for name, value in worker.vitals.items() if name.endswith("_total")}
        worker.past, worker.vitals, worker.gauges = total((worker.past, counts)), {}, {}
        return code

    async def _listen(self, worker: Worker, line: Line) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(MUTE):
                    said = await line.receive()
            except TimeoutError:
                self._log.news("error", "a worker hangs and is ended", worker=worker.number)
                self._kill(worker, signal.SIGABRT)
                return
            if said is None:
                return
            worker.heard = loop.time()
            worker.vitals, report = said[1]
            worker.gauges, report.gauges = report.gauges, {}
            self._counted.add(report)
            if said[0] == "ready":
                worker.ready.set()

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            self._kill(worker, number)

    def _kill(self, worker: Worker, number: int) -> None:
        # Not reaped before `_run` says so, hence the number cannot belong to anybody else.
        if worker.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, number)

    def _fork(self, worker: Worker, end: socket.socket, other: socket.socket) -> int:
        """A child that works and never returns from here."""
        assert worker.opened is not None
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            return pid
        code = 1
        try:
            _be_a_child({end.fileno(), *(each.fileno() for each in worker.opened.sockets)})
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            code = self._work(worker.number, self._config, self._digest, worker.opened.sockets, end)
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        finally:
            os._exit(code)


def _be_a_child(keep: set[int]) -> None:
    """Let go of everything that is the supervisor's: its loop, its signals, its descriptors, its terminal."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    # The supervisor reloads, and says so by the line; Ctrl-C reaches the supervisor alone.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.setsid()
    asyncio._set_running_loop(None)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
