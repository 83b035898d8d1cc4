"""Clients that still use `functions` get a `function_call` back, from every provider that knows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import HELLO, PROVIDERS, TRANSLATED, Reply, gateway_and_demo
from openai import AsyncOpenAI

Run = Callable[[Any], Any]
FUNCTIONS = [
    {"name": name, "parameters": {"type": "object", "properties": {key: {"type": "string"}}, "required": [key]}}
    for name, key in (("get_weather", "city"), ("get_time", "zone"))
]


def calling(served: Run, folder: Path, provider: str, **body: Any) -> Reply:
    async def main() -> Reply:
        async with gateway_and_demo(folder) as (live, _):
            return await live.chat(provider, functions=FUNCTIONS, **body)

    reply: Reply = served(main())
    return reply


@pytest.mark.parametrize("provider", TRANSLATED)
def test_a_call_is_one_function_call(served: Run, tmp_path: Path, provider: str) -> None:
    (choice,) = calling(served, tmp_path, provider).json()["choices"]
    call = choice["message"]["function_call"]
    assert (choice["finish_reason"], call["name"]) == ("function_call", "get_weather")
    assert set(call) == {"name", "arguments"}
    assert set(orjson.loads(call["arguments"])) == {"city"}
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize("provider", TRANSLATED)
def test_a_streamed_call_is_one_function_call(served: Run, tmp_path: Path, provider: str) -> None:
    reply = calling(served, tmp_path, provider, stream=True)
    choices = [choice for chunk in reply.chunks for choice in chunk["choices"]]
    deltas = [choice["delta"] for choice in choices]
    assert not any("tool_calls" in delta for delta in deltas)
    calls = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert [call["name"] for call in calls if call.get("name")] == ["get_weather"]
    assert set(orjson.loads("".join(call.get("arguments", "") for call in calls))) == {"city"}
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["function_call"]
    assert reply.done


@pytest.mark.parametrize("provider", TRANSLATED)
def test_the_official_client_accumulates_and_sends_back_the_result(served: Run, tmp_path: Path, provider: str) -> None:
    async def main() -> Any:
        async with (
            gateway_and_demo(tmp_path) as (live, _),
            AsyncOpenAI(base_url=live.url, api_key="-", max_retries=0) as client,
        ):
            asked: Any = {"model": provider, "functions": FUNCTIONS}
            async with client.chat.completions.stream(**asked, messages=HELLO) as stream:
                message = (await stream.get_final_completion()).choices[0].message
            assert message.function_call is not None
            history = [*HELLO, {"role": "assistant", "content": None, "function_call": message.function_call}]
            history.append({"role": "function", "name": message.function_call.name, "content": "it rains"})
            return await client.chat.completions.create(**asked, messages=history)

    assert "it rains" in served(main()).choices[0].message.content


@pytest.mark.parametrize("provider", TRANSLATED)
def test_no_function_may_be_called_where_the_client_says_none(served: Run, tmp_path: Path, provider: str) -> None:
    (choice,) = calling(served, tmp_path, provider, function_call="none").json()["choices"]
    assert (choice["finish_reason"], "function_call" in choice["message"]) == ("stop", False)


@pytest.mark.parametrize("provider", TRANSLATED)
def test_a_named_function_is_the_one_that_is_called(served: Run, tmp_path: Path, provider: str) -> None:
    (choice,) = calling(served, tmp_path, provider, function_call={"name": "get_time"}).json()["choices"]
    assert choice["message"]["function_call"]["name"] == "get_time"


def test_tools_beside_functions_keep_the_modern_form(served: Run, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": FUNCTIONS[0]}]
    for provider in TRANSLATED:
        (choice,) = calling(served, tmp_path, provider, tools=tools).json()["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["tool_calls"][0]["function"]["name"] == "get_weather"


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name not in TRANSLATED])
def test_providers_of_the_same_dialect_get_functions_as_they_are(served: Run, tmp_path: Path, provider: str) -> None:
    async def main() -> tuple[Reply, bytes]:
        async with gateway_and_demo(tmp_path) as (live, demo):
            reply = await live.chat(provider, functions=FUNCTIONS)
            return reply, demo.requests[-1].body if demo.requests else b""

    reply, sent = served(main())
    if provider == "xai":
        assert (reply.status, reply.error["param"]) == (400, "functions")
    else:
        assert orjson.loads(sent)["functions"] == FUNCTIONS
