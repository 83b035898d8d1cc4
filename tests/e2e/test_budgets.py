"""Budgets over real sockets: the last cent counts, in every process and over a restart, and nobody's twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livegateway import HELLO, Live, Process, Reply, accounts, deployments, gateway_and_demo, hashed, process, shipped
from upstreams import demo

SECRET = "sk-test-budgets"
HASH = hashed(SECRET)
HEADERS = {"Authorization": f"Bearer {SECRET}"}
# A dollar for a thousand tokens, of whichever kind.
PRICE = {"input": 1000, "output": 1000}
CLIENTS, EACH = 50, 20


def keys(budget: str, **limits: Any) -> dict[str, Any]:
    return {"app": {"hash": HASH, "limits": {"budget": budget, **limits}}}


def priced(content: dict[str, Any]) -> dict[str, Any]:
    """The shipped configuration with a price for everything."""
    for deployment in content["deployments"].values():
        deployment["price"] = PRICE
    return content


def written(path: Path) -> dict[str, float]:
    """What the state file says of each name."""
    with sqlite3.connect(path) as file:
        found = file.execute("SELECT kind || ' ' || name, sum(amount) FROM spent GROUP BY 1").fetchall()
    file.close()
    return dict(found)


async def metric(live: Any, line: str) -> float:
    """The number behind a metric's name and labels."""
    text = (await live.get("/metrics", port=live.admin_port)).body.decode()
    return next((float(each.rpartition(" ")[2]) for each in text.splitlines() if each.startswith(line)), 0.0)


