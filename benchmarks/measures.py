"""Ways to measure a contestant under load, a turn each. Times are in µs and memory in bytes, unless the name says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from benchmarks import clients, wires
from benchmarks.clients import Clients, Run, Seen
from benchmarks.contestants import KEY, MODELS, OPENAI_PATH
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
    return _figures(*_watched(lineup, running, request, asked.clients), asked.per)


def refused(lineup: Lineup, running: Running, asked: Asked) -> Figures:
    """The same with a key that nobody knows, beside a served request; the upstream must hear nothing of it."""
    served = under_load(lineup, running, asked)
    lineup.upstream.streams_left()
    before = lineup.upstream.stats().requests
    request = running.request(asked.wire, stream=asked.stream, key="sk-nobody")
    seen, cpu, memory = _watched(lineup, running, request, replace(asked.clients, status=401))
    if leaked := lineup.upstream.stats().requests - before:
        raise Wrong(f"{leaked} requests without a valid key reached the upstream")
    figures = _figures(seen, cpu, memory, "answers")
    return {**figures, "share": figures["cpu"] / served["cpu"]}


def added(lineup: Lineup, running: Running, asked: Asked) -> Figures:
    """How much longer an answer takes than straight from the upstream, asked just before and just after."""
    lineup.upstream.behave(asked.upstream)
    body = wires.chat(MODELS["openai"], stream=asked.stream)
    straight = lineup.work(lineup.upstream.port, wires.request(OPENAI_PATH, {"Authorization": f"Bearer {KEY}"}, body))
    brief = replace(asked.clients, seconds=asked.clients.seconds / 3)
    before = clients.run(straight, brief)
    figures = under_load(lineup, running, asked)
    after = clients.run(straight, brief)
    direct = (before.latency.p50 + after.latency.p50) / 2
    return {**figures, "direct": direct, "added": figures["p50"] - direct}


def open_streams(lineup: Lineup, running: Running, asked: Asked) -> Figures:
    """KiB of memory per open stream, once the process has served a few requests, and how late chunks are."""
    _warm_up(lineup, running)
    before = running.memory
    lineup.upstream.behave(asked.upstream)
    work = lineup.work(running.seat.port, running.request(asked.wire, stream=True))
    marks: list[tuple[int, int]] = []

    def mark() -> None:
        marks.append((running.memory, lineup.upstream.stats().active))

    seen = clients.run(work, asked.clients, end=mark)
    memory, active = marks[0]
    if seen.errors or active != asked.clients.connections:
        raise Wrong(f"{active} of {asked.clients.connections} streams, {seen.errors} errors, last status {seen.status}")
    each = (memory - before) / 1024 / asked.clients.connections
    return {"per_stream": each, "p50": seen.age.p50, "p99": seen.age.p99, "memory": float(memory)}


def beside_big(lineup: Lineup, running: Running, asked: Asked) -> Figures:
    """How late the chunks of streams are while somebody else sends a prompt of `padding` bytes every 10 ms."""
    lineup.upstream.behave(asked.upstream)
    big = lineup.work(running.seat.port, running.request(asked.wire, stream=False, padding=asked.padding))
    sender = Run(big, Clients(1, asked.clients.warm + asked.clients.seconds, 0.0, every=0.01), "big")
    try:
        request = running.request(asked.wire, stream=True)
        seen, _, memory = _watched(lineup, running, request, asked.clients)
    finally:
        sender.wait_until_counting()
        sent = sender.wait_until_counted()
        sender.close()
    if not sent.answers or sent.errors:
        raise Wrong(f"{sent.answers} of the big prompts were answered, {sent.errors} errors")
    return {"age99": seen.age.p99, "p50": seen.age.p50, "max": seen.age.max, "memory": float(memory)}


def idle(lineup: Lineup, running: Running, asked: Asked) -> Figures:
    """MiB of a process that has served a few requests and has nothing to do."""
    _warm_up(lineup, running)
    return {"idle": running.memory / 2**20}


def _warm_up(lineup: Lineup, running: Running) -> None:
    lineup.upstream.behave(Behaviour())
    request = running.request("openai", stream=False)
    clients.run(lineup.work(running.seat.port, request), Clients(8, 0.5, 0.2))
    lineup.upstream.streams_left()


def _watched(lineup: Lineup, running: Running, request: bytes, asked: Clients) -> tuple[Seen, int, int]:
    """What clients saw, the CPU time meanwhile, and the memory at its end."""
    marks: list[tuple[int, int]] = []

    def mark() -> None:
        marks.append((running.cpu_ns, running.memory))

    seen = clients.run(lineup.work(running.seat.port, request), asked, mark, mark)
    if seen.errors:
        raise Wrong(f"{seen.errors} errors, the last status was {seen.status}")
    (before, _), (after, memory) = marks
    return seen, after - before, memory


def _figures(seen: Seen, cpu: int, memory: int, per: str) -> Figures:
    count, times = (seen.chunks, seen.age) if per == "chunks" else (seen.answers, seen.latency)
    if not count:
        raise Wrong("nothing came")
    return {
        "cpu": cpu / 1e3 / count,
        "rate": count / seen.seconds,
        "p50": times.p50,
        "p99": times.p99,
        "memory": float(memory),
    }
