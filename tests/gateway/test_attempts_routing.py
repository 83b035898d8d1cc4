"""gateway.attempts and gateway.mirror as clients and upstreams see them: limits, room, hedges, copies, true ends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from livegateway import HELLO, Live, document
from upstreams import ScriptedUpstream, answer

from gateway.config.loader import load
from gateway.config.plugins import Registry
from gateway.errors import UpstreamTimeout
from gateway.exchange import Upstreams
from gateway.health import Health
from gateway.log import Log
from gateway.mirror import MOST
from gateway.serving import Serving
from gateway.upstream import Sweep

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Any]
OK = [{"t": "{{OK}}"}]
STALL = [{"stall": True}]
STREAM = [{"t": "{{SSE}}"}, {"chunk": "{{D1}}{{D2}}{{FIN}}{{DONE}}"}, {"end": 1}]
BROKEN = [{"t": "{{SSE}}"}, {"chunk": "{{D1}}{{D2}}"}, {"fin": 1}]
BUSY = [{"t": answer('{"error":{"message":"slow down"}}', "429 Too Many Requests", Retry_After="30")}]
DOWN = [{"t": answer('{"error":{"message":"down"}}', "503 Service Unavailable")}]


@asynccontextmanager
async def before(
    folder: Path, *scripts: list[dict[str, Any]], options: dict[str, Any] | None = None, **content: Any
) -> AsyncIterator[tuple[Live, list[ScriptedUpstream]]]:
    """The gateway before upstreams `a`, `b`, ..., each of which does the same for every request."""
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(ScriptedUpstream(script)) for script in scripts]
        names = "abcdef"[: len(ups)]
        providers = {
            name: {"type": "openai", "base_url": up.url, "api_key": "k"} for name, up in zip(names, ups, strict=True)
        }
        deployments = {name: {"provider": name, "model": f"real-{name}", **(options or {})} for name in names}
        whole = {"providers": providers, "deployments": deployments, **content}
        yield await stack.enter_async_context(running(folder, whole)), ups


@asynccontextmanager
async def running(folder: Path, content: dict[str, Any]) -> AsyncIterator[Live]:
    """The serving part of the gateway in this process, in `app`."""
    whole, client = document(folder, content)
    loaded = load("g.yaml", {}, Registry(), text=json.dumps(whole))
    assert loaded.config is not None, [str(finding) for finding in loaded.findings]
    log, sweep = Log(str(client.log_path)), Sweep()
    gateway = Serving(loaded.config, loaded.digest, Registry(), log, sweep)
    listener = socket.create_server(("127.0.0.1", client.port))
    log.start()
    sweep.add(log)
    sweep.start()
    await gateway.start([listener])
    try:
        yield Live(client.port, 0, client.log_path, {}, gateway)
    finally:
        hurry = asyncio.Event()
        hurry.set()
        await gateway.drain(0, hurry)
        sweep.stop()
        log.close()


def state(live: Live) -> Upstreams:
    upstreams: Upstreams = live.app.proxy.snapshot.upstreams
    return upstreams


def health(live: Live, name: str) -> Health:
    return state(live).health_of(name)


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


@pytest.mark.parametrize("stream", [False, True])
def test_a_hedge_answers_for_an_upstream_that_shows_nothing(
    run: Run, tmp_path: Path, until: Until, *, stream: bool
) -> None:
    routing = {"targets": ["a", "b"], "hedge": {"after": "30ms", "budget": "100%"}}

    async def main() -> None:
        async with before(tmp_path, STALL, STREAM if stream else OK, routings={"r": routing}) as (live, ups):
            reply = await live.chat("r", stream=stream)
            assert (reply.status, reply.text()) == (200, "Hel" if stream else "Hello")
            assert reply.headers["x-gateway-attempts"] == "b=200,a=cancelled"
            assert reply.headers["x-gateway-deployment"] == "b"
            await ups[0].connections[0].closed.wait()
            (line,) = await live.logged(1)
            assert (line["deployment"], line["attempts"]) == ("b", "b=200,a=cancelled")
            assert [health(live, name).active for name in "ab"] == [0, 0]
            assert [health(live, name).retries for name in "ab"] == [0, 0]
            assert [health(live, name).state(0) for name in "ab"] == ["closed", "closed"]

    run(main())


def test_hedges_stay_within_their_budget(run: Run, tmp_path: Path) -> None:
    slow = [{"sleep": 0.03}, *OK]
    routing = {"targets": ["a", "b"], "hedge": {"after": "5ms", "budget": "0%"}}

    async def main() -> None:
        async with before(tmp_path, slow, STALL, routings={"r": routing}) as (live, ups):
            seen = [(await live.chat("r")).headers["x-gateway-attempts"] for _ in range(4)]
            assert len(ups[1].requests) == 1
        assert seen == ["a=200,b=cancelled", "a=200", "a=200", "a=200"]

    run(main())


def test_p95_hedges_nothing_before_it_is_known(run: Run, tmp_path: Path) -> None:
    routing = {"targets": ["a", "b"], "hedge": {"after": "p95", "budget": "100%"}}

    async def main() -> None:
        async with before(tmp_path, OK, OK, routings={"r": routing}) as (live, ups):
            for _ in range(20):
                assert (await live.chat("r")).status == 200
            assert (len(ups[0].requests), len(ups[1].requests)) == (20, 0)
            assert health(live, "a").wholes.p95() is not None
            ups[0].scripts = [STALL]
            assert (await live.chat("r")).headers["x-gateway-attempts"] == "b=200,a=cancelled"

    run(main())


def test_a_hedge_whose_attempts_both_fail_gives_their_error(run: Run, tmp_path: Path) -> None:
    slow = [{"sleep": 0.05}, *DOWN]
    routing = {"targets": ["a", "b"], "hedge": {"after": "5ms", "budget": "100%"}, "retry": {"attempts": 2}}

    async def main() -> None:
        async with before(tmp_path, slow, DOWN, routings={"r": routing}) as (live, _):
            reply = await live.chat("r")
            assert (reply.status, reply.headers["x-gateway-attempts"]) == (503, "b=503,a=503")
            assert reply.headers["x-should-retry"] == "false"
            assert [health(live, name).active for name in "ab"] == [0, 0]

    run(main())


def test_a_client_that_leaves_during_a_hedge_ends_both_attempts(run: Run, tmp_path: Path) -> None:
    routing = {"targets": ["a", "b"], "hedge": {"after": "5ms", "budget": "100%"}}

    async def main() -> None:
        async with before(tmp_path, STALL, STALL, routings={"r": routing}) as (live, ups):
            talk = await live.open({"model": "r", "messages": HELLO})
            await ups[1].request_count(1)
            talk.leave()
            for up in ups:
                await up.connections[0].closed.wait()
            await live.logged(1)
            assert [health(live, name).active for name in "ab"] == [0, 0]

    run(main())


def test_an_upstream_that_said_when_is_left_alone_until_then(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, BUSY, options={"timeouts": {"total": "5s"}}) as (live, ups):
            first, second = await live.chat("a"), await live.chat("a")
            assert len(ups[0].requests) == 1
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


def mirrored(share: str = "100%") -> dict[str, Any]:
    return {"r": {"targets": ["a"], "mirror": {"to": "b", "share": share}}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_mirror_gets_the_same_request_and_a_line_of_its_own(run: Run, tmp_path: Path, *, stream: bool) -> None:
    async def main() -> None:
        script = STREAM if stream else OK
        async with before(tmp_path, script, script, routings=mirrored()) as (live, ups):
            reply = await live.chat("r", stream=stream)
            assert reply.headers["x-gateway-attempts"] == "a=200"
            own, copy = sorted(await live.logged(2), key=lambda line: "mirror" in line)
            assert (own["model"], own["deployment"], own["id"]) == ("r", "a", reply.headers["x-request-id"])
            assert (copy["mirror"], copy["model"], copy["deployment"]) == (True, "b", "b")
            assert (copy["id"], copy["status"], copy["stream"]) == (f"{own['id']}-mirror", 200, stream)
            assert copy["bytes_out"] > 0
            bodies = [up.requests[0].partition(b"\r\n\r\n")[2] for up in ups]
            assert bodies[0].replace(b"real-a", b"real-b") == bodies[1]
            assert [health(live, name).active for name in "ab"] == [0, 0]

    run(main())


def test_a_mirror_that_hangs_or_fails_is_nothing_to_the_client(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, OK, STALL, routings=mirrored()) as (live, ups):
            assert (await live.chat("r")).status == 200
            await ups[1].request_count(1)
            ups[1].scripts = [STALL, DOWN]
            assert (await live.chat("r")).status == 200
            (copy,) = await live.logged(1, mirror=True)
            assert (copy["status"], copy["attempts"], copy["code"]) == (503, "b=503", "overloaded")

    run(main())


def test_a_share_of_the_requests_is_mirrored_and_only_so_many_at_once(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with before(tmp_path, OK, STALL, routings=mirrored("0%")) as (live, ups):
            for _ in range(5):
                await live.chat("r")
            assert ups[1].requests == []
        async with before(tmp_path, OK, STALL, routings=mirrored()) as (live, ups):
            for _ in range(MOST + 3):
                assert (await live.chat("r")).status == 200
            await ups[1].request_count(MOST)
            mirrors = live.app.proxy.mirrors
            assert (len(mirrors), mirrors.skipped) == (MOST, 3)
            mirrors.close()
            lines = await live.logged(MOST, mirror=True)
            assert {line["code"] for line in lines} == {"shutting_down"}
            assert len(mirrors) == 0

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
