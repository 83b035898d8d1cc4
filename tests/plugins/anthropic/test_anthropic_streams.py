"""Streams of Claude as the hub's, in the cases that no recording holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadUpstreamResponse, Truncated
from tests.plugins.anthropic.anthropic_support import accumulated, answer, decoded, events, opened, plain, streamed
from tests.plugins.anthropic.natives import TEXT, THOUGHT, TOOLS, message, strict, use


@pytest.mark.parametrize(
    "native",
    [
        message(TEXT),
        message(),
        message(TEXT, use("toolu_1", "f", a="é"), use("toolu_2", "g"), stop="tool_use"),
        message(THOUGHT, use("toolu_1", "f", a=[1, {"b": None}]), stop="tool_use"),
        message({"type": "redacted_thinking", "data": "xx"}, THOUGHT, TEXT),
        message(TEXT, stop="refusal", stop_details={"type": "refusal", "category": "cyber", "explanation": "No."}),
        message(TEXT, stop="refusal"),
        message(TEXT, stop="pause_turn"),
        message(TEXT, stop="some_new_reason"),
        message(
            {**TEXT, "citations": [{"type": "web_search_result_location", "url": "https://a.example", "title": "A"}]}
        ),
    ],
)
def test_a_stream_adds_up_to_the_whole_answer(native):
    whole_answer = answer(native, tools=TOOLS)
    strict("CreateChatCompletionResponse", whole_answer)
    data = streamed(native)
    chunks = decoded([data], tools=TOOLS)
    assert plain(accumulated(chunks)) == plain(whole_answer)
    assert decoded([data[at : at + 1] for at in range(len(data))], tools=TOOLS) == chunks


@given(st.text(max_size=40), st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_arguments_arrive_exactly_wherever_they_are_split_peer_bug_3(text, arguments, piece):
    native = message({"type": "text", "text": text}, use("toolu_1", "f", k=arguments), stop="tool_use")
    found = plain(accumulated(decoded([streamed(native, piece)], tools=TOOLS)))
    assert found["calls"][0]["function"]["arguments"] == {"k": arguments}
    assert found["content"] == text


def test_tool_indices_are_dense_although_text_comes_first_peer_bug_1():
    native = message(TEXT, use("toolu_1", "f"), TEXT, use("toolu_2", "g"), stop="tool_use")
    chunks = decoded([streamed(native)], tools=TOOLS)
    deltas = [c["delta"]["tool_calls"][0] for chunk in chunks for c in chunk["choices"] if "tool_calls" in c["delta"]]
    assert [(delta["index"], delta.get("id")) for delta in deltas if "id" in delta] == [(0, "toolu_1"), (1, "toolu_2")]


def test_an_input_that_came_with_its_start_is_not_lost():
    start = {"type": "content_block_start", "index": 0, "content_block": use("toolu_1", "f", a=1)}
    data = events(
        {"type": "message_start", "message": message(stop="")},
        start,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    )
    assert plain(accumulated(decoded([data])))["calls"][0]["function"] == {"name": "f", "arguments": {"a": 1}}


def test_a_message_that_starts_with_content_loses_none_of_it():
    cited = {**TEXT, "citations": [{"url": "https://a.example", "title": "A"}]}
    data = events(
        {"type": "message_start", "message": message(cited)},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )
    found = plain(accumulated(decoded([data])))
    assert found["content"] == "Hello there"
    assert found["annotations"][0]["url_citation"]["end_index"] == len("Hello there")


def test_events_in_another_form_are_read_all_the_same():
    data = streamed(message(TEXT))
    for other in (
        data.replace(b"\n", b"\r\n"),
        re.sub(rb"event: \w+\n", b"", data),
        data.replace(b"data: ", b"data: \ndata: "),
    ):
        assert decoded([other]) == decoded([data])


def test_usage_of_a_stream_is_overwritten_and_null_says_nothing():
    start = message(usage={"input_tokens": 25, "cache_read_input_tokens": 7, "output_tokens": 1})
    data = events(
        {"type": "message_start", "message": start},
        {"type": "message_delta", "delta": {}, "usage": {"input_tokens": None, "output_tokens": 5}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 8}},
        {"type": "message_stop"},
    )
    usage = decoded([data])[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (32, 8)


@pytest.mark.parametrize(
    "data",
    [b"data: {broken\n\n", b"data: []\n\n", b"data: {}\n\n", b'data: {"type":"message_start","message":null}\n\n'],
)
def test_an_event_that_cannot_be_read_fails_the_stream(data):
    stream = opened()
    assert stream.feed(data) == []
    assert isinstance(stream.failure, BadUpstreamResponse)


def test_an_endless_event_fails_the_stream():
    stream = opened()
    for _ in range(20):
        stream.feed(b"data: " + b"x" * 1024 * 1024)
    assert isinstance(stream.failure, BadUpstreamResponse)


def test_events_that_are_new_or_pings_are_passed_over_and_nothing_follows_the_end():
    data = streamed(message(TEXT))
    news = events(
        {"type": "ping"}, {"type": "of_2027"}, {"type": "content_block_delta", "index": 0, "delta": {"type": "x"}}
    )
    stream = opened()
    chunks = stream.feed(data + news + data)
    assert chunks == decoded([data])
    assert stream.feed(data) == []
    assert stream.finish() == []


@pytest.mark.parametrize("end", [b'data: {"type":"mess', b"data: ", b"event: message_stop\n"])
def test_a_stream_cut_inside_its_last_event_is_truncated(end):
    data = streamed(message(TEXT))
    stream = opened()
    stream.feed(data[: data.rindex(b"event:")] + end)
    with pytest.raises(Truncated):
        stream.finish()
    assert stream.failure is None


def test_an_error_in_a_last_event_without_blank_line_is_told():
    stream = opened()
    stream.feed(b'data: {"type":"error","error":{"type":"api_error","message":"x"}}')
    assert stream.finish() == []
    assert stream.failure is not None


def test_thinking_that_came_with_its_start_is_not_lost_and_a_stray_signature_does_no_harm():
    signature = {"type": "content_block_delta", "index": 5, "delta": {"type": "signature_delta", "signature": "x"}}
    data = events(
        {"type": "message_start", "message": message()},
        {"type": "content_block_start", "index": 0, "content_block": THOUGHT},
        signature,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    )
    found = plain(accumulated(decoded([data])))
    assert found["reasoning"] == THOUGHT["thinking"]
    assert found["thinking_blocks"] == [THOUGHT]
