"""Limits of keys under load: the admitted count is exact, and no token is lost or counted twice."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from livegateway import HELLO, Live, Reply, gateway_and_demo, hashed, shipped

SECRET = "sk-test-limits"
HASH = hashed(SECRET)
CLIENTS, EACH = 50, 20
# Tokens per minute: room for what fifty clients reserve at once; and what comes back in a second.
LIMIT, REFILL = 60_000, 1_000


def keys(**limits: Any) -> dict[str, Any]:
    return {"app": {"hash": HASH, "limits": limits}}


def allowed(live: Live) -> Live:
    live.headers = {"Authorization": f"Bearer {SECRET}"}
    return live


async def crowd(live: Live, ask: Callable[[int], Any]) -> list[Reply]:
    """The answers to a thousand requests from fifty clients."""

    async def client(number: int) -> list[Reply]:
        return [await ask(number * EACH + turn) for turn in range(EACH)]

    return [reply for replies in await asyncio.gather(*map(client, range(CLIENTS))) for reply in replies]


def test_of_a_thousand_requests_exactly_those_within_the_limit_are_let_in(
    tmp_path: Path, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, keys=keys(rpm=120)) as (live, upstream):
            allowed(live)
            began = time.monotonic()
            replies = await crowd(live, lambda number: live.chat("openai", stream=number % 2 == 0))
            span = time.monotonic() - began
            let_in = [reply for reply in replies if reply.status == 200]
            refused = [reply for reply in replies if reply.status == 429]
            assert len(let_in) + len(refused) == CLIENTS * EACH
            # A minute's worth at once, then one every half second.
            assert 120 <= len(let_in) <= 120 + math.ceil(span * 2)
            assert upstream.served == len(let_in)
            assert all(reply.error["code"] == "rate_limit_exceeded" for reply in refused)
            assert all(0 < int(reply.headers["retry-after-ms"]) <= 500 for reply in refused)
            assert {reply.headers["retry-after"] for reply in refused} == {"1"}
            assert {reply.headers["x-ratelimit-limit-requests"] for reply in replies} == {"120"}
            assert {reply.headers["x-ratelimit-remaining-requests"] for reply in refused} == {"0"}
            assert len(await live.logged(len(refused), code="rate_limit_exceeded")) == len(refused)
            metrics = (await live.get("/metrics", port=live.admin_port)).body.decode()
            assert f'sluiceway_limited_total{{key="app",limit="requests"}} {len(refused)}.0\n' in metrics

    served(main())


def test_of_a_thousand_requests_no_token_is_lost_or_counted_twice(tmp_path: Path, served: Callable[..., Any]) -> None:
    """Whole answers, streams, failures, refusals, and streams that their clients leave, all at once."""

    async def main() -> None:
        content = shipped()
        content["server"].pop("listen")
        content["server"].pop("admin")
        content["keys"] = keys(tpm=LIMIT)
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            allowed(live)

            async def ask(number: int) -> Reply | None:
                if number % 20 == 7:
                    return await left(live)
                model = "fail" if number % 10 == 3 else ("gpt", "claude", "gemini")[number % 3]
                return await live.chat(model, stream=number % 2 == 0, max_tokens=300)

            began = time.monotonic()
            replies = [reply for reply in await crowd(live, ask) if reply is not None]
            lines = await live.logged(CLIENTS * EACH)
            used = sum(
                (each["tokens"]["prompt"] or 0) + (each["tokens"]["completion"] or 0)
                for each in lines
                if "tokens" in each
            )
            partly = [each for each in lines if each.get("tokens", {}).get("source") == "partial"]
            # A stream that was cut does not say what its prompt took: the estimate holds, a quarter of the body.
            used += sum(each["bytes_in"] // 4 for each in partly if each["tokens"]["prompt"] is None)
            probe = await live.chat("gpt", max_tokens=0)
            back = math.ceil((time.monotonic() - began) * REFILL)
            size = len(json.dumps({"model": "gpt", "messages": HELLO, "max_tokens": 0}, separators=(",", ":"))) // 4
            missing = LIMIT - size - int(probe.headers["x-ratelimit-remaining-tokens"])
            assert {reply.status for reply in replies} == {200, 500}
            assert len(partly) == CLIENTS
            assert used > 10_000
            assert max(0, used - back) <= missing <= used

    served(main())


async def digest(live: Live) -> str:
    """Of the configuration in force."""
    status = await live.get("/status", port=live.admin_port)
    return str(status.json()["configuration"]["digest"])


async def left(live: Live) -> None:
    """A stream whose client goes away after the first event."""
    talk = await live.open({"model": "slow", "stream": True, "messages": HELLO, "max_tokens": 300})
    await talk.until(b"data: ")
    talk.leave()


def test_tokens_of_a_cancelled_stream_come_back(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        content = shipped()
        content["keys"] = keys(tpm=6_000)
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            allowed(live)
            talk = await live.open({"model": "slow", "stream": True, "messages": HELLO, "max_tokens": 5_000})
            await talk.until(b"data: ")
            refused = await live.chat("gpt", max_tokens=5_000)
            assert refused.status == 429
            assert refused.error["type"] == "tokens"
            assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 1_000
            talk.leave()
            await live.logged(1, code="client_disconnect")
            assert (await live.chat("gpt", max_tokens=5_000)).status == 200

    served(main())


def test_requests_at_once_are_bounded_and_a_place_is_free_when_one_ends(
    tmp_path: Path, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        content = shipped()
        content["keys"] = keys(parallel=2)
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            allowed(live)
            talks = [await live.open({"model": "slow", "stream": True, "messages": HELLO}) for _ in range(2)]
            for talk in talks:
                await talk.until(b"data: ")
            assert (await live.chat("gpt")).status == 429
            talks[0].leave()
            await live.logged(1, code="client_disconnect")
            assert (await live.chat("gpt")).status == 200
            talks[1].leave()

    served(main())


def test_what_was_used_outlives_a_reload(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, keys=keys(rpm=2)) as (live, _):
            allowed(live)
            first = await live.chat("openai")
            assert first.headers["x-ratelimit-remaining-requests"] == "1"
            live.path.write_text(live.path.read_text().replace('"rpm": 2', '"rpm": 3'))
            Live.signal(signal.SIGHUP)
            async with asyncio.timeout(10):
                while await digest(live) == first.headers["x-gateway-config"]:  # noqa: ASYNC110 - another loop reloads
                    await asyncio.sleep(0.05)
            second = await live.chat("openai")
            assert second.headers["x-ratelimit-limit-requests"] == "3"
            assert second.headers["x-ratelimit-remaining-requests"] == "1"

    served(main())


def test_a_key_without_limits_is_told_of_none(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, keys={"app": {"hash": HASH}}) as (live, _):
            reply = await allowed(live).chat("openai")
            assert reply.status == 200
            assert not [name for name in reply.headers if name.startswith("x-ratelimit")]

    served(main())
