"""What the gateway puts right by itself, once: a clock that is off (LC-023), a token that has had its time."""

from __future__ import annotations

import asyncio
import re
import time
from email.utils import formatdate
from pathlib import Path

from livegateway import HELLO, serving
from upstreams import OK_BODY, ScriptedUpstream, answer

CONVERSE = (
    '{"output":{"message":{"role":"assistant","content":[{"text":"Hello"}]}},"stopReason":"end_turn",'
    '"usage":{"inputTokens":1,"outputTokens":1,"totalTokens":2},"metrics":{"latencyMs":1}}'
)
AWS = {"region": "eu-central-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": "example-secret-key"}
AHEAD = 3600.0


def skewed() -> str:
    refusal = '{"message":"Signature not yet current: 20261122T000000Z is later than 20261121T235500Z"}'
    date = formatdate(time.time() + AHEAD, usegmt=True)
    return answer(refusal, "403 Forbidden", **{"x-amzn-errortype": "InvalidSignatureException", "Date": date})


def signed_at(request: bytes) -> float:
    found = re.search(rb"x-amz-date: (\d{8}T\d{6})Z", request, re.IGNORECASE)
    assert found is not None
    return time.mktime(time.strptime(found[1].decode(), "%Y%m%dT%H%M%S")) - time.timezone


def test_a_request_is_signed_once_more_by_the_providers_clock(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedUpstream([{"t": skewed()}], [{"t": answer(CONVERSE)}]) as up:
            content = {
                "providers": {"aws": {"type": "bedrock", "base_url": up.url, **AWS}},
                "deployments": {"claude": {"provider": "aws", "model": "anthropic.claude-sonnet-4-5"}},
            }
            async with serving(tmp_path, content) as live:
                first = await live.post({"model": "claude", "messages": HELLO})
                second = await live.post({"model": "claude", "messages": HELLO})
        assert (first.status, second.status) == (200, 200)
        assert first.headers["x-gateway-attempts"] == "claude=403,claude=200"
        assert second.headers["x-gateway-attempts"] == "claude=200"
        wrong, mended, later = (signed_at(request) for request in up.requests)
        assert abs(wrong - time.time()) < 60
        assert abs(mended - wrong - AHEAD) < 60
        assert abs(later - wrong - AHEAD) < 60

    asyncio.run(main())


def test_a_clock_that_stays_off_is_corrected_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedUpstream([{"t": skewed()}]) as up:
            content = {
                "providers": {"aws": {"type": "bedrock", "base_url": up.url, **AWS}},
                "deployments": {"claude": {"provider": "aws", "model": "anthropic.claude-sonnet-4-5"}},
            }
            async with serving(tmp_path, content) as live:
                reply = await live.post({"model": "claude", "messages": HELLO})
        assert (reply.status, len(up.requests)) == (502, 2)

    asyncio.run(main())


def test_a_refused_token_is_fetched_anew_once(tmp_path: Path) -> None:
    async def main() -> None:
        refused = answer('{"error":{"code":"401","message":"expired"}}', "401 Unauthorized")
        tokens = [[{"t": answer(f'{{"access_token":"token-{n}","expires_in":3600}}')}] for n in range(3)]
        async with (
            ScriptedUpstream([{"t": refused}], [{"t": answer(OK_BODY)}]) as up,
            ScriptedUpstream(*tokens) as authority,
        ):
            metadata = {"metadata": f"{authority.url}/metadata/identity/oauth2/token"}
            content = {
                "providers": {"azure": {"type": "azure", "base_url": up.url, "entra": metadata}},
                "deployments": {"gpt": {"provider": "azure", "model": "gpt-4o"}},
            }
            async with serving(tmp_path, content) as live:
                reply = await live.post({"model": "gpt", "messages": HELLO})
        assert (reply.status, reply.headers["x-gateway-attempts"]) == (200, "gpt=401,gpt=200")
        assert [re.search(rb"token-\d", request)[0] for request in up.requests] == [b"token-0", b"token-1"]  # type: ignore[index]

    asyncio.run(main())
