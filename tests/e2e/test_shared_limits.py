"""Two gateways and a real Redis: limits that hold for both, places that come back, and life without Redis."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from livegateway import HELLO, Client, Process, Reply, accounts, hashed, process
from redisserver import RedisServer, redis_server
from upstreams import ScriptedUpstream, answer, demo

SECRET = "sk-test-shared"
KEY = {"hash": hashed(SECRET)}
BEARER = {"Authorization": f"Bearer {SECRET}"}
# The default of 20 ms is for the case in which it matters; a busy machine takes longer to answer at times.
PATIENT = "5s"
SMALL = {"max_tokens": 10}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def state(redis: RedisServer, **options: Any) -> dict[str, Any]:
    return {"store": "redis", "url": redis.url, "timeout": PATIENT, **options}


@asynccontextmanager
async def gateways(folder: Path, count: int = 2, **content: Any) -> AsyncIterator[list[Process]]:
    """So many gateways under the same configuration, each a process of its own, in front of one demo."""
    async with demo() as upstream:
        base = {"providers": accounts(upstream, "openai"), "deployments": {"m": {"provider": "openai", "model": "gpt"}}}
        with ExitStack() as stack:
            found = []
            for number in range(count):
                place = folder / f"gateway{number}"
                place.mkdir()
                found.append(await asyncio.to_thread(stack.enter_context, process(place, {**base, **content})))
                found[-1].headers = BEARER
            yield found


async def metric(client: Client, name: str) -> float:
    page = (await client.get("/metrics", port=client.admin_port)).body.decode()
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))


async def eventually(claim: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            result = claim()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.02)  # other processes: there is nothing here to wait on


def said(client: Client) -> list[str]:
    """What the log tells about Redis."""
    return [line["message"] for line in client.log() if "Redis" in line.get("message", "")]


def keys(**limits: Any) -> dict[str, Any]:
    return {"app": {**KEY, "limits": limits}}


def test_of_a_thousand_requests_to_two_gateways_exactly_those_within_the_limit_are_let_in(
    tmp_path: Path, redis: RedisServer, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        async with gateways(tmp_path, keys=keys(rpm=120), state=state(redis)) as both:

            async def client(number: int) -> list[Reply]:
                return [await both[(number + turn) % 2].chat("m", **SMALL) for turn in range(20)]

            began = time.monotonic()
            replies = [reply for each in await asyncio.gather(*map(client, range(50))) for reply in each]
            span = time.monotonic() - began
            let_in = [reply for reply in replies if reply.status == 200]
            refused = [reply for reply in replies if reply.status == 429]
            assert {reply.status for reply in replies} == {200, 429}
            assert 120 <= len(let_in) <= 120 + math.ceil(span * 2)
            assert {reply.headers["x-ratelimit-limit-requests"] for reply in replies} == {"120"}
            assert {reply.headers["x-ratelimit-remaining-requests"] for reply in refused} == {"0"}
            # Half a second by Redis; where that was late, a whole one by this process's half of the limit.
            assert all(0 < int(reply.headers["retry-after-ms"]) <= 1000 for reply in refused)
            assert not any("x-gateway-state" in reply.headers for reply in replies)
            assert [await metric(each, "sluiceway_state_degraded") for each in both] == [0, 0]

    served(main())


@pytest.mark.slow
def test_no_token_is_lost_or_counted_twice(tmp_path: Path, redis: RedisServer, served: Callable[..., Any]) -> None:
    limit, refill = 60_000, 1_000

    async def main() -> None:
        async with gateways(tmp_path, keys=keys(tpm=limit), state=state(redis)) as both:
            began = time.monotonic()
            asked = [both[turn % 2].chat("m", stream=turn % 3 == 0, max_tokens=900) for turn in range(40)]
            replies = await asyncio.gather(*asked)
            assert {reply.status for reply in replies} == {200}
            lines = [line for each in both for line in await each.logged(20)]
            used = sum(line["tokens"]["prompt"] + line["tokens"]["completion"] for line in lines)

            async def missing() -> int:
                probe = await both[0].chat("m", max_tokens=0)
                size = len(json.dumps({"model": "m", "messages": HELLO, "max_tokens": 0}, separators=(",", ":"))) // 4
                return limit - size - int(probe.headers["x-ratelimit-remaining-tokens"])

            # What was reserved is far more than what was used, and comes back behind the client's back.
            async def settled() -> bool:
                return await missing() <= used + 200

            await eventually(settled)
            assert used > 500
            assert await missing() >= used - (time.monotonic() - began) * refill

    served(main())


@pytest.mark.slow
def test_a_deployments_limit_holds_for_both_and_the_rest_goes_to_the_fallback(
    tmp_path: Path, redis: RedisServer, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        deployments = {
            "scarce": {"provider": "openai", "model": "gpt", "limits": {"rpm": 6}},
            "plenty": {"provider": "openai", "model": "gpt"},
        }
        routings = {"r": {"targets": ["scarce"], "fallback": ["plenty"]}}
        content = {"keys": keys(), "deployments": deployments, "routings": routings, "state": state(redis)}
        async with gateways(tmp_path, **content) as both:
            began = time.monotonic()
            replies = await asyncio.gather(*(both[turn % 2].chat("r", **SMALL) for turn in range(40)))
            allowed = 6 + math.ceil((time.monotonic() - began) / 10)
            assert {reply.status for reply in replies} == {200}
            by = [reply.headers["x-gateway-deployment"] for reply in replies]
            assert 6 <= by.count("scarce") <= allowed
            alone = await asyncio.gather(*(both[turn % 2].chat("scarce", **SMALL) for turn in range(4)))
            assert 429 in {reply.status for reply in alone}

    served(main())


@pytest.mark.slow
def test_an_upstream_that_asked_one_gateway_to_wait_is_left_alone_by_the_other(
    tmp_path: Path, redis: RedisServer, served: Callable[..., Any]
) -> None:
    busy = [{"t": answer('{"error":{"message":"slow down"}}', "429 Too Many Requests", Retry_After="60")}]

    async def main() -> None:
        async with ScriptedUpstream(busy) as upstream:
            providers = {"up": {"type": "openai", "base_url": upstream.url, "api_key": "k"}}
            each = {"provider": "up", "model": "x", "timeouts": {"total": "5s"}}
            deployments = {"m": each, "n": each}
            content = {"providers": providers, "deployments": deployments}
            content["routings"] = {"both": {"strategy": "priority", "targets": ["m"], "fallback": ["n"]}}
            async with gateways(tmp_path, keys=keys(), state=state(redis), **content) as (one, two):
                assert (await one.chat("both")).status == 429

                async def held() -> bool:
                    return await metric(two, "sluiceway_upstream_held") == 2

                await eventually(held)
                sent = len(upstream.requests)
                refused = await two.chat("both")
                assert refused.status == 429
                assert 0 < int(refused.headers["retry-after"]) <= 60
                assert len(upstream.requests) == sent

    served(main())


@pytest.mark.slow
def test_a_request_waits_for_a_place_that_another_gateway_has(
    tmp_path: Path, redis: RedisServer, served: Callable[..., Any]
) -> None:
    slowly = [{"sleep": 0.3}, {"t": "{{OK}}"}]

    async def main() -> None:
        async with ScriptedUpstream(slowly) as upstream:
            providers = {"up": {"type": "openai", "base_url": upstream.url, "api_key": "k"}}
            entry = {"provider": "up", "model": "x", "limits": {"parallel": 1}, "queue": {"wait": "20s"}}
            content = {"providers": providers, "deployments": {"m": entry}}
            async with gateways(tmp_path, keys=keys(), state=state(redis), **content) as both:
                began = time.monotonic()
                replies = await asyncio.gather(*(each.chat("m") for each in both))
                assert [reply.status for reply in replies] == [200, 200]
                assert time.monotonic() - began > 0.6

    served(main())


@pytest.mark.slow
def test_a_budget_is_one_for_both(tmp_path: Path, redis: RedisServer, served: Callable[..., Any]) -> None:
    async def main() -> None:
        # A request of so many tokens is thought to cost a little more than a tenth.
        entry = {"provider": "openai", "model": "gpt", "price": {"input": 1, "output": 10_000}}
        content = {"keys": keys(budget="1 USD/day"), "deployments": {"m": entry}, "state": state(redis)}
        async with gateways(tmp_path, **content) as both:
            asked = [await both[turn % 2].chat("m", **SMALL) for turn in range(40)]
            costs = [line["cost"] for each in both for line in await each.logged(20) if line["status"] == 200]
            assert {reply.status for reply in asked} == {200, 402}
            assert asked[-1].error["code"] == "insufficient_quota"
            assert 0.8 < sum(cost if isinstance(cost, float) else cost["amount"] for cost in costs) <= 1

    served(main())


@pytest.mark.slow
def test_while_redis_sleeps_each_grants_its_share_and_says_so(
    tmp_path: Path, redis: RedisServer, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        async with gateways(tmp_path, keys=keys(rpm=40), state=state(redis, timeout="50ms")) as both:

            async def both_known() -> bool:
                return redis.say("ZCARD", "sluiceway:{all}:processes") == b":2\r\n"

            await eventually(both_known)
            await asyncio.sleep(1.5)  # the next sign of life of each, by which it learns of the other
            redis.signal(signal.SIGSTOP)
            began = time.monotonic()
            replies = await asyncio.gather(*(both[turn % 2].chat("m", **SMALL) for turn in range(100)))
            let_in = [reply for reply in replies if reply.status == 200]
            allowed = 40 + 2 * math.ceil((time.monotonic() - began) * 40 / 60)
            assert 40 <= len(let_in) <= allowed
            assert {reply.headers["x-gateway-state"] for reply in replies} == {"degraded"}
            assert {reply.status for reply in replies} == {200, 429}

            async def degraded(count: int) -> bool:
                return [await metric(each, "sluiceway_state_degraded") for each in both] == [count, count]

            await eventually(lambda: degraded(1))
            redis.signal(signal.SIGCONT)
            await eventually(lambda: degraded(0))
            assert "x-gateway-state" not in (await both[0].chat("m", **SMALL)).headers
            for each in both:
                await eventually(lambda each=each: len(said(each)) == 2)  # type: ignore[misc]
                assert said(each) == ["limits are counted without Redis", "limits are counted in Redis again"]

    served(main())


@pytest.mark.slow
@pytest.mark.parametrize(("choice", "status"), [("refuse", 503), ("allow", 200)])
def test_whoever_would_rather_refuse_or_allow_everything_does(
    tmp_path: Path, redis: RedisServer, served: Callable[..., Any], choice: str, status: int
) -> None:
    async def main() -> None:
        redis.kill()
        async with gateways(tmp_path, 1, keys=keys(rpm=1), state=state(redis, on_error=choice)) as (one,):
            replies = [await one.chat("m", **SMALL) for _ in range(3)]
            assert [reply.status for reply in replies] == [status] * 3
            assert {reply.headers["x-gateway-state"] for reply in replies} == {"degraded"}

    served(main())


def test_a_change_of_the_store_waits_for_a_restart(
    tmp_path: Path, redis: RedisServer, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        async with gateways(tmp_path, 1, keys=keys(rpm=3), state=state(redis)) as (one,):
            content = json.loads(one.path.read_text())
            one.path.write_text(json.dumps({**content, "state": {"store": "memory"}}))
            one.send(signal.SIGHUP)
            await eventually(lambda: any("restart" in line.get("message", "") for line in one.log()))
            assert (await one.chat("m", **SMALL)).headers["x-ratelimit-remaining-requests"] == "2"
            assert redis.say("EXISTS", "sluiceway:{key:app}:app:rpm") == b":1\r\n"

    served(main())


@pytest.mark.slow
def test_places_of_a_gateway_that_was_killed_come_back(
    tmp_path: Path, redis: RedisServer, served: Callable[..., Any]
) -> None:
    stall = [{"t": "{{SSE}}"}, {"chunk": "{{D1}}"}, {"stall": True}]

    async def main() -> None:
        async with ScriptedUpstream(stall) as upstream:
            providers = {"up": {"type": "openai", "base_url": upstream.url, "api_key": "k"}}
            content = {"providers": providers, "deployments": {"m": {"provider": "up", "model": "x"}}}
            async with gateways(tmp_path, keys=keys(parallel=1), state=state(redis), **content) as (one, two):
                talk = await one.open({"model": "m", "messages": HELLO, "stream": True})
                await talk.until(b"data: ")
                assert (await two.chat("m")).status == 429
                # Longer than a lease: whoever lives keeps its place.
                await asyncio.sleep(16)
                assert (await two.chat("m")).status == 429
                one.process.kill()

                async def free() -> bool:
                    other = await two.open({"model": "m", "messages": HELLO, "stream": True})
                    head = await other.until(b"\r\n\r\n")
                    other.leave()
                    return b" 200 " in head[:20]

                await eventually(free, 30)
                talk.leave()

    served(main())
