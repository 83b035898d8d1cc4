"""The courier and a real Redis: deadlines, the breaker, what comes late, and what is sent when Redis is back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redisserver import RedisServer, redis_server

from gateway.sharing.courier import KEPT, OPEN, Courier, Entry
from gateway.sharing.link import Link
from gateway.sharing.script import Charge, Command, Reply, Who, beat, renew, take, verdict

ME = Who("me", 60.0)
SLOW_MACHINE = 5.0


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


class News:
    """What was said about the gateway itself."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.fields: list[dict[str, Any]] = []

    def __call__(self, level: str, message: str, **fields: Any) -> None:
        self.said.append(message)
        self.fields.append(fields)


AWAY, BACK = "limits are counted without Redis", "limits are counted in Redis again"


@asynccontextmanager
async def courier(url: str, prefix: str, deadline: float = SLOW_MACHINE, chores: Any = tuple) -> Any:
    carrying = Courier(Link(url), deadline, lambda: beat(ME, prefix, {}), chores, News())
    try:
        await carrying.start()
        yield carrying
    finally:
        await carrying.close([])


def news(carrying: Courier) -> list[str]:
    said: News = carrying._news  # type: ignore[assignment]
    return said.said


def one(prefix: str) -> Command:
    return take(ME, [Charge("requests", f"{prefix}:{{k}}:rpm", 1000, 1)])


def taken(redis: RedisServer, prefix: str) -> int:
    """Requests that Redis has counted, of a thousand per minute."""
    stored = redis.say("GET", f"{prefix}:{{k}}:rpm").split(b"\r\n")
    if len(stored) < 3:
        return 0
    seconds = int(stored[1].split()[0]) / 1e6 - time.time()
    return round(seconds * 1000 / 60 + 0.5)


