"""gateway.attempts as clients and upstreams see them: a second attempt beside a slow first one."""

from __future__ import annotations

from pathlib import Path

import pytest
from livegateway import HELLO

from tests.gateway.attempting import DOWN, OK, STALL, STREAM, Run, Until, before, health


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
