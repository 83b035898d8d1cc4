"""The ways to measure a contestant. Each takes one turn and gives its figures by name; times in µs, memory in bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks import clients
from benchmarks.clients import Clients, Seen
from benchmarks.lineup import Lineup, Running
from benchmarks.upstream import Behaviour

Figures = Mapping[str, float]


class Wrong(Exception):
    """A turn that means nothing: answers were missing, or not what they had to be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What clients send and how often; the upstream's answer comes in the format `wire`."""

    clients: Clients
    wire: str = "openai"
    stream: bool = False
    padding: int = 0
    upstream: Behaviour = field(default_factory=Behaviour)
    per: str = "answers"


Measure = Callable[[Lineup, Running, Asked], Figures]


def under_load(lineup: Lineup, running: Running, asked: Asked) -> Figures:
    """CPU time per answer or chunk, the rate, how long answers took or how old chunks were, memory."""
    lineup.upstream.behave(asked.upstream)
    request = running.request(asked.wire, stream=asked.stream, padding=asked.padding)
    seen, cpu, memory = _watched(lineup, running, request, asked.clients)
    return _figures(asked, seen, cpu, memory)


def _watched(lineup: Lineup, running: Running, request: bytes, asked: Clients) -> tuple[Seen, int, int]:
    """What clients saw, the CPU time meanwhile, and the memory at its end."""
    marks: list[int] = []
    sizes: list[int] = []

    def mark() -> None:
        marks.append(running.cpu_ns)
        sizes.append(running.memory)

    seen = clients.run(lineup.work(running.seat.port, request), asked, mark, mark)
    if seen.errors:
        raise Wrong(f"{seen.errors} errors, the last status was {seen.status}")
    if left := lineup.upstream.streams_left():
        raise Wrong(f"{left} upstream answers go on without a client")
    return seen, marks[1] - marks[0], sizes[1]


def _figures(asked: Asked, seen: Seen, cpu: int, memory: int) -> Figures:
    count = seen.chunks if asked.per == "chunks" else seen.answers
    if not count:
        raise Wrong("nothing came")
    times = seen.age if asked.per == "chunks" else seen.latency
    return {
        "cpu": cpu / 1e3 / count,
        "rate": count / seen.seconds,
        "p50": times.p50,
        "p99": times.p99,
        "memory": float(memory),
    }