async def eventually(claim: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not claim():  # noqa: ASYNC110 - another process: there is nothing here to wait on
            await asyncio.sleep(0.01)


def granted(reply: Reply | None) -> bool:
    return reply is not None and verdict(reply).granted


def test_many_ask_at_once_and_each_gets_its_own_answer(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with courier(redis.url, prefix) as carrying:
            charges = [Charge("budget", f"{prefix}:{{k}}:day", 10_000, number, 60.0) for number in range(1, 301)]
            replies = await asyncio.gather(*(carrying.ask(take(ME, [charge])) for charge in charges))
            sums = [verdict(reply).states[0] for reply in replies if reply is not None]
            assert sums == [number * (number + 1) // 2 for number in range(1, 141)] + sums[140:]
            assert [granted(reply) for reply in replies].index(False) == 140

    run(main())


def test_without_a_server_nothing_is_asked_and_that_is_said_once(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        server = RedisServer(tmp_path)
        async with courier(server.url, "x") as carrying:
            assert not carrying.up
            assert news(carrying) == [AWAY]
            server.start()
            asyncio.get_running_loop().advance(OPEN)  # type: ignore[attr-defined]
            await eventually(lambda: carrying.up)
            assert granted(await carrying.ask(one("x")))
            assert news(carrying) == [AWAY, BACK]
        server.kill()

    run(main())


def test_a_server_that_dies_is_noticed_at_once_and_found_again(run: Any, own_redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with courier(own_redis.url, prefix) as carrying:
            assert granted(await carrying.ask(one(prefix)))
            own_redis.kill()
            began = time.monotonic()
            assert await carrying.ask(one(prefix)) is None
            assert time.monotonic() - began < SLOW_MACHINE
            assert not carrying.up
            carrying.tell(renew(ME, f"{prefix}:{{k}}:parallel", 3))
            own_redis.start()
            asyncio.get_running_loop().advance(OPEN)  # type: ignore[attr-defined]
            await eventually(lambda: carrying.up)
            # What was told meanwhile has arrived.
            await eventually(lambda: own_redis.say("HGET", f"{prefix}:{{k}}:parallel", "me").startswith(b"$"))
            assert news(carrying) == [AWAY, BACK]

    run(main())


def test_a_server_that_sleeps_costs_a_few_questions_their_deadline_and_then_nothing(
    run: Any, own_redis: RedisServer, prefix: str
) -> None:
    async def main() -> None:
        async with courier(own_redis.url, prefix, deadline=0.2) as carrying:
            await eventually(lambda: carrying.up)
            own_redis.signal(signal.SIGSTOP)
            waited = 0
            while carrying.up:
                assert await carrying.ask(one(prefix)) is None
                waited += 1
            assert waited == 3
            assert carrying.failures == 3
            assert news(carrying)[-1] == AWAY
            own_redis.signal(signal.SIGCONT)
            asyncio.get_running_loop().advance(OPEN)  # type: ignore[attr-defined]
            await eventually(lambda: carrying.up)

    run(main())


def test_what_is_granted_too_late_is_handed_to_who_gives_it_back(run: Any, own_redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        late: list[Reply] = []
        async with courier(own_redis.url, prefix, deadline=0.1) as carrying:
            await eventually(lambda: carrying.up)
            own_redis.signal(signal.SIGSTOP)
            assert await carrying.ask(one(prefix), late=late.append) is None
            own_redis.signal(signal.SIGCONT)
            await eventually(lambda: late)
            assert verdict(late[0]).granted

    run(main())


def test_a_question_that_nobody_waits_for_is_not_sent(run: Any, own_redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with courier(own_redis.url, prefix) as carrying:
            waiter = carrying.ask(one(prefix))
            waiter.cancel()
            assert granted(await carrying.ask(one(prefix)))
            assert taken(own_redis, prefix) == 1

    run(main())


def test_chores_follow_everything_that_was_told_before(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        sent: list[str] = []
        key = f"{prefix}:{{k}}:parallel"

        def chores() -> Iterator[Entry]:
            if not sent:
                sent.append("chore")
                yield Entry(renew(ME, key, 7))

        async with courier(redis.url, prefix, chores=chores) as carrying:
            sent.clear()
            for _ in range(250):
                carrying.tell(renew(ME, key, 1))
            await eventually(lambda: sent)
            place = Charge("parallel", key, 100, 1)
            reply = await carrying.ask(take(ME, [place]))
            assert reply is not None
            assert verdict(reply).states == (8,)

    run(main())


def test_who_was_granted_something_knows_it_before_the_next_chores(run: Any, redis: RedisServer, prefix: str) -> None:
    seen: list[str] = []

    def chores() -> tuple[()]:
        seen.append("chores")
        return ()

    async def main() -> None:
        async with courier(redis.url, prefix, chores=chores) as carrying:
            await eventually(lambda: seen)
            seen.clear()
            assert granted(await carrying.ask(one(prefix)))
            seen.append("granted")
            await eventually(lambda: len(seen) > 2)
            assert seen == ["chores", "granted", "chores"]

    run(main())


def test_what_was_on_its_way_when_the_connection_broke_is_counted(
    run: Any, own_redis: RedisServer, prefix: str
) -> None:
    async def main() -> None:
        async with courier(own_redis.url, prefix) as carrying:
            own_redis.kill()
            carrying.tell(one(prefix))
            await eventually(lambda: not carrying.up)
            assert carrying.lost == 1

    run(main())


def test_what_is_told_while_redis_is_away_is_bounded(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with courier(RedisServer(tmp_path).url, "x") as carrying:
            for _ in range(KEPT + 5):
                carrying.tell(one("x"))
            assert carrying.lost == 5

    run(main())


def test_the_last_words_arrive(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        key = f"{prefix}:{{k}}:parallel"
        carrying = Courier(Link(redis.url), SLOW_MACHINE, lambda: beat(ME, prefix, {}), tuple, News())
        await carrying.start()
        carrying.tell(renew(ME, key, 2))
        await carrying.close([renew(Who("other", 60.0), key, 1)])
        assert redis.say("HLEN", key) == b":2\r\n"

    run(main())


def test_a_fault_says_nothing_of_address_and_password(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        port = RedisServer(tmp_path).port
        async with courier(f"redis://user:geheim@127.0.0.1:{port}/0", "x") as carrying:
            said: News = carrying._news
            assert said.fields
            assert "geheim" not in repr(said.fields)
            assert str(port) not in repr(said.fields)

    run(main())
