"""Nothing is left of requests that were given up, by the client (LS-005) or by the provider (LS-006)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from soak.clients import Wire, connected, crowd, moment
from soak.harness import MIB, Holds, Watched, many_descriptors, request, run, soaking, took

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
COUNT = 10_000
# So many of the same before the first look: memory has a high-water mark, which is no leak.
WARM = 2_000
AT_ONCE = 120
# Where a client leaves: the model that brings it there, how much of the request it sends, whether an answer has begun.
WINDOWS = {
    "in the head": ("quick", "head", False),
    "in the body": ("quick", "body", False),
    "before the provider's head": ("silent", "all", False),
    "before the first event": ("headed", "all", False),
    "in the middle": ("trickle", "all", True),
    "in the middle of a broken answer": ("half", "all", True),
    "while the answer comes": ("quick", "all", False),
    "while it takes nothing": ("flood", "all", True),
}


async def warm(gateway: Watched) -> None:
    """Two hundred requests, so that what is made once is made."""

    async def one(number: int) -> None:
        wire = await connected(gateway.port)
        assert await wire.ask(request(gateway, "quick", stream=bool(number % 2)))
        wire.leave(reset=False)

    await crowd(200, 20, one)
    await gateway.calm()


async def abort(gateway: Watched, window: str, *, stream: bool, reset: bool) -> None:
    model, sent, answered = WINDOWS[window]
    # A flood costs as much as a thousand others, so that there are few; and only streams trickle and flood.
    if (model == "flood" and random.random() < 0.8) or (model in ("flood", "trickle") and not stream):
        model = "half"
    raw = request(gateway, model, stream=stream, pad=random.randrange(3000), chunked=random.random() < 0.5)
    head = raw.index(b"\r\n\r\n")
    cut = {"head": random.randrange(head), "body": random.randrange(head + 4, len(raw) - 6), "all": len(raw)}[sent]
    wire = await connected(gateway.port)
    wire.transport.write(raw[:cut])
    if model == "flood":
        wire.transport.pause_reading()
    elif answered and stream:
        await asyncio.wait_for(wire.some.wait(), 10)
    await moment(0.2)
    wire.leave(reset=reset)


def assert_the_same(before: Holds, after: Holds) -> None:
    assert after.tasks == before.tasks
    assert after.alive == before.alive
    assert after.sums["sweep"] == before.sums["sweep"]
    assert after.own_descriptors == before.own_descriptors
    assert after.upstream["busy"] == 0
    assert after.rss - before.rss <= 16 * MIB


def shown(name: str, before: Holds, after: Holds) -> None:
    print(
        f"{name}: rss {before.rss / MIB:.1f} -> {after.rss / MIB:.1f} MiB, tasks {before.tasks} -> {after.tasks}, "
        f"descriptors {before.descriptors} -> {after.descriptors}, provider {after.upstream}, {after.alive}"
    )


def test_ten_thousand_aborted_requests_leave_nothing_behind(tmp_path: Path) -> None:
    many_descriptors()

    async def main() -> None:
        async with soaking(tmp_path) as gateway:
            windows = list(WINDOWS)

            async def one(number: int) -> None:
                window = windows[number % len(windows)]
                await abort(gateway, window, stream=bool(number // 8 % 2), reset=bool(number // 16 % 2))

            await warm(gateway)
            await crowd(WARM, AT_ONCE, one)
            before = await gateway.at_rest()
            with took("aborts"):
                await crowd(COUNT, AT_ONCE, one)
            after = await gateway.at_rest()
            shown("aborts", before, after)
            await gateway.logged()
            codes = Counter(line["code"] for line in gateway.access)
            print(codes)
            assert_the_same(before, after)
            assert after.upstream["cut"] - before.upstream["cut"] > COUNT // 3
            assert codes["client_disconnect"] > COUNT // 2
            assert codes.keys() <= {"ok", "client_disconnect", "invalid_request"}

    run(main())


def test_ten_thousand_upstream_resets_leave_nothing_behind(tmp_path: Path) -> None:
    many_descriptors()

    async def main() -> None:
        async with soaking(tmp_path) as gateway:
            ends: Counter[str] = Counter()

            async def one(number: int) -> None:
                wire = await connected(gateway.port)
                await wire.ask(request(gateway, "break", stream=bool(number % 2)))
                ends[_end_of(wire)] += 1
                wire.leave(reset=False)

            await warm(gateway)
            await crowd(WARM, AT_ONCE, one)
            before = await gateway.at_rest()
            ends.clear()
            with took("resets"):
                await crowd(COUNT, AT_ONCE, one)
            after = await gateway.at_rest()
            shown("resets", before, after)
            print(ends)
            assert_the_same(before, after)
            assert ends.total() == COUNT
            assert min(ends["whole"], ends["refused"], ends["broken"]) > 100
            assert ends.keys() <= {"whole", "refused", "broken"}

    run(main())


def _end_of(wire: Wire) -> str:
    if wire.whole:
        return "whole" if wire.status == 200 else f"refused{'' if wire.status in (502, 503) else wire.status}"
    told = wire.status == 200 and b'data: {"error":' in wire.seen and not wire.seen.endswith(b"0\r\n\r\n")
    return "broken" if told else f"odd: {wire.seen[-200:]!r}"
