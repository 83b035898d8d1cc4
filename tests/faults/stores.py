"""Redis that is not there, goes away, or answers too late: what requests with limits notice of it."""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from faults import living
from faults.casefiles import call
from faults.living import Crowd, Facts, metric, said, stopping, until
from faults.serving import KEY, KEY_A_ONLY, ROOT, Gateway
from faults.wireclient import ask
from livegateway import hashed
from redisserver import RedisServer, redis_server

PAIRS = 40
# What a neighbour on the same machine spoils once; a fault of ours shows every time.
TRIES = 3
RESTS = 4.0


def _config(url: str, redis: RedisServer) -> dict[str, Any]:
    """The first key has limits that nobody reaches, the second has none."""
    keys = {
        "tester": {"hash": hashed(KEY), "limits": {"rpm": 1_000_000, "tpm": 100_000_000, "parallel": 1000}},
        "free": {"hash": hashed(KEY_A_ONLY)},
    }
    return living.config(url, state={"store": "redis", "url": redis.url}, keys=keys)


async def _seconds(gateway: Gateway, key: str) -> float:
    began = time.monotonic()
    last = (await ask(gateway.port, call("m-r0", key=key), 5.0)).last
    assert last is not None
    assert last.status == 200
    return time.monotonic() - began


async def _added_ms(gateway: Gateway, pairs: int = PAIRS) -> float:
    """What a request with limits takes longer than one without that is sent at the same time, nine times of ten."""
    found = []
    for _ in range(pairs):
        limited, free = await asyncio.gather(_seconds(gateway, KEY), _seconds(gateway, KEY_A_ONLY))
        found.append(limited - free)
    return statistics.quantiles(found, n=10)[-1] * 1000


async def _least_added_ms(gateway: Gateway, most: float) -> float:
    added = await _added_ms(gateway)
    for _ in range(TRIES - 1):
        if added > most:
            added = min(added, await _added_ms(gateway))
    return added


async def _header(gateway: Gateway) -> str:
    last = (await ask(gateway.port, call("m-r0"), 5.0)).last
    return last.header("x-gateway-state") or "" if last is not None else "no answer"


async def _degraded(gateway: Gateway, count: int) -> bool:
    return await metric(gateway, "state_degraded") == count


async def lc_024(folder: Path) -> Facts:
    redis = RedisServer(folder)
    async with living.provider() as provider, stopping(folder, _config(provider.url, redis)) as gateway:
        documented = "`local_share`" in (ROOT / "docs" / "state.md").read_text()
        mode = said("documented fail-open or fail-closed", documented and await _header(gateway) == "degraded")
        added = await _least_added_ms(gateway, 5)
        assert await _degraded(gateway, 1)
        redis.start()
        try:
            await until(lambda: _degraded(gateway, 0), 20)
        finally:
            redis.kill()
        return {"starts": gateway.process.poll() is None, "mode": mode, "added_latency_ms_max": added}


async def lc_025(folder: Path) -> Facts:
    with redis_server(folder) as redis:
        async with living.provider() as provider, stopping(folder, _config(provider.url, redis)) as gateway:
            await until(lambda: _degraded(gateway, 0), 20)
            crowd = Crowd(gateway)
            async with crowd.around():
                await asyncio.sleep(1)
                redis.kill()
                await until(lambda: _degraded(gateway, 1), 20)
                await asyncio.sleep(1)
            added = await _least_added_ms(gateway, 5)
            async with crowd.around():
                redis.start()
                await until(lambda: _degraded(gateway, 0), 20)
            reconnects = await _header(gateway) == "" and redis.say("DBSIZE") != b":0\r\n"
            return {
                "failed_requests": f"{len(crowd.failed)} in fail-open",
                "added_latency_ms_max": added,
                "reconnects": reconnects,
            }


async def lc_026(folder: Path) -> Facts:
    with redis_server(folder) as redis:
        async with living.provider() as provider, stopping(folder, _config(provider.url, redis)) as gateway:
            await until(lambda: _degraded(gateway, 0), 20)
            added = 1000.0
            for _ in range(TRIES):
                redis.signal(signal.SIGSTOP)
                slept = time.monotonic()
                # The first of these wait for Redis, each for itself; then the breaker is open.
                added = min(added, await _added_ms(gateway, 10))
                await until(lambda: _degraded(gateway, 1), 20)
                await asyncio.sleep(max(0.0, slept + RESTS - time.monotonic()))
                opened = await _degraded(gateway, 1)
                redis.signal(signal.SIGCONT)
                await until(lambda: _degraded(gateway, 0), 20)
                if added <= 50:
                    break
            return {"added_latency_ms_max": added, "breaker_opens": opened}
