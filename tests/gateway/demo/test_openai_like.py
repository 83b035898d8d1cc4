"""gateway.demo.openai_like, judged by the official SDK and by what the providers were seen to send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import openai
import pydantic
import pytest
from upstreams import demo

from gateway.demo import Demo

Run = Callable[[Any], Any]
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("weather", "time", "news")
]
PROVIDERS = ("openai", "azure", "together", "fireworks", "xai", "generic")


class City(pydantic.BaseModel):
    """A structured answer."""

    name: str
    people: int


def client(upstream: Demo, provider: str = "openai") -> openai.AsyncOpenAI:
    tail = "/openai/v1" if provider == "azure" else ""
    return openai.AsyncOpenAI(base_url=upstream.url(provider) + tail, api_key="k", max_retries=0)


async def raw(upstream: Demo, provider: str, body: Any, path: str = "/chat/completions") -> tuple[int, Any, str]:
    tail = "/openai/v1" if provider == "azure" else ""
    async with (
        aiohttp.ClientSession() as session,
        session.post(upstream.url(provider) + tail + path, json=body) as response,
    ):
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, await response.text()


def events(text: str) -> list[Any]:
    """The payloads of a stream that must end with [DONE]."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def streamed(provider: str, **body: Any) -> list[Any]:
    async with demo() as upstream:
        status, _, text = await raw(upstream, provider, {"model": "m", "messages": HELLO, "stream": True, **body})
        assert status == 200, text
        return events(text)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_whole_answer_echoes_the_user(run: Run, provider: str) -> None:
    async def main() -> Any:
        async with demo() as upstream, client(upstream, provider) as sdk:
            return await sdk.chat.completions.create(model="m", messages=HELLO)

    answer = run(main())
    assert "Hello there" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == ("eos" if provider == "together" else "stop")
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_says_what_the_whole_answer_says(run: Run, provider: str) -> None:
    async def main() -> tuple[str, str]:
        async with demo() as upstream, client(upstream, provider) as sdk:
            whole = await sdk.chat.completions.create(model="m", messages=HELLO)
            stream = await sdk.chat.completions.create(model="m", messages=HELLO, stream=True)
            parts = [chunk.choices[0].delta async for chunk in stream if chunk.choices]
            # The verdict of Azure's filter has no delta.
            said = [part.content or "" for part in parts if part is not None]
            assert len(said) > 3
            return whole.choices[0].message.content or "", "".join(said)

    whole, said = run(main())
    assert said == whole


def test_the_synchronous_client_works_too(run: Run) -> None:
    def ask(base_url: str) -> Any:
        with openai.OpenAI(base_url=base_url, api_key="k") as sdk:
            return sdk.chat.completions.create(model="m", messages=HELLO)

    async def main() -> Any:
        async with demo() as upstream:
            return await asyncio.to_thread(ask, upstream.url("openai"))

    assert run(main()).choices[0].message.content


@pytest.mark.parametrize("provider", PROVIDERS)
def test_two_tools_are_called_and_their_results_used(run: Run, provider: str) -> None:
    async def main() -> tuple[Any, Any]:
        async with demo() as upstream, client(upstream, provider) as sdk:
            first = await sdk.chat.completions.create(model="m", messages=HELLO, tools=TOOLS)
            message = first.choices[0].message
            assert message.tool_calls
            results = [
                {"role": "tool", "tool_call_id": call.id, "content": f"result {at}"}
                for at, call in enumerate(message.tool_calls)
            ]
            turns: list[Any] = [*HELLO, message.model_dump(exclude_none=True), *results]
            return first, await sdk.chat.completions.create(model="m", messages=turns, tools=TOOLS)

    first, second = run(main())
    calls = first.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["weather", "time"]
    assert isinstance(json.loads(calls[0].function.arguments)["city"], str)
    assert "result 0" in second.choices[0].message.content
    assert "result 1" in second.choices[0].message.content


def test_the_stream_helper_accumulates_tool_calls(run: Run) -> None:
    async def main() -> Any:
        async with (
            demo() as upstream,
            client(upstream) as sdk,
            sdk.chat.completions.stream(model="m", messages=HELLO, tools=TOOLS, n=2) as stream,
        ):
            return await stream.get_final_completion()

    answer = run(main())
    assert len(answer.choices) == 2
    for choice in answer.choices:
        assert [call.function.name for call in choice.message.tool_calls] == ["weather", "time"]
        assert json.loads(choice.message.tool_calls[1].function.arguments) == {"city": "Hello there"}


def test_a_named_tool_is_called_and_none_forbids(run: Run) -> None:
    async def main() -> tuple[Any, Any]:
        async with demo() as upstream, client(upstream) as sdk:
            named: Any = {"type": "function", "function": {"name": "news"}}
            forced = await sdk.chat.completions.create(model="m", messages=HELLO, tools=TOOLS, tool_choice=named)
            return forced, await sdk.chat.completions.create(model="m", messages=HELLO, tools=TOOLS, tool_choice="none")

    forced, none = run(main())
    assert [call.function.name for call in forced.choices[0].message.tool_calls] == ["news"]
    assert none.choices[0].message.tool_calls is None


