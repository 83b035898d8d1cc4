"""gateway.fan: n answers by parallel calls look like one answer with n choices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import HELLO, MODELS, Reply, gateway_and_demo, serving
from openai import AsyncOpenAI
from upstreams import ScriptedUpstream, answer

Run = Callable[[Any], Any]
NATIVELY_ONE = ("anthropic", "bedrock")


def emulating(provider: str, **options: Any) -> dict[str, Any]:
    return {"m": {"provider": provider, "model": MODELS[provider], "emulate": ["n"], **options}}


def asked(run: Run, folder: Path, provider: str, *switches: str, **body: Any) -> tuple[Reply, int, Any]:
    """The answer, how many calls the demo got, and the line in the log."""

    async def main() -> tuple[Reply, int, Any]:
        deployments = emulating(provider, retry={"attempts": 1})
        async with gateway_and_demo(folder, deployments=deployments) as (live, demo):
            demo.misbehave(*switches)
            reply = await live.chat("m", **body)
            await demo.settled(0)
            (line,) = await live.logged(1)
            return reply, demo.served, line

    result: tuple[Reply, int, Any] = run(main())
    return result


def finishes(chunks: Iterable[Any]) -> list[int]:
    return [choice["index"] for chunk in chunks for choice in chunk["choices"] if choice.get("finish_reason")]


@pytest.mark.parametrize("provider", NATIVELY_ONE)
def test_three_answers_are_three_choices_in_order(run: Run, tmp_path: Path, provider: str) -> None:
    reply, calls, line = asked(run, tmp_path, provider, n=3)
    single, _, _ = asked(run, tmp_path, provider)
    whole = reply.json()
    assert (reply.status, calls) == (200, 3)
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert {reply.text(index) for index in range(3)} == {single.text()}
    assert "n" in reply.headers["x-gateway-translated-params"].split(",")
    one = single.json()["usage"]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert whole["usage"][name] == 3 * one[name]
    assert line["tokens"]["prompt"] == 3 * one["prompt_tokens"]


@pytest.mark.parametrize("provider", NATIVELY_ONE)
def test_streams_are_one_stream_with_every_choice_opened_in_order(run: Run, tmp_path: Path, provider: str) -> None:
    asks = {"n": 3, "stream": True, "stream_options": {"include_usage": True}}
    reply, calls, line = asked(run, tmp_path, provider, **asks)
    single, _, _ = asked(run, tmp_path, provider)
    assert (reply.status, calls, reply.done, reply.complete) == (200, 3, True, True)
    chunks = reply.chunks
    assert [chunk["choices"][0]["index"] for chunk in chunks[:3]] == [0, 1, 2]
    roles = [chunk for chunk in chunks if chunk["choices"] and "role" in chunk["choices"][0]["delta"]]
    assert roles == chunks[:3]
    assert sorted(finishes(chunks)) == [0, 1, 2]
    assert [reply.text(index) for index in range(3)] == [single.text()] * 3
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["prompt_tokens"]) == (
        [],
        3 * single.json()["usage"]["prompt_tokens"],
    )
    assert line["tokens"]["completion"] == chunks[-1]["usage"]["completion_tokens"]


def test_usage_is_shown_only_to_a_client_that_asked(run: Run, tmp_path: Path) -> None:
    reply, _, line = asked(run, tmp_path, "anthropic", n=2, stream=True)
    assert all(chunk["choices"] for chunk in reply.chunks)
    assert line["tokens"]["source"] == "reported"


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_stand_in_their_own_choice(run: Run, tmp_path: Path, stream: bool) -> None:
    async def main() -> Any:
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        tools: Any = [
            {"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("get_a", "get_b")
        ]
        asks: Any = {"model": "m", "messages": HELLO, "tools": tools, "n": 2}
        async with (
            gateway_and_demo(tmp_path, deployments=emulating("anthropic")) as (live, _),
            AsyncOpenAI(base_url=live.url, api_key="-", max_retries=0) as client,
        ):
            if not stream:
                return await client.chat.completions.create(**asks)
            async with client.chat.completions.stream(**asks) as events:
                return await events.get_final_completion()

    final = run(main())
    assert [choice.finish_reason for choice in final.choices] == ["tool_calls"] * 2
    for choice in final.choices:
        assert [call.function.name for call in choice.message.tool_calls] == ["get_a", "get_b"]
        assert all(orjson.loads(call.function.arguments) for call in choice.message.tool_calls)


@pytest.mark.parametrize("stream", [False, True])
def test_one_call_that_is_refused_fails_the_request_with_its_status(run: Run, tmp_path: Path, stream: bool) -> None:
    reply, calls, line = asked(run, tmp_path, "anthropic", "", "busy", "stall", n=3, stream=stream)
    assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
    assert calls <= 3
    assert line["code"] == "rate_limit_exceeded"


def test_one_stream_that_breaks_breaks_the_whole(run: Run, tmp_path: Path) -> None:
    reply, _, line = asked(run, tmp_path, "anthropic", "", "midstream", n=2, stream=True)
    assert reply.status == 200
    assert "error" in reply.chunks[-1]
    assert (reply.done, reply.complete) == (False, False)
    assert sum("error" in chunk for chunk in reply.chunks) == 1
    assert line["code"] == reply.chunks[-1]["error"]["code"]


@pytest.mark.parametrize("switches", [("hang",) * 3, ("stall",) * 3, ("", "hang", "stall")])
def test_a_client_that_leaves_ends_every_call(run: Run, tmp_path: Path, switches: tuple[str, ...]) -> None:
    async def main() -> float:
        async with gateway_and_demo(tmp_path, deployments=emulating("anthropic")) as (live, demo):
            demo.misbehave(*switches)
            talk = await live.open({"model": "m", "messages": HELLO, "n": 3, "stream": True})
            if switches == ("stall",) * 3:
                await talk.until(b'"content":"')
            else:
                await demo.settled(switches.count("hang") + switches.count("stall"))
            left = time.monotonic()
            talk.leave()
            await demo.settled(0)
            return time.monotonic() - left

    assert run(main()) < 0.25


def test_one_is_one_call(run: Run, tmp_path: Path) -> None:
    for body in ({"n": 1}, {"n": None}, {}):
        reply, calls, _ = asked(run, tmp_path, "anthropic", **body)
        assert (reply.status, calls) == (200, 1)


def test_a_provider_with_candidates_is_asked_once(run: Run, tmp_path: Path) -> None:
    for provider in ("google", "openai"):
        reply, calls, _ = asked(run, tmp_path, provider, n=2)
        assert (calls, len(reply.json()["choices"])) == (1, 2)


@pytest.mark.parametrize("n", [0, -1, 2.5, "2", True, [2], 129, 10**9])
def test_an_odd_count_is_no_reason_for_many_calls(run: Run, tmp_path: Path, n: Any) -> None:
    reply, calls, _ = asked(run, tmp_path, "anthropic", n=n)
    assert calls <= 1
    assert reply.status in (200, 400)
    assert reply.status == 200 or reply.error["param"] == "n"


def test_an_adapter_may_set_the_count(run: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, Reply]:
        adapters = {"two": {"deployment": "m", "set": {"n": 2}}, "three": {"deployment": "m", "default": {"n": 3}}}
        async with gateway_and_demo(tmp_path, deployments=emulating("bedrock"), adapters=adapters) as (live, _):
            return await live.chat("two", n=4), await live.chat("three")

    two, three = run(main())
    assert (len(two.json()["choices"]), len(three.json()["choices"])) == (2, 3)


def test_all_calls_are_under_way_at_once(run: Run, tmp_path: Path) -> None:
    async def main() -> int:
        gate = asyncio.Event()
        body = {"id": "m", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn"}
        whole = {**body, "content": [{"type": "text", "text": "a"}], "usage": {"input_tokens": 1, "output_tokens": 1}}
        script = [{"wait": gate}, {"t": answer(orjson.dumps(whole).decode())}]
        async with ScriptedUpstream(script) as upstream:
            account = {"p": {"type": "anthropic", "base_url": upstream.url, "api_key": "k"}}
            content = {"providers": account, "deployments": {"m": {**emulating("anthropic")["m"], "provider": "p"}}}
            async with serving(tmp_path, content) as live:
                talk = await live.open({"model": "m", "messages": HELLO, "n": 4})
                await upstream.request_count(4)
                gate.set()
                return len((await talk.rest()).json()["choices"])

    assert run(main()) == 4
