"""The clients: the C program run once, with a hook when its counting begins and when it ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import pinned
from benchmarks.native import build


@dataclass(frozen=True, slots=True)
class Clients:
    """So many connections, each with one request after the other; times in seconds, `every` from request to request."""

    connections: int
    seconds: float
    warm: float = 0.5
    ramp: float = 0.0
    every: float = 0.0
    status: int = 200


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Times in µs; `count` of them."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What they saw while they counted. `age`: how old chunks were on arrival."""

    seconds: float
    answers: int
    chunks: int
    errors: int
    status: int
    latency: Percentiles
    first_byte: Percentiles
    age: Percentiles


@dataclass(frozen=True, slots=True)
class Work:
    """What to send where, from which cores; `folder` keeps the program and the request."""

    folder: Path
    port: int
    request: bytes
    on: frozenset[int]


class Run:
    """Clients at work."""

    def __init__(self, work: Work, clients: Clients, name: str = "request") -> None:
        path = work.folder / f"{name}.http"
        path.write_bytes(work.request)
        numbers = (clients.connections, clients.warm, clients.seconds, clients.ramp, clients.every, clients.status)
        self._process = subprocess.Popen(
            pinned([str(build("load", work.folder)), str(work.port), str(path), *map(str, numbers)], work.on),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_until_counting(self) -> None:
        """Until the warm-up is over."""
        self._line()

    def wait_until_counted(self) -> Seen:
        """Until the time is over; the connections stay open."""
        return read_seen(self._line())

    def close(self) -> None:
        """Close all connections."""
        self._process.communicate()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def read_seen(line: bytes) -> Seen:
    """The program's last line as a value."""
    if not line:
        raise RuntimeError("the clients ended without a result")
    said: dict[str, Any] = json.loads(line)
    latency, first_byte, age = (Percentiles(**said.pop(name)) for name in ("latency", "first_byte", "age"))
    return Seen(**said, latency=latency, first_byte=first_byte, age=age)


def run(
    work: Work, clients: Clients, begin: Callable[[], None] = lambda: None, end: Callable[[], None] = lambda: None
) -> Seen:
    """One run; `begin` and `end` are called at the ends of the time that counts, while all connections are open."""
    running = Run(work, clients)
    try:
        running.wait_until_counting()
        begin()
        seen = running.wait_until_counted()
        end()
        return seen
    finally:
        running.close()