def test_a_structured_answer_parses(run: Run) -> None:
    async def main() -> Any:
        async with demo() as upstream, client(upstream) as sdk:
            return await sdk.chat.completions.parse(model="m", messages=HELLO, response_format=City)

    assert isinstance(run(main()).choices[0].message.parsed, City)


def test_stop_and_max_tokens_are_honoured(run: Run) -> None:
    async def main() -> tuple[Any, Any]:
        async with demo() as upstream, client(upstream) as sdk:
            stopped = await sdk.chat.completions.create(model="m", messages=HELLO, stop=["This is"])
            return stopped, await sdk.chat.completions.create(model="m", messages=HELLO, max_completion_tokens=3)

    stopped, short = run(main())
    assert stopped.choices[0].finish_reason == "stop"
    assert "This is" not in stopped.choices[0].message.content
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 3


def test_logprobs_come_when_asked_for(run: Run) -> None:
    async def main() -> Any:
        async with demo() as upstream, client(upstream) as sdk:
            return await sdk.chat.completions.create(model="m", messages=HELLO, logprobs=True, top_logprobs=2)

    choice = run(main()).choices[0]
    assert "".join(each.token for each in choice.logprobs.content) == choice.message.content
    assert len(choice.logprobs.content[0].top_logprobs) == 2


def test_together_writes_logprobs_its_own_way(run: Run) -> None:
    async def main() -> tuple[int, Any, str]:
        async with demo() as upstream:
            return await raw(upstream, "together", {"model": "m", "messages": HELLO, "logprobs": 1})

    choice = json.loads(run(main())[2])["choices"][0]
    assert "".join(choice["logprobs"]["tokens"]) == choice["message"]["content"]
    assert all(each["choices"][0]["logprobs"] == -0.1 for each in run(streamed("together", logprobs=1))[:-1])


def test_reasoning_text_comes_where_the_provider_shows_it(run: Run) -> None:
    async def main() -> list[bool]:
        async with demo() as upstream:
            seen = []
            for provider, key in (
                ("openai", "reasoning_content"),
                ("xai", "reasoning_content"),
                ("together", "reasoning"),
            ):
                body = {"model": "m", "messages": HELLO, "reasoning_effort": "low"}
                message = json.loads((await raw(upstream, provider, body))[2])["choices"][0]["message"]
                seen.append(key in message)
            return seen

    assert run(main()) == [False, True, True]


def test_allowed_tools_and_json_objects_are_understood(run: Run) -> None:
    choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}

    async def main() -> tuple[Any, Any]:
        async with demo() as upstream, client(upstream) as sdk:
            called = await sdk.chat.completions.create(model="m", messages=HELLO, tools=TOOLS, tool_choice=choice)
            written = await sdk.chat.completions.create(
                model="m", messages=HELLO, response_format={"type": "json_object"}
            )
            return called, written

    called, written = run(main())
    assert called.choices[0].finish_reason == "tool_calls"
    assert json.loads(written.choices[0].message.content) == {"answer": "Hello there"}


def test_usage_comes_only_when_asked_for(run: Run) -> None:
    without, asked = run(streamed("openai")), run(streamed("openai", stream_options={"include_usage": True}))
    assert not any("usage" in each for each in without)
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["total_tokens"] > 0


def test_azure_opens_and_closes_with_its_filter(run: Run) -> None:
    chunks = run(streamed("azure"))
    assert chunks[0]["choices"] == []
    assert chunks[0]["object"] == ""
    assert "prompt_filter_results" in chunks[0]
    assert "delta" not in chunks[-1]["choices"][0]


def test_azure_needs_an_api_version_for_a_deployment(run: Run) -> None:
    async def main() -> tuple[int, int]:
        async with demo() as upstream:
            path = upstream.url("azure") + "/openai/deployments/my%2Ddemo/chat/completions"
            async with aiohttp.ClientSession() as session:
                async with session.post(path, json={"messages": HELLO}) as without:
                    pass
                async with session.post(path + "?api-version=2024-10-21", json={"messages": HELLO}) as right:
                    assert (await right.json())["model"] == "my-demo"
            return without.status, right.status

    assert run(main()) == (404, 200)


