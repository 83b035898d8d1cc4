"""gateway.attempts as clients and upstreams see them: limits, conditions, true ends, room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from livegateway import HELLO

from gateway.errors import UpstreamTimeout
from tests.gateway.attempting import BROKEN, BUSY, DOWN, OK, STALL, Run, Until, before, health


def test_a_target_over_its_limit_is_passed_over_and_all_of_them_are_429(run: Run, tmp_path: Path) -> None:
    targets = [{"use": "a", "limits": {"rpm": 1}}, {"use": "b", "limits": {"rpm": 2}}]

    async def main() -> None:
        async with before(tmp_path, OK, OK, routings={"r": {"targets": targets}}) as (live, _):
            seen = [await live.chat("r") for _ in range(4)]
        assert [each.headers.get("x-gateway-deployment") for each in seen] == ["a", "b", "b", None]
        assert (seen[3].status, seen[3].error["code"]) == (429, "rate_limit_exceeded")
        assert 25 <= int(seen[3].headers["retry-after"]) <= 30

    run(main())


def test_tokens_are_counted_as_the_provider_tells_them(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, OK, options={"limits": {"tpm": 30}}) as (live, _):
            # Each is thought to take 15 tokens and takes 5.
            statuses = [(await live.chat("a")).status for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 429]

    run(main())


def test_conditions_and_the_log_tell_the_choice(run: Run, tmp_path: Path) -> None:
    targets = [{"use": "a", "when": {"max_input": 100}}, {"use": "b", "when": {"min_input": 101}}]

    async def main() -> None:
        async with before(tmp_path, OK, OK, routings={"r": {"targets": targets}}) as (live, _):
            small = await live.chat("r")
            large = await live.chat("r", user="u" * 500)
            lines = await live.logged(2)
        assert [each.headers["x-gateway-attempts"] for each in (small, large)] == ["a=200", "b=200"]
        assert [line["choice"] for line in lines] == ["r: priority 1 of 2", "r: priority 2 of 2"]

    run(main())


def test_a_request_that_no_target_takes_is_told_why(run: Run, tmp_path: Path) -> None:
    routing = {"targets": [{"use": "a", "when": {"has_tools": True}}]}

    async def main() -> None:
        async with before(tmp_path, OK, routings={"r": routing}) as (live, ups):
            refused = await live.chat("r")
            assert (refused.status, ups[0].requests) == (400, [])
            assert "a takes only requests with tools" in refused.error["message"]

    run(main())


def test_a_header_keeps_requests_together_and_stays_here(run: Run, tmp_path: Path) -> None:
    routing = {"strategy": "weighted", "sticky": "header:X-Session", "targets": ["a", "b"]}

    async def main() -> None:
        async with before(tmp_path, OK, OK, routings={"r": routing}) as (live, ups):
            body = {"model": "r", "messages": HELLO}
            taken = {
                session: {
                    (await live.post(body, **{"X-Session": session})).headers["x-gateway-deployment"] for _ in range(4)
                }
                for session in ("s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8")
            }
            sent = b"".join(up.requests[0] for up in ups)
        assert all(len(each) == 1 for each in taken.values())
        assert {name for each in taken.values() for name in each} == {"a", "b"}
        assert b"x-session" not in sent.lower()

    run(main())


def test_an_upstream_that_said_when_is_left_alone_until_then(run: Run, tmp_path: Path) -> None:
    both = {"r": {"targets": ["a", "b"]}}

    async def main() -> None:
        patient = {"timeouts": {"total": "5s"}}
        async with before(tmp_path, BUSY, BUSY, options=patient, routings=both) as (live, ups):
            first, second = await live.chat("r"), await live.chat("r")
            assert [len(each.requests) for each in ups] == [1, 1]
            # Where there is no other, it is the upstream's own to say.
            assert (await live.chat("a")).status == 429
            assert len(ups[0].requests) == 2
        assert [each.status for each in (first, second)] == [429, 429]
        assert first.headers["retry-after"] == "30"
        assert "x-should-retry" not in first.headers
        assert 25 <= int(second.headers["retry-after"]) <= 30

    run(main())


def test_a_429_for_one_model_of_a_wildcard_holds_back_no_other(run: Run, tmp_path: Path) -> None:
    wild = {"w/*": {"provider": "a", "model": "*", "timeouts": {"total": "5s"}}}

    async def main() -> None:
        async with before(tmp_path, BUSY, deployments=wild) as (live, ups):
            assert [(await live.chat(model)).status for model in ("w/x", "w/y")] == [429, 429]
            assert len(ups[0].requests) == 2

    run(main())


def test_a_stream_that_breaks_counts_as_a_failure_at_its_end(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, BROKEN, options={"breaker": {"failures": 2, "hard": True}}) as (live, ups):
            for _ in range(2):
                assert health(live, "a").state(0) == "closed"
                assert not (await live.chat("a", stream=True)).done
            await live.logged(2)
            refused = await live.chat("a")
            assert len(ups[0].requests) == 2
            (news,) = [line for line in live.log() if line.get("message") == "breaker opened"]
        assert (refused.status, refused.error["code"]) == (503, "no_healthy_upstream")
        assert 25 <= int(refused.headers["retry-after"]) <= 33
        assert news["deployment"] == "a"

    run(main())


def test_an_adapter_shares_the_health_of_its_deployment(run: Run, tmp_path: Path) -> None:
    options = {"breaker": {"failures": 1, "hard": True}, "retry": {"attempts": 1}}

    async def main() -> None:
        async with before(tmp_path, DOWN, options=options, adapters={"tuned": {"deployment": "a"}}) as (live, _):
            codes = [(await live.chat(model)).error["code"] for model in ("tuned", "a")]
        assert codes == ["overloaded", "no_healthy_upstream"]

    run(main())


def room(length: int, wait: str) -> dict[str, Any]:
    return {"limits": {"parallel": 1}, "queue": {"length": length, "wait": wait}}


def test_a_full_upstream_lets_a_few_wait(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        go = asyncio.Event()
        async with before(tmp_path, [{"wait": go}, *OK], options=room(1, "5s")) as (live, ups):
            calls = [asyncio.create_task(live.chat("a"))]
            await ups[0].request_count(1)
            calls.append(asyncio.create_task(live.chat("a")))
            while not health(live, "a").waiting:  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0)
            refused = await live.chat("a")
            assert (refused.status, refused.error["code"]) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            assert len(ups[0].requests) == 1
            go.set()
            assert [(await call).status for call in calls] == [200, 200]
            assert (health(live, "a").active, len(health(live, "a").waiting)) == (0, 0)

    run(main())


def test_nobody_waits_longer_than_the_queue_allows(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        go = asyncio.Event()
        async with before(tmp_path, [{"wait": go}, *OK], options=room(5, "20ms")) as (live, ups):
            first = asyncio.create_task(live.chat("a"))
            await ups[0].request_count(1)
            refused = await live.chat("a")
            assert (refused.status, refused.error["code"]) == (503, "overloaded")
            assert not health(live, "a").waiting
            go.set()
            assert (await first).status == 200
            assert health(live, "a").active == 0

    run(main())


def test_a_client_that_leaves_the_queue_frees_its_place_there(run: Run, tmp_path: Path, until: Until) -> None:
    async def main() -> None:
        go = asyncio.Event()
        async with before(tmp_path, [{"wait": go}, *OK], options=room(1, "5s")) as (live, ups):
            first = asyncio.create_task(live.chat("a"))
            await ups[0].request_count(1)
            talk = await live.open({"model": "a", "messages": HELLO})
            await until(lambda: len(health(live, "a").waiting) == 1)
            talk.leave()
            await until(lambda: not health(live, "a").waiting)
            go.set()
            assert (await first).status == 200
            assert health(live, "a").active == 0

    run(main())


def test_a_second_upstream_is_used_before_anybody_waits(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        go = asyncio.Event()
        content = {"options": room(5, "5s"), "routings": {"r": {"targets": ["a", "b"]}}}
        async with before(tmp_path, [{"wait": go}, *OK], OK, **content) as (live, ups):
            first = asyncio.create_task(live.chat("r"))
            await ups[0].request_count(1)
            assert (await live.chat("r")).headers["x-gateway-attempts"] == "b=200"
            go.set()
            assert (await first).headers["x-gateway-attempts"] == "a=200"

    run(main())


@pytest.mark.parametrize("strategy", ["least_busy", "lowest_latency"])
def test_a_busy_upstream_gives_way_to_an_idle_one(run: Run, tmp_path: Path, strategy: str) -> None:
    async def main() -> None:
        go = asyncio.Event()
        routing = {"strategy": strategy, "targets": ["a", "b"]}
        slow = [{"wait": go}, *OK]
        async with before(tmp_path, slow, slow, routings={"r": routing}) as (live, ups):
            calls = []
            for number in range(1, 5):
                calls.append(asyncio.create_task(live.chat("r")))
                while sum(len(up.requests) for up in ups) < number:  # noqa: ASYNC110 - two upstreams have two events
                    await asyncio.sleep(0)
            assert [len(up.requests) for up in ups] == [2, 2]
            go.set()
            assert {(await call).status for call in calls} == {200}
            if strategy == "lowest_latency":
                assert all(health(live, name).wholes.expected(0) for name in "ab")

    run(main())


def test_the_clock_of_all_attempts_begins_with_the_request(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        routing = {"targets": ["a", "b"], "retry": {"on": ["timeout", "5xx"], "timeouts": {"total": "10s"}}}
        async with before(tmp_path, STALL, STALL, routings={"r": routing}) as (live, ups):
            call = asyncio.create_task(live.chat("r"))
            await ups[0].request_count(1)
            loop.advance(11)
            reply = await call
            assert (reply.status, reply.error["code"]) == (504, UpstreamTimeout.code)
            assert ups[1].requests == []

    run(main())


def test_what_was_counted_outlives_a_reload(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, OK, options={"limits": {"rpm": 1}}) as (live, _):
            assert (await live.chat("a")).status == 200
            config = live.app.proxy.snapshot.config
            await live.app.apply(config, "another")
            assert live.app.proxy.snapshot.digest == "another"
            assert (await live.chat("a")).status == 429

    run(main())
