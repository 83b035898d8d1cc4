"""Limits on the way to upstreams, counted by several processes in a real Redis, and by each alone without it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redisserver import RedisServer

from gateway.config.loader import load
from gateway.config.models import abilities_of
from gateway.config.plugins import Registry
from gateway.contract import Usage
from gateway.health import Health
from gateway.router import Router
from gateway.routes import Step
from gateway.sharing.holds import Holds
from gateway.sharing.shared import Shared
from gateway.sharing.targets import AtLimit, SharedCounts
from gateway.traits import Size
from gateway.visits import Visit

SMALL = Size(10, 10)


class Desk:
    """Processes of the same configuration; `a` has limits, `r` leads to it with limits of its own."""

    def __init__(self, url: str, prefix: str, count: int, limits: Any, via: Any = None, **server: Any) -> None:
        entry = {"provider": "p", "model": "x", "limits": limits, "price": {"input": 1000, "output": 1000}}
        text = {
            "version": 1,
            "server": server,
            "state": {"store": "redis", "url": url, "prefix": prefix, "timeout": "5s"},
            "providers": {"p": {"type": "openai", "base_url": "http://127.0.0.1:1", "api_key": {"env": "K"}}},
            "deployments": {"a": entry},
            "routings": {"r": {"targets": [{"use": "a", "limits": via or {}}]}},
        }
        loaded = load("g.yaml", {"K": "k"}, Registry(), text=json.dumps(text))
        assert loaded.config is not None, [str(finding) for finding in loaded.findings]
        self.router = Router(loaded.config, Registry(), abilities_of)
        self.processes = [
            SharedCounts(Shared(loaded.config.state, loaded.config.server.workers, Holds({}), quiet))
            for _ in range(count)
        ]

    def step(self, model: str = "r") -> Step:
        return self.router.resolve(model).steps[0]

    async def enter(self, process: int = 0, size: Size = SMALL, model: str = "r") -> Visit:
        """A visit that has passed the gates."""
        now = asyncio.get_running_loop().time()
        counts = self.processes[process]
        ticket = await counts.enter(self.step(model), size, now)
        visit = Visit(Health(), now, retry=False, placed=False)
        visit.pass_gates(self.step(model), counts, size, ticket)
        return visit

    async def refused(self, process: int = 0, size: Size = SMALL) -> AtLimit:
        with pytest.raises(AtLimit) as caught:
            await self.enter(process, size)
        return caught.value


def quiet(level: str, message: str, **fields: Any) -> None:
    """Nobody listens."""


@asynccontextmanager
async def open_desk(url: str, prefix: str, count: int, limits: Any, via: Any = None, **server: Any) -> Any:
    made = Desk(url, prefix, count, limits, via, **server)
    try:
        for each in made.processes:
            await each.shared.start()
        yield made
    finally:
        for each in made.processes:
            await each.shared.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def freed(desk: Desk, process: int, size: Size = SMALL) -> Visit:
    """A visit as soon as there is room: what has ended is told behind the scenes."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await desk.enter(process, size)
            except AtLimit:
                await asyncio.sleep(0.01)  # another process, as it were


def test_all_limits_on_the_way_count_and_none_is_divided(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with open_desk(redis.url, prefix, 2, {"rpm": 4, "parallel": 9}, {"rpm": 2}, workers=3) as desk:
            assert [gate.rates.rpm for gate in desk.step().gates] == [2, 4]
            assert [gate.rates.parallel for gate in desk.step().gates] == [None, 9]
            for process in (0, 1):
                await desk.enter(process)
            refused = await desk.refused()
            assert 25 < refused.wait <= 30
            # What the target refused was not taken of the deployment.
            for process in (0, 1):
                await desk.enter(process, model="a")
            with pytest.raises(AtLimit):
                await desk.enter(model="a")

    run(main())


def test_places_are_free_again_when_visits_end(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        async with open_desk(redis.url, prefix, 2, {"parallel": 1}) as desk:
            visit = await desk.enter(0)
            refused = await desk.refused(1)
            assert refused.crowded
            visit.leave(now())
            (await freed(desk, 1)).leave(now())

    run(main())


@pytest.mark.parametrize(
    ("usage", "left"), [(Usage(10, 0), 990), (Usage(0, 0), 1000), (None, 900), (Usage(300, 200), 500)]
)
def test_tokens_are_settled_with_the_true_usage(
    run: Any, redis: RedisServer, prefix: str, usage: Usage | None, left: int
) -> None:
    async def main() -> None:
        async with open_desk(redis.url, prefix, 1, {"tpm": 1000}) as desk:
            visit = await desk.enter(size=Size(100, 0))
            visit.leave(now(), usage)
            refused = await desk.refused(size=Size(left + 60, 0)) if left < 940 else None
            assert refused is None or 1 < refused.wait < 5
            await desk.enter(size=Size(left, 0))

    run(main())


def test_a_budget_that_is_spent_is_no_matter_of_waiting(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main() -> None:
        # A thousand tokens are a dollar.
        async with open_desk(redis.url, prefix, 2, {"budget": "1 USD/day"}) as desk:
            first = await desk.enter(0, Size(900, 0))
            refused = await desk.refused(1, Size(200, 0))
            assert refused.spent
            assert 0 < refused.wait <= 86_400
            first.leave(now(), Usage(100, 0))
            await freed(desk, 1, Size(800, 0))

    run(main())


def test_without_redis_each_process_grants_its_part(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_desk(RedisServer(tmp_path).url, "x", 1, {"rpm": 6, "parallel": 4}, workers=2) as desk:
            counts = desk.processes[0]
            visits = [await desk.enter() for _ in range(2)]
            gate = desk.step().gates[0]
            assert counts.quota(gate.name).obstacle(now(), gate.rates, 1)[1] == "parallel"
            assert (await desk.refused()).wait == 1.0
            visits[0].leave(now())
            await desk.enter()
            visits[1].leave(now())
            assert 15 < (await desk.refused()).wait <= 20

    run(main())


def test_a_budget_is_divided_in_the_very_moment_when_redis_dies(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        server = RedisServer(tmp_path)
        server.start()
        async with open_desk(server.url, "x", 1, {"budget": "1 USD/day"}, workers=2) as desk:
            visits = [await desk.enter(0, Size(400, 0)) for _ in range(2)]
            visits[0].leave(now(), Usage(400, 0))
            server.kill()
            assert desk.processes[0].shared.up
            refused = await desk.refused(0, Size(400, 0))
            assert refused.spent

    run(main())