def test_together_says_the_role_everywhere_and_ends_with_eos(run: Run) -> None:
    chunks = run(streamed("together"))
    assert all(each["choices"][0]["delta"]["role"] == "assistant" for each in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "eos"
    assert chunks[-1]["usage"]["cached_tokens"] == 0


def test_fireworks_sends_the_id_first_and_again(run: Run) -> None:
    chunks = run(streamed("fireworks", tools=TOOLS[:1]))
    deltas = [call for each in chunks for call in each["choices"][0]["delta"].get("tool_calls", ())]
    assert "function" not in deltas[0]
    assert len({call["id"] for call in deltas}) == 1
    assert len(deltas) == 4


def test_xai_leaves_out_finish_reasons_and_reasoning(run: Run) -> None:
    chunks = run(streamed("xai", tools=TOOLS, reasoning_effort="low", stream_options={"include_usage": True}))
    *deltas, end, usage = chunks
    assert not any("finish_reason" in each["choices"][0] for each in deltas)
    assert end["choices"][0]["finish_reason"] == ""
    figures = usage["usage"]
    thought = figures["completion_tokens_details"]["reasoning_tokens"]
    assert thought > 0
    assert figures["total_tokens"] == figures["prompt_tokens"] + figures["completion_tokens"] + thought


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("openai", {"top_k": 3}, "top_k"),
    ("openai", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("openai", {"tool_choice": "auto"}, "tools"),
    ("openai", {"messages": []}, "messages"),
    ("openai", {"messages": [{"role": "robot", "content": "x"}]}, "role"),
    (
        "openai",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}]},
        "messages.0.content.0.y",
    ),
    ("openai", {"messages": [*HELLO, {"role": "tool", "tool_call_id": "c", "content": "x"}]}, "tool_calls"),
    ("openai", {"model": "gpt-5", "max_tokens": 3}, "max_completion_tokens"),
    ("openai", {"model": "o3", "temperature": 0.5}, "temperature"),
    ("openai", {"n": 0}, "n"),
    ("azure", {"web_search_options": {}}, "web_search_options"),
    ("together", {"stop": "x"}, "stop"),
    ("together", {"max_completion_tokens": 3}, "max_completion_tokens"),
    ("together", {"messages": [{"role": "developer", "content": "x"}]}, "developer"),
    ("fireworks", {"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens"),
    ("fireworks", {"store": True}, "field: 'store'"),
    ("xai", {"logit_bias": {}}, "logit_bias"),
    ("xai", {"model": "grok-4", "stop": ["x"]}, "stop"),
    ("xai", {"messages": [{"role": "user", "content": "x", "name": "n"}]}, "name"),
]


@pytest.mark.parametrize(("provider", "change", "named"), REFUSALS)
def test_a_wrong_body_is_refused(run: Run, provider: str, change: dict[str, Any], named: str) -> None:
    async def main() -> tuple[int, Any, str]:
        async with demo() as upstream:
            return await raw(upstream, provider, {"model": "m", "messages": HELLO, **change})

    status, _, text = run(main())
    assert status == 400
    assert named in text


def test_an_unanswered_call_is_refused(run: Run) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}, *HELLO]

    async def main() -> tuple[int, Any, str]:
        async with demo() as upstream:
            return await raw(upstream, "openai", {"model": "m", "messages": turns})

    status, _, text = run(main())
    assert status == 400
    assert "c1" in text


def test_unknown_fields_reach_the_others(run: Run) -> None:
    for provider in ("together", "fireworks", "xai", "generic"):
        assert run(streamed(provider, top_k=3))


SHAPES: list[tuple[str, str, int, Any]] = [
    ("openai", "demo-fail", 500, lambda body: body["error"]["type"] == "server_error"),
    ("openai", "demo-overloaded", 429, lambda body: body["error"]["code"] == "rate_limit_exceeded"),
    ("openai", "demo-auth", 401, lambda body: body["error"]["code"] == "invalid_api_key"),
    ("openai", "demo-context", 400, lambda body: body["error"]["code"] == "context_length_exceeded"),
    ("azure", "demo-overloaded", 429, lambda body: body["error"]["code"] == "429"),
    ("azure", "demo-missing", 404, lambda body: body["error"]["code"] == "DeploymentNotFound"),
    ("together", "demo-overloaded", 429, lambda body: body["error"]["type"] == "credit_limit"),
    ("fireworks", "demo-error400", 400, lambda body: body["error"]["object"] == "error"),
    ("fireworks", "demo-overloaded", 429, lambda body: isinstance(body["error"], str)),
    ("xai", "demo-forbidden", 403, lambda body: isinstance(body["error"], str) and " " in body["code"]),
]


@pytest.mark.parametrize(("provider", "model", "status", "holds"), SHAPES)
def test_errors_have_the_providers_own_shape(run: Run, provider: str, model: str, status: int, holds: Any) -> None:
    async def main() -> tuple[int, Any, str]:
        async with demo() as upstream:
            return await raw(upstream, provider, {"model": model, "messages": HELLO, "stream": True})

    got, headers, text = run(main())
    assert got == status
    assert holds(json.loads(text))
    assert ("retry-after" in headers) == (status == 429 and provider != "xai")


def test_the_models_are_listed(run: Run) -> None:
    async def main() -> list[str]:
        async with demo() as upstream, client(upstream) as sdk:
            assert (await sdk.models.retrieve("demo-model")).id == "demo-model"
            return [model.id async for model in await sdk.models.list()]

    assert "demo-model" in run(main())
