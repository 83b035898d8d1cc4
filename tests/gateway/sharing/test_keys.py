"""Limits of client keys, counted by several processes in a real Redis, and by each alone without it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from redisserver import RedisServer

from gateway.config.secrets import Secret
from gateway.config.types import Config, Key, Limits, Server, State
from gateway.contract import Usage
from gateway.dialects.openai_chat import DIALECT
from gateway.errors import GatewayError
from gateway.keylimits import Lease
from gateway.log import Record
from gateway.prices import Tariff
from gateway.purses import Budget, Purses
from gateway.sharing.holds import Holds
from gateway.sharing.keys import AskFirst, SharedKeys
from gateway.sharing.shared import Shared

HASH = "sha256:" + "0" * 64
# A dollar for a thousand tokens of input, two for a thousand of output.
TARIFF = Tariff(1000, 2000, 100, 1250)
# Noon of the 30th of November 2026.
NOON = 1_796_040_000.0


def quiet(level: str, message: str, **fields: Any) -> None:
    """Nobody listens."""


class Desk:
    """One process and a key that sends requests to it."""

    def __init__(self, url: str, prefix: str, on_error: Any = "local_share", workers: int = 1, **limits: Any) -> None:
        state = State(store="redis", url=Secret(url), prefix=prefix, timeout=5.0, on_error=on_error)
        keys = {"app": Key(hash=HASH, limits=Limits(**limits)), "free": Key(hash=HASH)}
        config = Config(keys=keys, server=Server(workers=workers), state=state)
        self.shared = Shared(state, workers, Holds({}), quiet)
        self.keys = SharedKeys(config, 0.0, Purses(lambda: NOON), {"m": TARIFF}.get, self.shared)
        self.record = Record(0.0)

    async def ask(self, key: str = "app", **body: Any) -> Lease | None:
        chat = DIALECT.open_request(orjson.dumps({"model": "m", "messages": [], **body}), {})
        self.record = Record(0.0, key=key)
        return await self.keys.ask(self.record, chat)

    async def refusal(self, **body: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(**body)
        return caught.value

    def end(self, lease: Lease | None, usage: Usage | None = None, code: str = "ok", cost: float | None = None) -> None:
        assert lease is not None
        record = Record(0.0, code=code)
        record.usage, record.cost = usage, cost
        lease.settle(asyncio.get_running_loop().time(), record)

    def told(self, name: str) -> str:
        assert self.record.allowance is not None
        return self.record.allowance[f"x-ratelimit-{name}"]


@asynccontextmanager
async def desks(url: str, prefix: str, count: int = 2, **options: Any) -> Any:
    made = [Desk(url, prefix, **options) for _ in range(count)]
    try:
        for each in made:
            await each.shared.start()
        yield made
    finally:
        for each in made:
            await each.shared.close()


def test_a_key_is_told_of_the_limits_that_all_have(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with desks(redis.url, prefix, rpm=4, tpm=1000, workers=2) as (one, two):
            for each in (one, two, one, two):
                await each.ask(max_tokens=100)
            assert [two.told(f"limit-{name}") for name in ("requests", "tokens")] == ["4", "1000"]
            assert two.told("remaining-requests") == "0"
            assert 500 < int(two.told("remaining-tokens")) < 600
            refused = await one.refusal(max_tokens=100)
            assert (refused.status, refused.code, refused.kind) == (429, "rate_limit_exceeded", "requests")
            assert refused.retry_after is not None
            assert 14 < refused.retry_after <= 15
            assert one.record.limited == "requests"
            assert one.told("remaining-requests") == "0"
            assert "4 requests per minute" in str(refused)

    run(main())


def test_tokens_of_a_request_that_failed_come_back(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with desks(redis.url, prefix, tpm=1000) as (one, two):
            lease = await one.ask(max_tokens=900)
            assert (await two.refusal(max_tokens=900)).kind == "tokens"
            one.end(lease, code="upstream_error")
            async with asyncio.timeout(20):
                while not await granted(two, max_tokens=900):
                    pass
            await one.ask(max_tokens=1)
            assert int(one.told("remaining-tokens")) < 900

    run(main())


def test_a_key_without_limits_asks_nobody(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with desks(RedisServer(tmp_path).url, "x", 1, rpm=1, on_error="refuse") as (one,):
            assert await one.ask(key="free") is None
            assert one.keys.admit(one.record, None, 0.0) is None  # type: ignore[arg-type]  # it is not looked at
            with pytest.raises(AskFirst):
                one.keys.admit(Record(0.0, key="app"), None, 0.0)  # type: ignore[arg-type]

    run(main())


def test_a_budget_is_one_for_all(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with desks(redis.url, prefix, budget=Budget(1.0, "USD", "day")) as (one, two):
            lease = await one.ask(max_tokens=450)
            busy = await one.refusal(max_tokens=450)
            assert (busy.status, one.record.limited) == (429, "budget")
            spent = await two.refusal(max_tokens=450)
            assert (spent.status, spent.code) == (402, "insufficient_quota")
            one.end(lease, Usage(100, 0), cost=0.1)
            async with asyncio.timeout(20):
                while not await granted(two, max_tokens=420):
                    pass
            key = f"{prefix}:{{key:app}}:app:budget:USD:2026-11-30"
            assert 900_000_000 < int(redis.say("GET", key).split(b"\r\n")[1]) < 1_000_000_000

    run(main())


async def granted(desk: Desk, **body: Any) -> bool:
    try:
        await desk.ask(**body)
    except GatewayError:
        await asyncio.sleep(0.01)  # what has ended is told behind the scenes
        return False
    return True


def test_without_redis_a_process_grants_its_part_and_says_so(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with desks(RedisServer(tmp_path).url, "x", 1, rpm=4, workers=2) as (one,):
            for _ in range(2):
                await one.ask()
                assert one.record.allowance["x-gateway-state"] == "degraded"
            assert (await one.refusal()).status == 429
            assert one.told("limit-requests") == "2"
            assert one.record.allowance["x-gateway-state"] == "degraded"

    run(main())


def test_a_budget_without_redis_is_divided(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        budget = Budget(1.0, "USD", "day")
        async with desks(RedisServer(tmp_path).url, "x", 1, budget=budget, workers=4) as (one,):
            lease = await one.ask(max_tokens=100)
            one.end(lease, Usage(0, 100), cost=0.2)
            assert (await one.refusal(max_tokens=100)).status == 402

    run(main())


def test_a_budget_is_divided_in_the_very_moment_when_redis_dies(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        server = RedisServer(tmp_path)
        server.start()
        async with desks(server.url, "x", 1, budget=Budget(1.0, "USD", "day"), workers=4) as (one,):
            one.end(await one.ask(max_tokens=100), Usage(0, 100), cost=0.2)
            assert await granted(one, max_tokens=100)
            server.kill()
            assert one.shared.up
            assert (await one.refusal(max_tokens=100)).status == 402
            assert one.record.limited == "budget"

    run(main())


def test_a_reload_that_takes_a_keys_limits_away_refuses_by_those_that_were(
    run: Any, redis: RedisServer, prefix: str
) -> None:
    async def main() -> None:
        async with desks(redis.url, prefix, 1, budget=Budget(1.0, "USD", "day")) as (one,):
            await one.ask(max_tokens=450)
            asking = asyncio.create_task(one.refusal(max_tokens=450))
            await asyncio.sleep(0)
            one.keys.adopt(Config(keys={"app": Key(hash=HASH)}), 0.0, {"m": TARIFF}.get)
            assert (await asking).kind == "insufficient_quota"

    run(main())


@pytest.mark.parametrize(("choice", "status"), [("refuse", 503), ("allow", 200)])
def test_without_redis_a_process_does_what_was_chosen(run: Any, tmp_path: Path, choice: str, status: int) -> None:
    async def main() -> None:
        async with desks(RedisServer(tmp_path).url, "x", 1, rpm=1, on_error=choice) as (one,):
            for _ in range(3):
                if status == 503:
                    assert (await one.refusal()).status == 503
                else:
                    await one.ask()
                assert one.record.allowance["x-gateway-state"] == "degraded"

    run(main())


def test_what_redis_has_granted_counts_for_the_part_as_well(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        server = RedisServer(tmp_path)
        server.start()
        async with desks(server.url, "x", 1, rpm=4, workers=2) as (one,):
            for _ in range(3):
                await one.ask()
            server.kill()
            assert (await one.refusal()).status == 429
            assert not one.shared.up

    run(main())
