"""gateway.dialects.openai_chat: requests, answers and errors as clients of Chat Completions know them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dialects.openai_chat import DIALECT, Encoder, chunks_of, open_request, write_error, write_response
from gateway.errors import BadUpstreamResponse, InvalidRequest, Truncated
from gateway.sse import EventReader

QUIET = open_request(b'{"model":"m","messages":[],"stream":true}', {})
CURIOUS = open_request(b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}', {})
CHUNK: dict[str, Any] = {"id": "1", "choices": [{"index": 0, "delta": {"content": "h\u00e9\u2028"}}]}
USAGE: dict[str, Any] = {"id": "1", "choices": [], "usage": {"prompt_tokens": 1}}
WHOLE: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 7,
    "model": "m",
    "system_fingerprint": "f",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hello", "refusal": None}, "finish_reason": "stop"},
        {
            "index": 1,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            "finish_reason": "tool_calls",
        },
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


def test_the_record_names_its_path() -> None:
    assert (DIALECT.name, DIALECT.path) == ("openai.chat", "/v1/chat/completions")


def test_messages_must_be_there() -> None:
    with pytest.raises(InvalidRequest) as caught:
        DIALECT.open_request(b'{"model":"m"}', {})
    assert (caught.value.param, caught.value.code) == ("messages", "missing_required_parameter")
    assert list(QUIET.names()) == ["model", "messages", "stream"]


def test_headers_stay_with_the_request() -> None:
    assert open_request(b'{"model":"m","messages":[]}', {"a": "b"}).headers == {"a": "b"}


def test_a_chunk_is_one_event_of_one_line() -> None:
    data = Encoder(QUIET).feed(CHUNK)
    assert EventReader().feed(data) == [orjson.dumps(CHUNK)]


def test_the_usage_chunk_is_for_those_who_asked() -> None:
    assert Encoder(QUIET).feed(USAGE) == b""
    assert orjson.loads(Encoder(CURIOUS).feed(USAGE)[6:]) == USAGE


def test_a_stream_ends_with_done_or_with_an_error() -> None:
    encoder = DIALECT.open_stream(QUIET)
    assert encoder.finish() == b"data: [DONE]\n\n"
    error = Truncated("It broke.")
    assert orjson.loads(encoder.fail(error)[6:]) == error.body() == orjson.loads(write_error(error))


def test_a_whole_answer_is_written_as_it_is() -> None:
    assert orjson.loads(write_response(WHOLE, QUIET)) == WHOLE


def test_a_whole_answer_tells_the_same_as_chunks() -> None:
    chunks = chunks_of(orjson.dumps(WHOLE))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {("chatcmpl-1", 7, "m")}
    first, second, end, other_end, usage = chunks
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": "Hello", "refusal": None}, "finish_reason": None}
    ]
    assert [call["index"] for call in second["choices"][0]["delta"]["tool_calls"]] == [0, 1]
    assert end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert other_end["choices"] == [{"index": 1, "delta": {}, "finish_reason": "tool_calls"}]
    assert (usage["choices"], usage["usage"]) == ([], WHOLE["usage"])


def test_without_usage_there_is_no_usage_chunk() -> None:
    assert all(chunk["choices"] for chunk in chunks_of(orjson.dumps({**WHOLE, "usage": None})))


CHOICE = WHOLE["choices"][0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        orjson.dumps({**WHOLE, "choices": None}),
        orjson.dumps({**WHOLE, "choices": [None]}),
        orjson.dumps({**WHOLE, "choices": ["x"]}),
        orjson.dumps({**WHOLE, "choices": [{**CHOICE, "message": None}]}),
        orjson.dumps({**WHOLE, "choices": [{**CHOICE, "message": "text"}]}),
        orjson.dumps({**WHOLE, "choices": [{**CHOICE, "message": [[1, 2]]}]}),
        orjson.dumps({**WHOLE, "choices": [{**CHOICE, "message": {"tool_calls": 5}}]}),
        orjson.dumps({**WHOLE, "choices": [{**CHOICE, "message": {"tool_calls": [5]}}]}),
        orjson.dumps({**WHOLE, "choices": [{"index": 0, "message": {}}]}),
        orjson.dumps({"choices": []}),
    ],
)
def test_an_unreadable_whole_answer_is_the_providers_fault(body: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        chunks_of(body)
