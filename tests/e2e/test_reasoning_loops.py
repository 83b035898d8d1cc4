"""Three turns of a tool loop with thinking on: the provider gets its signed thoughts back (the demo checks)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import TRANSLATED, Live, gateway_and_demo
from openai import AsyncOpenAI

Run = Callable[[Any], Any]
MODELS = {
    "anthropic": "claude-sonnet-4-5-demo-steps-3",
    "google": "gemini-3-pro-preview-demo-steps-3",
    "bedrock": "eu.anthropic.claude-sonnet-4-5-20250929-v1:0-demo-steps-3",
}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("get_weather", "get_news")
]
# What every client keeps of an assistant's message; a careful one keeps the rest too.
KNOWN = ("role", "content", "tool_calls")


def careful(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in ("parsed", "index")}


def forgetful(message: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {
            "id": call["id"],
            "type": "function",
            "function": {key: call["function"][key] for key in ("name", "arguments")},
        }
        for call in message.get("tool_calls") or ()
    ]
    kept = {name: message.get(name) for name in KNOWN}
    return {**kept, "tool_calls": calls} if calls else {**kept, "tool_calls": None}


async def turn(client: AsyncOpenAI, asks: dict[str, Any], streamed: bool) -> dict[str, Any]:
    """The assistant's message."""
    if not streamed:
        answer: Any = await client.chat.completions.create(**asks)
        message: dict[str, Any] = answer.choices[0].message.model_dump(exclude_none=True)
        return message
    async with client.chat.completions.stream(**asks) as stream:
        final = await stream.get_final_completion()
    message = final.choices[0].message.model_dump(exclude_none=True)
    for call in message.get("tool_calls", ()):  # what the helper adds for itself
        call.pop("index", None)
        call["function"].pop("parsed_arguments", None)
    return message


async def loop(live: Live, keep: Callable[[dict[str, Any]], dict[str, Any]], streamed: bool) -> tuple[list[Any], str]:
    """The rounds of calls until the model answers, and what it says then."""
    messages: list[Any] = [{"role": "user", "content": "What is it like in Paris?"}]
    rounds = []
    async with AsyncOpenAI(base_url=live.url, api_key="-", max_retries=0) as client:
        for _ in range(5):
            asks = {"model": "m", "messages": messages, "tools": TOOLS, "reasoning_effort": "high", "max_tokens": 8000}
            message = await turn(client, asks, streamed)
            messages.append(keep(message))
            if not message.get("tool_calls"):
                return rounds, message["content"]
            rounds.append(message)
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": f"result {len(rounds)}"}
                for call in message["tool_calls"]
            ]
    raise AssertionError("the model never came to an end")


def looped(
    served: Run, folder: Path, provider: str, keep: Any, streamed: bool, **options: Any
) -> tuple[list[Any], str, list[Any]]:
    async def main() -> Any:
        deployments = {"m": {"provider": provider, "model": MODELS[provider], **options}}
        async with gateway_and_demo(folder, deployments=deployments) as (live, demo):
            rounds, said = await loop(live, keep, streamed)
            return rounds, said, [orjson.loads(request.body) for request in demo.requests]

    result: tuple[list[Any], str, list[Any]] = served(main())
    return result


def signatures(body: Any) -> list[str]:
    """Every signature in a request, wherever it stands."""
    if isinstance(body, dict):
        own = [value for name, value in body.items() if name in ("signature", "thoughtSignature") and value]
        return own + [found for value in body.values() for found in signatures(value)]
    return [found for value in body for found in signatures(value)] if isinstance(body, list) else []


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("provider", TRANSLATED)
def test_a_client_that_keeps_unknown_fields_carries_the_thoughts(
    served: Run, tmp_path: Path, provider: str, streamed: bool
) -> None:
    rounds, said, requests = looped(served, tmp_path, provider, careful, streamed)
    assert len(rounds) == 3
    assert "result 3" in said
    assert [len(signatures(request)) for request in requests] == [0, 1, 2, 3]
    if provider != "google":
        assert all(message["reasoning_content"] for message in rounds)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("provider", TRANSLATED)
def test_a_client_that_drops_unknown_fields_carries_them_in_the_ids_where_the_deployment_says_so(
    served: Run, tmp_path: Path, provider: str, streamed: bool
) -> None:
    rounds, said, requests = looped(served, tmp_path, provider, forgetful, streamed, emulate=["thinking"])
    assert len(rounds) == 3
    assert "result 3" in said
    assert [len(signatures(request)) for request in requests] == [0, 1, 2, 3]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("provider", TRANSLATED)
def test_without_that_the_loop_still_ends_well_and_ids_stay_short(
    served: Run, tmp_path: Path, provider: str, streamed: bool
) -> None:
    rounds, said, _ = looped(served, tmp_path, provider, forgetful, streamed)
    assert len(rounds) == 3
    assert "result 3" in said
    assert all(len(call["id"]) <= 64 for message in rounds for call in message["tool_calls"])


MARK = {"type": "ephemeral"}
EVERYWHERE: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be short.", "cache_control": MARK}]},
        {"role": "user", "content": [{"type": "text", "text": "A long text.", "cache_control": MARK}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"x"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain", "cache_control": MARK},
    ],
    "tools": [*TOOLS[:1], {**TOOLS[1], "cache_control": MARK}],
}


def counted(body: Any, name: str) -> int:
    """How often a key stands anywhere in a body."""
    if isinstance(body, dict):
        return (name in body) + sum(counted(value, name) for value in body.values())
    return sum(counted(value, name) for value in body) if isinstance(body, list) else 0


@pytest.mark.parametrize(("provider", "key"), [("anthropic", "cache_control"), ("bedrock", "cachePoint")])
def test_cache_marks_reach_the_provider_from_all_their_places(
    served: Run, tmp_path: Path, provider: str, key: str
) -> None:
    async def main() -> tuple[Any, Any]:
        async with gateway_and_demo(tmp_path) as (live, demo):
            four = await live.chat(provider, **EVERYWHERE)
            assert four.status == 200, four.body
            fifth = await live.chat(provider, cache_control=MARK)
            assert fifth.status == 200, fifth.body
            return [orjson.loads(request.body) for request in demo.requests]

    marked, automatic = served(main())
    assert [counted(marked[part], key) for part in ("system", "messages")] == [1, 2]
    assert counted(marked.get("tools") or marked["toolConfig"], key) == 1
    assert counted(automatic, key) == 1
