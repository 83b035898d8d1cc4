"""Thousands of slow streams at once (LS-001, LS-002, shortened), and how late the event loop is under them (LS-015)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from soak.clients import Ticks, Wire, connected, crowd
from soak.harness import Holds, Watched, many_descriptors, percentile, request, run, soaking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
KIB = 1024
MOST_PER_STREAM = 96
# The first second is that of connecting, which is not what is measured.
SETTLED = 3.0


@dataclass
class Outcome:
    """What slow streams cost, and how late their events were."""

    whole: int
    events: int
    late: list[float]
    direct: list[float]
    before: Holds
    during: Holds

    @property
    def kib_per_stream(self) -> float:
        """Memory that grew while all were open, per stream."""
        return (self.during.rss - self.before.rss) / KIB / self.during.upstream["busy"]

    def told(self) -> str:
        """The figures on a line."""
        ours, theirs = (percentile(values, 0.99) * 1000 for values in (self.late, self.direct))
        return (
            f"{self.during.upstream['busy']} streams: {self.kib_per_stream:.1f} KiB each, {self.events} events, "
            f"p99 late {ours:.1f} ms (without the gateway {theirs:.1f} ms), "
            f"loop late p99 {self.during.lag['p99']:.1f} ms, most {self.during.lag['max']:.1f} ms"
        )


async def slow_streams(gateway: Watched, count: int, seconds: int) -> Outcome:
    """So many streams of an event per second; fifty more go to the provider directly: what the machine adds."""
    late: list[float] = []
    direct: list[float] = []
    wires: list[Wire] = []

    async def one(number: int) -> None:
        straight = number < 50
        port, kept = (gateway.provider.port, direct) if straight else (gateway.port, late)
        wire = await connected(port, lambda: Ticks(kept))
        wires.append(wire)
        wire.transport.write(request(gateway, "tick", stream=True, events=seconds))

    before = await gateway.at_rest()
    await crowd(count + 50, 100, one)
    await asyncio.sleep(SETTLED)
    await gateway.holds()
    # That question held the loop up.
    await asyncio.sleep(1)
    late.clear()
    direct.clear()
    await asyncio.sleep(seconds - SETTLED - 4)
    measured, straight = list(late), list(direct)
    during = await gateway.holds()
    await asyncio.gather(*(wire.over.wait() for wire in wires))
    for wire in wires:
        wire.leave(reset=False)
    whole = sum(wire.whole and wire.status == 200 for wire in wires) - 50
    return Outcome(whole, len(measured), measured, straight, before, during)


async def soaked(folder: Path, count: int, seconds: int) -> Outcome:
    many_descriptors()
    async with soaking(
        folder,
        deployment={"limits": {"parallel": 6000}},
        retry={"attempts": 1, "timeouts": {"total": "120s", "idle": "10s"}},
    ) as gateway:
        for _ in range(200):
            wire = await connected(gateway.port)
            assert await wire.ask(request(gateway, "quick", stream=True))
            wire.leave(reset=False)
        outcome = await slow_streams(gateway, count, seconds)
        print(outcome.told())
        after = await gateway.at_rest()
        assert after.alive == outcome.before.alive
        return outcome


def test_a_thousand_slow_streams_cost_little_and_come_in_time(tmp_path: Path) -> None:
    outcome = run(soaked(tmp_path, 1000, 20))
    assert outcome.whole == 1000
    assert outcome.kib_per_stream <= MOST_PER_STREAM
    assert percentile(outcome.late, 0.99) - percentile(outcome.direct, 0.99) <= 0.050
    assert outcome.during.lag["p99"] <= 20
    assert outcome.during.lag["max"] <= 200


def test_five_thousand_slow_streams_at_once(tmp_path: Path) -> None:
    if many_descriptors() < 12_000:
        pytest.skip("not enough descriptors")
    outcome = run(soaked(tmp_path, 5000, 18))
    assert outcome.whole == 5000
    assert outcome.kib_per_stream <= MOST_PER_STREAM
    assert percentile(outcome.late, 0.99) - percentile(outcome.direct, 0.99) <= 0.250
