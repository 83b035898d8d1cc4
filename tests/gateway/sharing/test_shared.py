"""Several processes that share limits by a real Redis: what all of them grant, and what each does without it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redisserver import RedisServer

from gateway.config.secrets import Secret
from gateway.config.types import State
from gateway.errors import GatewayError
from gateway.health import Health
from gateway.sharing.holds import Holds
from gateway.sharing.script import Charge, Verdict
from gateway.sharing.shared import BEAT, BOUNDLESS, RENEWED, Shared, Ticket

SLOW_MACHINE = 5.0


def quiet(level: str, message: str, **fields: Any) -> None:
    """Nobody listens."""


@asynccontextmanager
async def sharing(url: str, prefix: str, count: int = 1, on_error: Any = "local_share", workers: int = 1) -> Any:
    state = State(store="redis", url=Secret(url), prefix=prefix, timeout=SLOW_MACHINE, on_error=on_error)
    processes = [Shared(state, workers, Holds({}), quiet) for _ in range(count)]
    try:
        for process in processes:
            await process.start()
        yield processes
    finally:
        for process in processes:
            await process.close()


async def eventually(claim: Any) -> None:
    async with asyncio.timeout(20):
        while not claim():  # noqa: ASYNC110 - another process: there is nothing here to wait on
            await asyncio.sleep(0.01)


def advance(seconds: float) -> None:
    asyncio.get_running_loop().advance(seconds)  # type: ignore[attr-defined]


def charges(shared: Shared, rpm: float = 20, parallel: float = 1000) -> Sequence[Charge]:
    return (
        Charge("requests", shared.key("key:app", "app", "rpm"), rpm, 1),
        Charge("parallel", shared.key("key:app", "app", "parallel"), parallel, 1),
    )


def held(redis: RedisServer, prefix: str, name: str = "parallel") -> int:
    """How many processes hold something."""
    return int(redis.say("HLEN", f"{prefix}:{{key:app}}:app:{name}")[1:])


def test_processes_together_grant_exactly_the_limit(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with sharing(redis.url, prefix, 3) as processes:
            asked = [processes[number % 3].take(charges(processes[0])) for number in range(90)]
            got = await asyncio.gather(*asked)
            assert sum(isinstance(each, Ticket) for each in got) == 20
            assert all(each.waits[0] > 0 for each in got if isinstance(each, Verdict))

    run(main())


def test_places_come_back_from_requests_that_have_ended(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with sharing(redis.url, prefix, 2) as (one, two):
            first = await one.take(charges(one, 1000, parallel=1))
            assert isinstance(first, Ticket)
            assert isinstance(await two.take(charges(two, 1000, parallel=1)), Verdict)
            first.settle(0)
            await eventually(lambda: not held(redis, prefix))
            assert isinstance(await two.take(charges(two, 1000, parallel=1)), Ticket)

    run(main())


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 50])
def test_a_request_whose_client_leaves_while_it_asks_holds_nothing(
    run: Any, redis: RedisServer, prefix: str, turns: int
) -> None:
    async def main() -> None:
        async with sharing(redis.url, prefix) as (one,):
            asking = asyncio.create_task(one.take(charges(one)))
            for _ in range(turns):
                await asyncio.sleep(0)
            if not asking.cancel():
                asking.result().settle(0)
            await asyncio.wait([asking])
            # Whatever was sent has been answered by now.
            probe = await one.take([Charge("requests", one.key("x", "x", "rpm"), 1, 1)])
            assert isinstance(probe, Ticket)
            await eventually(lambda: not held(redis, prefix))

    run(main())


def test_a_running_request_is_said_again_before_its_lease_ends(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with sharing(redis.url, prefix) as (one,):
            ticket = await one.take(charges(one))
            redis.say("DEL", f"{prefix}:{{key:app}}:app:parallel")
            advance(RENEWED)
            one.sweep(asyncio.get_running_loop().time())
            await eventually(lambda: held(redis, prefix) == 1)
            ticket.settle(0)
            await eventually(lambda: held(redis, prefix) == 0)

    run(main())


def test_nothing_is_held_after_the_end(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with sharing(redis.url, prefix) as (one,):
            await one.take(charges(one))
            assert held(redis, prefix) == 1
        assert held(redis, prefix) == 0
        assert redis.say("ZCARD", f"{prefix}:{{all}}:processes") == b":0\r\n"

    run(main())


def test_the_parts_are_as_many_as_there_are_processes(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with sharing(redis.url, prefix, 3) as processes:
            heard: list[int] = []
            processes[0].listeners.append(lambda: heard.append(processes[0].processes))
            advance(BEAT)
            processes[0].sweep(asyncio.get_running_loop().time())
            await eventually(lambda: heard)
            assert heard == [3]
            assert processes[0].part == BOUNDLESS

    run(main())


def test_a_hold_of_one_is_a_hold_of_all(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        state = State(store="redis", url=Secret(redis.url), prefix=prefix, timeout=SLOW_MACHINE)
        healths: tuple[dict[str, Health], ...] = ({}, {})
        one, two = (Shared(state, 1, Holds(health), quiet) for health in healths)
        loop = asyncio.get_running_loop()
        await one.start()
        await two.start()
        healths[0]["gpt"] = Health()
        healths[0]["gpt"].hold(loop.time(), 60.0)
        one.sweep(loop.time())
        await eventually(lambda: redis.say("HLEN", f"{prefix}:{{all}}:holds") == b":1\r\n")
        advance(BEAT)
        two.sweep(loop.time())
        await eventually(lambda: "gpt" in healths[1])
        assert 55 < healths[1]["gpt"].back_in(loop.time()) <= 60
        await one.close()
        await two.close()

    run(main())


def test_without_redis_the_caller_decides(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with sharing(RedisServer(tmp_path).url, "x", workers=4) as (one,):
            ticket = await one.take(charges(one))
            assert isinstance(ticket, Ticket)
            assert ticket.verdict is None
            assert one.part == 1 / 4
            assert one.vitals()["state_degraded"]

    run(main())


def test_what_was_let_in_without_redis_is_told_to_it_afterwards(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        server = RedisServer(tmp_path)
        async with sharing(server.url, "x") as (one,):
            ticket = await one.take(charges(one))
            server.start()
            advance(10)
            await eventually(lambda: one.up)
            await eventually(lambda: held(server, "x") == 1)
            ticket.settle(None)
            advance(RENEWED)
            one.sweep(asyncio.get_running_loop().time())
            await eventually(lambda: held(server, "x") == 0)
        server.kill()

    run(main())


def test_who_would_rather_refuse_does(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with sharing(RedisServer(tmp_path).url, "x", on_error="refuse") as (one,):
            with pytest.raises(GatewayError) as refused:
                await one.take(charges(one))
            assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "overloaded", 1)

    run(main())
