"""Every recorded answer of Gemini, whole and streamed, cut anywhere, against OpenAI's schema and own client."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.errors import Truncated
from plugins.google import PROVIDER
from tests import corpus
from tests.plugins.google.samples import STAMP, accumulated, answered, chat, decoded, target

# What we add to OpenAI's shapes, each named in the documentation.
EXTENSIONS = ("native_finish_reason", "native_finish_message", "extra_content", "reasoning_content", "images")

WHOLE = corpus.cases("gemini", kind="chat", endpoint="generateContent")
STREAMS = corpus.cases("gemini", kind="stream")
ERRORS = corpus.cases("gemini", kind="error")


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without(item) for name, item in value.items() if name not in EXTENSIONS}
    return [without(item) for item in value] if isinstance(value, list) else value


def validate(value: Any, definition: str) -> None:
    definitions = corpus.schema("chat-strict")["$defs"]
    validator = Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": definitions})
    assert not [error.message for error in validator.iter_errors(value)]


def events(case: Any) -> list[bytes]:
    """The stream's bytes cut behind each event."""
    raw = corpus.body(case)
    end = b"\r\n\r\n" if b"\r\n\r\n" in raw else b"\n\n"
    if raw.startswith(b"["):
        pieces = raw.split(b"\n,\n")
        return [piece + (b"\n,\n" if place < len(pieces) - 1 else b"") for place, piece in enumerate(pieces)]
    return [piece + end for piece in raw.split(end) if piece.strip()]


def native(case: Any) -> list[dict[str, Any]]:
    """The answers of a case, read by another parser."""
    raw = corpus.body(case).decode()
    if raw.lstrip().startswith(("[", "{")):
        found = json.loads(raw)
        return found if isinstance(found, list) else [found]
    return [json.loads(line[5:]) for line in raw.splitlines() if line.startswith("data:")]


def counted(case: Any) -> int:
    return int([answer for answer in native(case) if "usageMetadata" in answer][-1]["usageMetadata"]["totalTokenCount"])


@pytest.mark.parametrize("case", WHOLE)
def test_every_recorded_answer_becomes_a_strict_completion(case: Any) -> None:
    completion = answered(corpus.body(case))
    annotated = [choice["message"].pop("annotations", []) for choice in completion["choices"]]
    validate(without(completion), "CreateChatCompletionResponse")
    for annotation in (one for found in annotated for one in found):
        assert annotation["url_citation"]["start_index"] <= annotation["url_citation"]["end_index"]
    assert completion["usage"]["total_tokens"] == counted(case)


@pytest.mark.parametrize("case", WHOLE)
def test_no_text_of_a_recorded_answer_is_lost(case: Any) -> None:
    message = answered(corpus.body(case))["choices"][0]["message"]
    for part in (native(case)[0]["candidates"][0].get("content") or {}).get("parts", ()):
        if "functionCall" in part:
            assert part["functionCall"]["name"] in {call["function"]["name"] for call in message["tool_calls"]}
        elif "text" in part:
            assert part["text"] in (message.get("reasoning_content", "") if part.get("thought") else message["content"])


@pytest.mark.parametrize("case", STREAMS)
def test_every_recorded_stream_becomes_strict_chunks(case: Any) -> None:
    chunks = decoded([corpus.body(case)])
    for chunk in chunks:
        shown = json.loads(json.dumps(without(chunk)))
        for choice in shown["choices"]:
            choice["delta"].pop("annotations", None)
        validate(shown, "CreateChatCompletionStreamResponse")
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks}) == 1
    assert [choice["delta"].get("role") for choice in chunks[0]["choices"]] == ["assistant"]
    assert chunks[-1]["usage"]["total_tokens"] == counted(case)
    assert sum(choice["finish_reason"] is not None for chunk in chunks for choice in chunk["choices"]) == 1


@pytest.mark.parametrize("case", STREAMS)
def test_any_cut_of_a_recorded_stream_gives_the_same_chunks(case: Any) -> None:
    raw = corpus.body(case)
    whole = decoded([raw])
    cuts = range(1, len(raw)) if len(raw) < 1_000 else random.Random(7).sample(range(1, len(raw)), 200)
    for cut in cuts:
        assert decoded([raw[:cut], raw[cut:]]) == whole
    assert decoded(raw[place : place + 1] for place in range(len(raw))) == whole


@pytest.mark.parametrize("case", STREAMS)
def test_no_shortened_recorded_stream_looks_complete(case: Any) -> None:
    pieces = events(case)
    last = next(place for place, piece in enumerate(pieces) if b"finishReason" in piece)
    for end in range(last + 1):
        with pytest.raises(Truncated):
            decoded(pieces[:end])
        half = pieces[end][: len(pieces[end]) // 2]
        with pytest.raises(Truncated):
            decoded([*pieces[:end], half])


@pytest.mark.parametrize("case", STREAMS)
def test_openais_client_puts_together_what_the_whole_answer_says(case: Any) -> None:
    found = accumulated(decoded([corpus.body(case)]))["choices"][0]
    parts: list[Any] = []
    for answer in native(case):
        parts += (answer["candidates"][0].get("content") or {}).get("parts", [])
    last = next(answer for answer in reversed(native(case)) if "finishReason" in answer["candidates"][0])
    whole = {**last, "candidates": [{**last["candidates"][0], "content": {"parts": parts}}]}
    expected = answered(whole)["choices"][0]
    message = found["message"]
    assert (message["content"] or None) == expected["message"]["content"]
    assert message.get("reasoning_content") == expected["message"].get("reasoning_content")
    assert message.get("extra_content") == expected["message"].get("extra_content")
    assert found["finish_reason"] == expected["finish_reason"]
    calls = [{name: call[name] for name in call if name != "index"} for call in message.get("tool_calls") or ()]
    for call in calls:
        call["function"].pop("parsed_arguments", None)
    assert calls == expected["message"].get("tool_calls", [])


@pytest.mark.parametrize("case", ERRORS)
def test_every_recorded_error_is_told_from_a_fault_of_the_client(case: Any) -> None:
    status = case["response"]["status"]
    error = PROVIDER.read_error(status, {}, corpus.body(case))
    body = error.body()
    validate({"error": {name: body["error"][name] for name in ("message", "type", "param", "code")}}, "ErrorResponse")
    assert error.cause == {400: "auth", 403: "auth", 404: "request", 429: "429", 503: "5xx"}[status]
    assert "AIza" not in str(body)


@pytest.mark.parametrize("case", ERRORS)
def test_a_recorded_error_inside_a_200_stream_is_a_failure(case: Any) -> None:
    assert PROVIDER.chat is not None
    raw = corpus.body(case)
    for cut in range(0, len(raw), 97):
        stream = PROVIDER.chat.open_stream(chat(), target(), STAMP)
        assert stream.feed(raw[:cut]) + stream.feed(raw[cut:]) + stream.finish() == []
        assert stream.failure is not None
        assert not stream.done
