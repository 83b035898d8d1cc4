"""The providers whose bytes pass through: what clients get of their recorded answers, streams and errors."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import orjson
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.dialects.openai_chat import chunks_of
from gateway.errors import GatewayError, UpstreamError
from gateway.hub import FINISH_REASONS
from gateway.relay import Passthrough
from gateway.sse import EventReader
from tests.contract.native import ALL, ANSWERS, PROVIDERS, STREAMS, asked, mended, mender_of, request
from tests.corpus import body, cases

ERRORS = [
    pytest.param(name, *case.values, id=case.id, marks=case.marks)
    for name in PROVIDERS
    for case in cases(name, kind="error", framing="json")
]


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_a_recorded_stream_is_the_same_however_it_is_cut(name: str, case: dict[str, Any]) -> None:
    data = body(case)
    whole = mended(name, [data], asked(case))
    every = range(1, len(data))
    rng = random.Random(len(data))
    for cuts in [[cut] for cut in every] if len(data) < 1_500 else [sorted(rng.sample(every, 20)) for _ in range(10)]:
        points = [0, *cuts, len(data)]
        assert mended(name, [data[a:b] for a, b in pairwise(points)], asked(case)) == whole


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_a_recorded_stream_runs_through_the_official_accumulator(name: str, case: dict[str, Any]) -> None:
    payloads = mended(name, [body(case)], asked(case))
    state = ChatCompletionStreamState()
    finishes: dict[int, list[str]] = {}
    for payload in payloads:
        if b'"error"' in payload and "error" in orjson.loads(payload):
            pytest.skip("the provider reports an error in this stream")
        chunk = ChatCompletionChunk.model_validate_json(payload)
        assert chunk.object == "chat.completion.chunk"
        list(state.handle_chunk(ChatCompletionChunk.construct(**orjson.loads(payload))) or [])
        for choice in chunk.choices:
            finishes.setdefault(choice.index, []).extend([choice.finish_reason] if choice.finish_reason else [])
    final = state.current_completion_snapshot
    assert final.id
    assert final.model
    for choice in final.choices:
        assert choice.message.role == "assistant"
        assert len(finishes[choice.index]) == 1 or "[DONE]" not in body(case).decode()
        assert_sound_calls([call.model_dump() for call in choice.message.tool_calls or []])


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_a_recorded_streams_usage_comes_last(name: str, case: dict[str, Any]) -> None:
    payloads = [orjson.loads(payload) for payload in mended(name, [body(case)], asked(case))]
    with_usage = [number for number, chunk in enumerate(payloads) if chunk.get("usage")]
    if asked(case).wants_usage:
        assert with_usage == [len(payloads) - 1]
        assert payloads[-1]["choices"] == []
    else:
        assert with_usage in ([], [len(payloads) - 1])


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_mending_loses_no_text_and_no_argument(name: str, case: dict[str, Any]) -> None:
    reader = EventReader()
    raw = [payload for payload in (*reader.feed(body(case)), *reader.finish()) if payload != b"[DONE]"]
    assert said(raw) == said(mended(name, [body(case)], asked(case)))


def said(payloads: list[bytes]) -> tuple[str, str, str]:
    """All content, reasoning and arguments in the order they came."""
    content, reasoning, arguments = "", "", ""
    for payload in payloads:
        for choice in orjson.loads(payload).get("choices", ()):
            delta = choice.get("delta") or {}
            content += delta.get("content") or ""
            reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
            arguments += "".join(
                call.get("function", {}).get("arguments") or "" for call in delta.get("tool_calls") or ()
            )
    return content, reasoning, arguments


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_mending_a_mended_stream_changes_nothing(name: str, case: dict[str, Any]) -> None:
    once = mended(name, [body(case)], asked(case))
    mender = mender_of(name, asked(case))
    again = once if mender is None else [mender.chunk(payload) for payload in once] + mender.finish()
    assert all(new is old for new, old in zip(again, once, strict=True))


@pytest.mark.parametrize(("name", "case"), ANSWERS)
def test_a_recorded_answer_is_what_the_official_types_say(name: str, case: dict[str, Any]) -> None:
    mender = mender_of(name, asked(case))
    data = body(case)
    sound = mender.body(data) if mender else data
    answer = orjson.loads(sound)
    ChatCompletion.model_validate(with_required(answer), strict=False)
    for choice in answer["choices"]:
        assert choice["finish_reason"] in FINISH_REASONS
        assert_sound_calls(choice["message"].get("tool_calls") or [])
    assert (mender.body(sound) if mender else sound) is sound


def with_required(answer: dict[str, Any]) -> dict[str, Any]:
    """Keys that the types ask for and that even OpenAI leaves out are filled in, so that only the shape is judged."""
    choices = [{"logprobs": None, **choice} for choice in answer["choices"]]
    return {**answer, "choices": choices}


def assert_sound_calls(calls: list[dict[str, Any]]) -> None:
    ids = [call["id"] for call in calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    for call in calls:
        assert call["type"] == "function"
        assert call["function"]["name"]
        orjson.loads(call["function"]["arguments"] or "{}")


@pytest.mark.parametrize(("name", "case"), ERRORS)
def test_a_recorded_error_has_a_status_and_shows_no_secret(name: str, case: dict[str, Any]) -> None:
    response = case["response"]
    headers = {key.lower(): value for key, value in response["headers"].items()}
    error = PROVIDERS[name].read_error(response["status"], headers, body(case))
    assert isinstance(error, UpstreamError)
    assert isinstance(error, GatewayError)
    expected = {401: 502, 403: 502, 412: 502}.get(response["status"], response["status"])
    assert error.status == expected
    shown = orjson.dumps(error.body()).decode()
    assert error.message
    assert not any(secret in shown for secret in ("*****", "platform.openai.com", "sk-", "org-"))
    assert {"message", "type", "param", "code"} <= set(error.body()["error"])
    assert error.details["provider"] == name


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "payload", [b"{oops}", b"7", b"[]", b'{"choices":7}', b'{"choices":[7]}', b"{}", b'{"error":{"message":"x"}}']
)
def test_what_is_no_chunk_passes_as_it_is_or_is_left_out(name: str, payload: bytes) -> None:
    mender = mender_of(name, request())
    if mender:
        assert mender.chunk(payload) in (payload, None)
        assert mender.body(payload) == payload or payload == b'{"choices":[7]}'


@pytest.mark.parametrize("case", cases("openai", kind="error", framing="sse"))
def test_a_recorded_error_inside_a_stream_breaks_it_after_what_was_good(case: dict[str, Any]) -> None:
    data = body(case)
    for cut in range(len(data)):
        relay = Passthrough(lambda payload: PROVIDERS["openai"].read_error(200, {}, payload), chunks_of)
        passed = relay.feed(data[:cut]) + relay.feed(data[cut:])
        assert relay.failure is not None
        assert not relay.done
        assert b"Par" in passed
        assert b"error" not in passed


def test_an_error_event_inside_a_stream_has_the_status_it_speaks_of() -> None:
    for provider in PROVIDERS.values():
        read = provider.read_error
        assert read(200, {}, b'{"error":{"message":"overloaded","type":"server_error","code":503}}').status == 503
        assert read(200, {}, b'{"id":"x","choices":[],"error":{"message":"no capacity","code":502}}').status == 502
        assert read(200, {}, b'{"error":{"message":"sorry","type":"server_error"}}').status == 500