def test_a_key_whose_budget_is_spent_is_told_so_as_openai_tells_it(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        content = priced(shipped())
        content["keys"] = keys("2 USD/day")
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            live.headers = HEADERS
            while (reply := await live.chat("gpt", max_tokens=200)).status == 200:
                assert not [name for name in reply.headers if name.startswith("x-ratelimit")]
            assert reply.status == 402
            assert (reply.error["type"], reply.error["code"]) == ("insufficient_quota", "insufficient_quota")
            assert "The budget of your key, 2 USD per day, is spent" in reply.error["message"]
            assert 0 < int(reply.headers["retry-after"]) <= 86_400
            assert reply.headers["x-should-retry"] == "false"
            lines = await live.logged(1, code="insufficient_quota")
            assert "cost" not in lines[0]
            served_ones = await live.logged(1, code="ok")
            cost = sum(line["cost"] for line in served_ones)
            assert {line["currency"] for line in served_ones} == {"USD"}
            tokens = sum(line["tokens"]["prompt"] + line["tokens"]["completion"] for line in served_ones)
            assert cost == pytest.approx(tokens / 1000)
            assert 1.5 < cost <= 2
            assert await metric(live, 'sluiceway_cost_total{currency="USD",model="gpt"}') == pytest.approx(cost)
            assert await metric(live, 'sluiceway_key_cost_total{currency="USD",key="app"}') == pytest.approx(cost)
            labels = '{currency="USD",kind="key",name="app"}'
            assert await metric(live, f"sluiceway_budget_spent{labels}") == pytest.approx(cost)
            assert await metric(live, f"sluiceway_budget{labels}") == 2
            assert await metric(live, 'sluiceway_limited_total{key="app",limit="budget"}') == 1
            status = (await live.get("/status", port=live.admin_port)).json()
            assert status["budgets"][0]["spent"] == pytest.approx(cost)
            assert status["cost"]["USD"] == pytest.approx(cost)
            page = (await live.get("/status", port=live.admin_port, Accept="text/html")).body.decode()
            assert "<h2>Budgets</h2>" in page

    served(main())


def test_a_deployment_whose_budget_is_spent_leaves_its_requests_to_the_next(
    tmp_path: Path, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        content = priced(shipped())
        content["deployments"]["gpt"]["limits"] = {"budget": "1 USD/month"}
        content["routings"] = {"r": {"targets": ["gpt", {"use": "claude", "limits": {"budget": "0.5 USD/day"}}]}}
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            seen = [await live.chat("r", max_tokens=100) for _ in range(80)]
            by = [reply.headers.get("x-gateway-deployment") for reply in seen]
            turns = [name for name, before in zip(by, [None, *by], strict=False) if name != before]
            assert turns == ["gpt", "claude", None]
            refused = next(reply for reply in seen if reply.status != 200)
            assert (refused.status, refused.error["code"]) == (402, "insufficient_quota")
            assert "budget of every upstream of this model is spent" in refused.error["message"]
            # Its own name leads to the same money, another name does not.
            assert (await live.chat("gpt", max_tokens=100)).status == 402
            assert (await live.chat("claude", max_tokens=100)).status == 200

    served(main())


def test_of_a_thousand_requests_no_cent_is_lost_or_counted_twice(tmp_path: Path, served: Callable[..., Any]) -> None:
    """Whole answers, streams, failures, and streams that their clients leave, against a budget that ends on the way."""
    state = tmp_path / "state.sqlite"

    async def main() -> float:
        content = priced(shipped())
        content["server"] = {"demo": content["server"]["demo"]}
        content["keys"] = keys("12 USD/day")
        content["state"] = {"file": str(state)}
        content["deployments"]["gpt"]["limits"] = {"budget": "1000 USD/day"}
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            live.headers = HEADERS

            async def left() -> None:
                talk = await live.open({"model": "slow", "stream": True, "messages": HELLO, "max_tokens": 100})
                await talk.until(b"\r\n\r\n")
                talk.leave()

            async def client(number: int) -> list[Reply]:
                replies = []
                for turn in range(EACH):
                    index = number * EACH + turn
                    if index % 20 == 7:
                        await left()
                        continue
                    model = "fail" if index % 10 == 3 else ("gpt", "claude", "gemini")[index % 3]
                    replies.append(await live.chat(model, stream=index % 2 == 0, max_tokens=100))
                return replies

            replies = [reply for each in await asyncio.gather(*map(client, range(CLIENTS))) for reply in each]
            while (last := await live.chat("gpt", max_tokens=100)).status == 200:
                replies.append(last)
            assert last.status == 402
            lines = await live.logged(len(replies) + 1 + CLIENTS * EACH // 20)
            assert {reply.status for reply in replies} <= {200, 500, 402, 429}
            cost = sum(line.get("cost", 0.0) for line in lines)
            spent = await metric(live, 'sluiceway_budget_spent{currency="USD",kind="key"')
            assert spent == pytest.approx(cost, abs=1e-6)
            assert 11.8 < cost <= 12
            mine = sum(line.get("cost", 0.0) for line in lines if line["deployment"] == "gpt")
            other = await metric(live, 'sluiceway_budget_spent{currency="USD",kind="deployment"')
            assert other == pytest.approx(mine, abs=1e-6)
            return cost

    cost = served(main())
    assert written(state)["key app"] == pytest.approx(cost, abs=1e-6)


def test_what_was_spent_is_known_after_a_restart_and_a_reload(tmp_path: Path, served: Callable[..., Any]) -> None:
    state = tmp_path / "state.sqlite"

    async def main(*, full: bool) -> None:
        content = priced(shipped())
        content["keys"] = keys("1 USD/month")
        content["state"] = {"file": str(state)}
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            live.headers = HEADERS
            if not full:
                assert (await live.chat("gpt", max_tokens=100)).status == 200
                while (await live.chat("gpt", max_tokens=100)).status == 200:
                    pass
            assert (await live.chat("gpt", max_tokens=100)).status == 402
            if full:
                live.path.write_text(live.path.read_text().replace("1 USD/month", "2 USD/month"))
                Live.signal(signal.SIGHUP)
                async with asyncio.timeout(10):
                    while (await live.chat("gpt", max_tokens=100)).status != 200:  # noqa: ASYNC110 - another loop reloads
                        await asyncio.sleep(0.05)

    served(main(full=False))
    before = written(state)["key app"]
    assert 0.5 < before <= 1
    served(main(full=True))
    assert before < written(state)["key app"] < before + 0.5


def test_a_state_file_that_is_no_good_stops_nothing(tmp_path: Path, served: Callable[..., Any]) -> None:
    state = tmp_path / "state.sqlite"
    state.write_bytes(b"no database" * 500)

    async def main() -> None:
        content = priced(shipped())
        content["keys"] = keys("1 USD/month")
        content["state"] = {"file": str(state)}
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            live.headers = HEADERS
            assert (await live.chat("gpt", max_tokens=100)).status == 200
            await live.logged(1)
            found = [line for line in live.log() if "state file" in line.get("message", "")]
            assert [line["level"] for line in found] == ["error"]

    served(main())
    assert state.read_bytes() == b"no database" * 500


def test_workers_spend_one_budget_together(tmp_path: Path) -> None:
    """Between two writes each worker knows only its own: the sum may exceed the budget by what a second brings."""
    state = tmp_path / "state.sqlite"

    async def spend(gateway: Process) -> float:
        gateway.headers = HEADERS
        spent = 0.0
        async with asyncio.timeout(60):
            while (reply := await gateway.chat("openai", max_tokens=100)).status == 200 or spent < 1:
                if reply.status == 200:
                    spent += reply.json()["usage"]["total_tokens"] / 1000
                await asyncio.sleep(0.05)
            # Now every worker refuses, once it has heard of the others' spending.
            refused = 0
            while refused < 20:
                reply = await gateway.chat("openai", max_tokens=100)
                refused = refused + 1 if reply.status == 402 else 0
                if reply.status == 200:
                    spent += reply.json()["usage"]["total_tokens"] / 1000
                await asyncio.sleep(0.02)
        return spent

    async def main() -> None:
        async with demo() as upstream:
            content = {
                "providers": accounts(upstream, "openai"),
                "deployments": {"openai": {**deployments()["openai"], "price": PRICE}},
                "keys": keys("2 USD/day"),
                "state": {"file": str(state)},
                "server": {"workers": 2, "drain": "1s"},
            }
            with process(tmp_path, content) as gateway:
                spent = await spend(gateway)
                gateway.send(signal.SIGTERM)
                await asyncio.to_thread(gateway.process.wait, 20)
            assert written(state)["key app"] == pytest.approx(spent)
            assert 1.5 < spent < 3.5

    asyncio.run(main())
    assert not [name for name in os.listdir(tmp_path) if name.endswith("-journal")]
