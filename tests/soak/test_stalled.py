"""Clients that never read (LS-003, LS-004): they cost little, stay flat, hold up the provider, and are cut."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from soak.clients import connected, stalled
from soak.harness import MIB, Watched, many_descriptors, request, run, soaking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
COUNT = 150
PATIENT = {"attempts": 1, "timeouts": {"total": "60s", "idle": "5s"}}
KIB = 1024


def test_stalled_clients_of_a_fast_provider_stay_small_and_are_cut(tmp_path: Path) -> None:
    many_descriptors()

    async def main() -> None:
        async with soaking(tmp_path, server={"write_timeout": "15s"}, retry=PATIENT) as gateway:
            for _ in range(200):
                wire = await connected(gateway.port)
                assert await wire.ask(request(gateway, "quick", stream=True))
                wire.leave(reset=False)
            before = await gateway.at_rest()
            began = time.monotonic()
            sleepers = [await stalled(gateway.port, request(gateway, "flood", stream=True)) for _ in range(COUNT)]
            await still(gateway)
            first, then = gateway.watched.memory_info().rss, time.monotonic()
            await asyncio.sleep(3)
            last, now = gateway.watched.memory_info().rss, time.monotonic()
            during = await gateway.holds()
            each = (last - before.rss) / KIB / COUNT
            slope = (last - first) / KIB / (now - then)
            print(f"stalled: {each:.0f} KiB per stream, {slope:.1f} KiB/s, provider {during.upstream}")
            assert during.upstream["paused"] == COUNT
            assert each <= 512
            assert slope <= 10
            await gateway.calm(then + 15 + 2 - time.monotonic())
            after = await gateway.at_rest()
            print(
                f"cut after {time.monotonic() - began:.1f} s, rss {before.rss / MIB:.0f} -> {after.rss / MIB:.0f} MiB"
            )
            assert after.upstream["cut"] == COUNT
            assert after.alive == before.alive
            await gateway.logged()
            assert [line["code"] for line in gateway.access[200:]] == ["client_write_timeout"] * COUNT
            for sleeper in sleepers:
                sleeper.close()

    run(main())


async def still(gateway: Watched) -> None:
    """Wait until the provider can write no more: the buffers between it and the clients are full."""
    written = -1
    async with asyncio.timeout(30):
        while (seen := await gateway.provider.seen())["paused"] < COUNT or seen["written"] != written:
            written = seen["written"]
            await asyncio.sleep(1)


def test_a_client_that_never_reads_a_whole_answer_is_cut_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        async with soaking(tmp_path, server={"write_timeout": "2s"}) as gateway:
            before = await gateway.at_rest()
            sleepers = [await stalled(gateway.port, request(gateway, "big", stream=False)) for _ in range(8)]
            async with asyncio.timeout(7):
                while await gateway.vital("connections") or not (await gateway.provider.seen())["requests"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            after = await gateway.at_rest()
            assert after.alive == before.alive
            for sleeper in sleepers:
                sleeper.close()

    run(main())
