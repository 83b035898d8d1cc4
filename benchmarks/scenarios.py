"""What is measured: one row for each scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.clients import Clients
from benchmarks.leaving import gone, stalled
from benchmarks.measures import Asked, Measure, added, beside_big, idle, open_streams, refused, under_load
from benchmarks.upstream import Behaviour

ENDLESS = 1 << 30
ALL = ("nginx", "haproxy", "sluiceway", "aiohttp", "fastapi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing to measure. `figure` is the one that counts, smaller is better; `unit` says what it is.

    `fresh`: every turn on a process that has served nothing; `spread`: on all cores; `rounds`: at most so many;
    `names`: who takes part when the command does not say.
    """

    name: str
    title: str
    asked: Asked
    measure: Measure = under_load
    figure: str = "cpu"
    unit: str = "µs/request"
    tls: bool = False
    fresh: bool = False
    spread: bool = False
    rounds: int = 100
    names: Sequence[str] = ALL

    @property
    def warms_up(self) -> bool:
        """Does a first turn not count?"""
        return self.measure in {under_load, refused, added, beside_big} and not self.fresh


def _whole(connections: int, *, delay: float = 0.0, padding: int = 0) -> Asked:
    """Whole answers; those of a slow upstream are asked for one after the other, not all at once."""
    return Asked(Clients(connections, 1.5, ramp=delay), padding=padding, upstream=Behaviour(delay=delay))


def _paced(connections: int, wire: str = "openai") -> Asked:
    """Streams of a token every 20 ms that do not end: nothing but their chunks costs."""
    clients = Clients(connections, 1.5, warm=0.7, ramp=0.02)
    return Asked(clients, wire, stream=True, upstream=Behaviour(ENDLESS, 0.02), per="chunks")


def _translated(wire: str) -> Scenario:
    """Streams that we translate, and the others do not."""
    title = f"{wire.title()} to OpenAI, 200 streams; the others pass its bytes on"
    return Scenario(name=f"{wire}:200", title=title, asked=_paced(200, wire), unit="µs/chunk")


def _many(connections: int, names: Sequence[str] = ALL) -> Scenario:
    """Streams of a token a second, so many that their memory shows."""
    ramp = connections / 500
    clients = Clients(connections, 2.0, ramp + 2.5, ramp)
    return Scenario(
        name=f"streams:{connections}",
        title=f"{connections:,} open streams, a chunk a second: memory of each",
        asked=Asked(clients, stream=True, upstream=Behaviour(ENDLESS, 1.0)),
        measure=open_streams,
        figure="per_stream",
        unit="KiB/stream",
        fresh=True,
        rounds=1,
        names=names,
    )


def _left(name: str, title: str, pause: float) -> Scenario:
    """A client that leaves a stream with so many seconds between its chunks."""
    asked = Asked(Clients(1, 0.0), stream=True, upstream=Behaviour(ENDLESS, pause))
    return Scenario(name=name, title=title, asked=asked, measure=gone, figure="gone", unit="ms", rounds=1)


SHORT = Asked(Clients(64, 1.5, ramp=0.04), stream=True, upstream=Behaviour(20, 0.002))
FLOOD = Asked(Clients(16, 1.5), stream=True, upstream=Behaviour(300), per="chunks")
BESIDE = Asked(Clients(50, 2.0, 0.7, 0.02), stream=True, padding=400_000, upstream=Behaviour(ENDLESS, 0.02))

SCENARIOS: Sequence[Scenario] = (
    Scenario(name="json:1", title="whole answers, one connection", asked=_whole(1)),
    Scenario(name="json:16", title="whole answers, 16 connections", asked=_whole(16)),
    Scenario(name="json:64", title="whole answers, 64 connections", asked=_whole(64)),
    Scenario(name="json:256", title="whole answers, 256 connections", asked=_whole(256)),
    Scenario(name="delay:256", title="an upstream that takes 50 ms, 256 connections", asked=_whole(256, delay=0.05)),
    Scenario(name="big:4", title="prompts of 400 KB, 4 connections", asked=_whole(4, padding=400_000)),
    Scenario(name="paced:50", title="50 streams, a chunk every 20 ms", asked=_paced(50), unit="µs/chunk"),
    Scenario(name="paced:400", title="400 streams, a chunk every 20 ms", asked=_paced(400), unit="µs/chunk"),
    Scenario(name="short:64", title="whole streams of 20 chunks, 2 ms apart", asked=SHORT, unit="µs/stream"),
    Scenario(name="flood:16", title="16 streams at full speed", asked=FLOOD, unit="µs/chunk"),
    *(_translated(wire) for wire in ("anthropic", "google", "bedrock")),
    Scenario(name="tls:16", title="TLS to the upstream, whole answers", asked=_whole(16), tls=True),
    Scenario(name="tls:200", title="TLS to the upstream, 200 streams", asked=_paced(200), unit="µs/chunk", tls=True),
    Scenario(name="keys:16", title="keys that nobody knows", asked=_whole(16), measure=refused, unit="µs/refusal"),
    Scenario(
        name="added:1",
        title="latency added to an answer, one connection",
        asked=_whole(1),
        measure=added,
        figure="added",
        unit="µs",
    ),
    Scenario(
        name="beside:50",
        title="50 streams beside a prompt of 400 KB every 10 ms: age of a chunk, 99th percentile",
        asked=BESIDE,
        measure=beside_big,
        figure="age99",
        unit="µs",
    ),
    Scenario(
        name="idle",
        title="memory with nothing to do",
        asked=_whole(1),
        measure=idle,
        figure="idle",
        unit="MiB",
        fresh=True,
        rounds=1,
    ),
    _many(1000),
    _many(5000, ("nginx", "haproxy", "sluiceway", "aiohttp")),
    Scenario(
        name="stalled:16",
        title="clients that stop reading an endless stream: memory of each",
        asked=Asked(Clients(16, 0.0), stream=True),
        measure=stalled,
        figure="growth",
        unit="KiB/client",
        fresh=True,
        rounds=1,
    ),
    _left("gone", "from a client's leaving to the end of its answer upstream", 0.02),
    _left("gone:silent", "the same while the upstream is silent", 30.0),
    Scenario(
        name="workers:64",
        title="one worker and two, on all cores",
        asked=_whole(64),
        figure="rate",
        unit="requests/s",
        spread=True,
        names=("sluiceway", "sluiceway-2"),
    ),
)
BY_NAME = {each.name: each for each in SCENARIOS}
