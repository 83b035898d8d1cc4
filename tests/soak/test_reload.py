"""A reload every second under load: no request fails, no stream breaks, nothing of the old configurations is left."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from faults.serving import deployment, openai, profile
from soak.clients import connected
from soak.harness import MIB, MODES, Watched, many_descriptors, request, run, soaking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
SECONDS = 60
STREAMS = 20
CONNECTIONS = 20
# Each connection asks this often: 200 requests per second in all.
PAUSE = CONNECTIONS / 200


def changed(gateway: Watched, number: int) -> dict[str, Any]:
    """Another configuration: with the account's headers changed, its connections are others, too."""
    up = openai(f"http://127.0.0.1:{gateway.provider.port}", headers={"x-generation": str(number // 2)})
    deployments = {name: deployment("up", name) for name in MODES}
    more = {f"extra-{number}": deployment("up", "quick")}
    return profile({"up": up}, {**deployments, **more}, retry={"attempts": 1, "timeouts": {"total": "120s"}})


def test_a_reload_every_second_fails_no_request_and_breaks_no_stream(tmp_path: Path) -> None:
    many_descriptors()

    async def main() -> None:
        async with soaking(tmp_path, retry={"attempts": 1, "timeouts": {"total": "120s"}}) as gateway:
            before = await gateway.at_rest()
            until = time.monotonic() + SECONDS
            failed: list[bytes] = []
            asked = 0

            async def asks() -> None:
                nonlocal asked
                wire = await connected(gateway.port)
                while time.monotonic() < until:
                    asked += 1
                    if not await wire.ask(request(gateway, "quick", stream=False)):
                        failed.append(wire.seen[:200])
                        return
                    await asyncio.sleep(PAUSE)
                wire.leave(reset=False)

            async def streams() -> None:
                wire = await connected(gateway.port)
                if not await wire.ask(request(gateway, "trickle", stream=True, events=SECONDS * 40)):
                    failed.append(wire.seen[:200] + wire.seen[-200:])
                wire.leave(reset=False)

            async def reloads() -> None:
                for number in range(SECONDS):
                    gateway.write(changed(gateway, number))
                    gateway.process.send_signal(signal.SIGHUP)
                    await asyncio.sleep(1)

            await asyncio.gather(reloads(), *(asks() for _ in range(CONNECTIONS)), *(streams() for _ in range(STREAMS)))
            reloaded = await gateway.vital("config_reloads_total")
            print(f"reload: {asked} requests and {STREAMS} streams over {reloaded:.0f} reloads, {len(failed)} failed")
            assert failed == []
            assert asked > 100 * SECONDS
            assert reloaded >= SECONDS * 0.8
            after = await gateway.at_rest()
            print(f"rss {before.rss / MIB:.1f} -> {after.rss / MIB:.1f} MiB, accounts {after.objects['Account']}")
            assert after.alive == before.alive
            assert after.tasks == before.tasks
            # One in force; one before may still hold connections that end by themselves.
            assert after.objects["Account"] <= before.objects["Account"] + 1
            assert after.objects["Snapshot"] <= before.objects["Snapshot"] + 1
            assert after.own_descriptors == before.own_descriptors

    run(main())
