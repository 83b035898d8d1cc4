"""The contestants that run: started when they are first asked for, each on the proxies' core, ended together."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from benchmarks import machine, wires
from benchmarks.clients import Work
from benchmarks.contestants import KEY, ROOT, Contestant, Seat, nginx
from benchmarks.machine import Cores
from benchmarks.upstream import Upstream, start_upstream


class CannotStart(Exception):
    """A contestant does not run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """A contestant at work."""

    contestant: Contestant
    seat: Seat
    process: subprocess.Popen[bytes]

    @property
    def cpu_ns(self) -> int:
        """The CPU time of all its processes so far."""
        return machine.cpu_ns(self.process.pid)

    @property
    def memory(self) -> int:
        """The resident bytes of all its processes."""
        return machine.memory(self.process.pid)

    def request(self, wire: str, *, stream: bool, padding: int = 0, key: str = KEY) -> bytes:
        """A client's whole request to it."""
        path = self.contestant.path(wire)
        assert path, f"{self.contestant.name} has no way to {wire}"
        body = wires.chat(self.contestant.model(wire), stream=stream, padding=padding)
        return wires.request(path, {"Authorization": f"Bearer {key}", **self.contestant.headers(self.seat, wire)}, body)


@dataclass(slots=True)
class Lineup:
    """Everything that runs during a benchmark. A context: what was started is ended with it."""

    folder: Path
    cores: Cores = field(default_factory=machine.cores)
    homes: Mapping[str, Path] = field(default_factory=dict)
    _upstream: Upstream | None = None
    _tls: tuple[int, Path] | None = None
    _running: dict[tuple[str, bool], Running] = field(default_factory=dict)
    _others: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Lineup:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._upstream = start_upstream(self.folder, self.cores.load)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in (*(each.process for each in self._running.values()), *self._others, self.upstream.process):
            machine.stop(process)

    @property
    def upstream(self) -> Upstream:
        """What all contestants have behind them."""
        assert self._upstream is not None, "a line-up is entered before it is used"
        return self._upstream

    def get(self, contestant: Contestant, *, tls: bool = False, fresh: bool = False, spread: bool = False) -> Running:
        """The contestant, started if need be; `fresh`: one that has served nothing yet; `spread`: on all cores."""
        key = contestant.name, tls
        if fresh and key in self._running:
            self.drop(self._running[key])
        if key not in self._running:
            self._running[key] = self._start(contestant, tls=tls)
        running = self._running[key]
        machine.move(running.process.pid, self.cores.both if spread else self.cores.proxy)
        return running

    def drop(self, running: Running) -> None:
        """End a contestant; whoever asks for it next gets a new one."""
        machine.stop(running.process)
        self._running = {key: each for key, each in self._running.items() if each is not running}

    def work(self, port: int, request: bytes) -> Work:
        """A request to a port, for clients on the clients' core."""
        return Work(self.folder, port, request, self.cores.load)

    def _start(self, contestant: Contestant, *, tls: bool) -> Running:
        if missing := contestant.missing(self.homes):
            raise CannotStart(missing)
        port, ca = self._tls_front() if tls else (self.upstream.port, None)
        folder = self.folder / f"{contestant.name}{'-tls' if tls else ''}"
        folder.mkdir(exist_ok=True)
        home = self.homes.get(contestant.name)
        seat = Seat(machine.free_port(), machine.free_port(), folder, port, ca, home)
        environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **contestant.environment(seat)}
        log = folder / "output.log"
        process = machine.start(contestant.line(seat), self.cores.proxy, log, environment)
        if not machine.answers(seat.port, process):
            machine.stop(process)
            raise CannotStart(f"{contestant.title} did not start; it said:\n{log.read_text()[-2000:]}")
        return Running(contestant, seat, process)

    def _tls_front(self) -> tuple[int, Path]:
        """TLS before the upstream: where it listens, and the authority to trust."""
        if not self._tls:
            self._tls = self._start_tls_front()
        return self._tls

    def _start_tls_front(self) -> tuple[int, Path]:
        folder = self.folder / "tls"
        folder.mkdir(exist_ok=True)
        try:
            ca = _certificate(folder)
            seat = Seat(machine.free_port(), 0, folder, self.upstream.port)
            line = nginx(seat, "nginx_tls.conf", certificate=str(folder / "server.pem"))
            process = machine.start(line, self.cores.load, folder / "output.log")
        except (ImportError, FileNotFoundError) as error:
            raise CannotStart(f"TLS before the upstream takes nginx and trustme: {error}") from error
        if not machine.answers(seat.port, process):
            raise CannotStart(f"nginx with TLS did not start:\n{(folder / 'output.log').read_text()[-2000:]}")
        self._others.append(process)
        return seat.port, ca


def _certificate(folder: Path) -> Path:
    """A certificate for loopback in `server.pem`; the path of its authority."""
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    (folder / "server.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"
