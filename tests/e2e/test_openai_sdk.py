"""The official openai package against every demo model of the shipped gateway.yaml."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from livegateway import SHIPPED, Process, process, shipped
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

HELLO: Any = [{"role": "user", "content": "Hello!"}]


def place(name: str, key: str) -> Any:
    parameters = {"type": "object", "properties": {key: {"type": "string"}}, "required": [key]}
    return {"type": "function", "function": {"name": name, "description": "Looks it up.", "parameters": parameters}}


TOOLS: Any = [place("get_weather", "city"), place("get_time", "zone")]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("sdk"), shipped()) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Process) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


def test_every_provider_of_the_shipped_file_is_tried() -> None:
    content = shipped()
    assert {content["deployments"][model]["provider"] for model in SHIPPED} == set(content["providers"])


@pytest.mark.parametrize("model", SHIPPED)
def test_a_chat_is_answered(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO)
    choice = answer.choices[0]
    assert "Hello!" in (choice.message.content or "")
    assert (choice.finish_reason, choice.message.role, answer.object) == ("stop", "assistant", "chat.completion")
    assert answer.usage is not None
    assert answer.usage.total_tokens >= answer.usage.prompt_tokens + answer.usage.completion_tokens > 1


@pytest.mark.parametrize("model", SHIPPED)
def test_a_stream_tells_the_same_as_the_whole_answer(client: OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=HELLO)
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
    said = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.delta]
    assert "".join(said) == whole.choices[0].message.content
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    # Together and Fireworks report usage beside the last choice; a chunk of its own is never shown unasked.
    assert all(chunk.choices for chunk in chunks if chunk.usage is not None)


@pytest.mark.parametrize("model", SHIPPED)
def test_usage_is_in_the_last_chunk_when_it_is_asked_for(client: OpenAI, model: str) -> None:
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options=options))
    reported = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert len(reported) == 1
    assert chunks[-1].usage is reported[0]
    assert reported[0].prompt_tokens > 0


@pytest.mark.parametrize("model", SHIPPED)
def test_the_stream_helper_accumulates_the_answer(client: OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=HELLO) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert "Hello!" in (final.choices[0].message.content or "")
    assert (final.choices[0].finish_reason, final.choices[0].message.role) == ("stop", "assistant")


def calls_of(client: OpenAI, model: str, streamed: bool) -> Any:
    """The assistant's message with its calls."""
    asked: Any = {"model": model, "messages": HELLO, "tools": TOOLS}
    if not streamed:
        choice = client.chat.completions.create(**asked).choices[0]
    else:
        with client.chat.completions.stream(**asked) as stream:
            choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    return choice.message


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", SHIPPED)
def test_two_tools_are_called_in_parallel_and_their_results_are_read(
    client: OpenAI, model: str, streamed: bool
) -> None:
    message = calls_of(client, model, streamed)
    assert [call.function.name for call in message.tool_calls] == ["get_weather", "get_time"]
    assert [set(json.loads(call.function.arguments)) for call in message.tool_calls] == [{"city"}, {"zone"}]
    assert len({call.id for call in message.tool_calls}) == 2
    sent_back = message.model_dump(exclude_none=True)
    for call in sent_back["tool_calls"]:  # what the helper adds for itself
        call.pop("index", None)
        call["function"].pop("parsed_arguments", None)
    sent_back.pop("parsed", None)
    sent_back.pop("token_id", None)  # Together's own, which the helper has summed up
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"result of {call.function.name}"}
        for call in message.tool_calls
    ]
    second = client.chat.completions.create(model=model, messages=[*HELLO, sent_back, *results], tools=TOOLS)
    assert "result of get_weather; result of get_time" in (second.choices[0].message.content or "")


class Step(BaseModel):
    title: str
    minutes: int


class Recipe(BaseModel):
    name: str
    steps: list[Step]
    vegan: bool


@pytest.mark.parametrize("model", SHIPPED)
def test_an_answer_by_schema_is_parsed(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.parse(model=model, messages=HELLO, response_format=Recipe)
    assert answer.choices[0].message.parsed is not None
    assert answer.choices[0].message.parsed.steps[0].minutes >= 0


@pytest.mark.parametrize("model", SHIPPED)
def test_a_streamed_answer_by_schema_is_parsed(client: OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=HELLO, response_format=Recipe) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Recipe)


def test_the_asynchronous_client_is_served_by_every_model_at_once(gateway: Process) -> None:
    async def one(client: AsyncOpenAI, model: str) -> tuple[str, str]:
        whole = await client.chat.completions.create(model=model, messages=HELLO)
        said = ""
        async for chunk in await client.chat.completions.create(model=model, messages=HELLO, stream=True):
            said += "".join(choice.delta.content or "" for choice in chunk.choices if choice.delta)
        return whole.choices[0].message.content or "", said

    async def main() -> list[tuple[str, str]]:
        async with AsyncOpenAI(base_url=gateway.url, api_key="none", max_retries=0, timeout=20) as client:
            return await asyncio.gather(*(one(client, model) for model in SHIPPED))

    for whole, streamed in asyncio.run(main()):
        assert whole == streamed != ""


ERRORS: list[tuple[str, type[openai.APIStatusError], int, str]] = [
    ("error400", openai.BadRequestError, 400, "invalid_value"),
    ("context", openai.BadRequestError, 400, "context_length_exceeded"),
    ("missing", openai.NotFoundError, 404, "model_not_found"),
    ("nobody-knows-it", openai.NotFoundError, 404, "model_not_found"),
    ("overloaded", openai.RateLimitError, 429, "rate_limit_exceeded"),
    ("fail", openai.InternalServerError, 500, "upstream_error"),
    ("badgateway", openai.InternalServerError, 502, "upstream_error"),
    ("busy", openai.InternalServerError, 503, "overloaded"),
    ("auth", openai.InternalServerError, 502, "upstream_auth_error"),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("model", "kind", "status", "code"), ERRORS, ids=[row[0] for row in ERRORS])
def test_each_failure_is_its_own_class_of_error(
    client: OpenAI, model: str, kind: type[openai.APIStatusError], status: int, code: str, streamed: bool
) -> None:
    with pytest.raises(kind) as raised:
        client.chat.completions.create(model=model, messages=HELLO, stream=streamed)
    assert type(raised.value) is kind
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert raised.value.request_id


def test_an_error_names_the_parameter_it_is_about(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="claude", messages=HELLO, n=2)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "n")
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="error400", messages=HELLO)
    assert raised.value.param == "messages"


def test_a_stream_that_breaks_raises_in_the_middle(client: OpenAI) -> None:
    said = ""
    with pytest.raises(openai.APIError, match="had an error"):
        for chunk in client.chat.completions.create(model="midstream", messages=HELLO, stream=True):
            said += chunk.choices[0].delta.content or ""
    assert said


def test_a_wrong_key_is_an_authentication_error(tmp_path: Path) -> None:
    content = shipped()
    content["keys"] = {"team": {"hash": "sha256:" + "ab" * 32}}
    with process(tmp_path, content) as running:
        wrong = OpenAI(base_url=running.url, api_key="sk-wrong", max_retries=0)
        with wrong as client, pytest.raises(openai.AuthenticationError) as raised:
            client.chat.completions.create(model="gpt", messages=HELLO)
    assert (raised.value.status_code, raised.value.code) == (401, "invalid_api_key")


def test_the_models_are_listed(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert set(SHIPPED) < set(names)
    assert client.models.retrieve("claude").id == "claude"
