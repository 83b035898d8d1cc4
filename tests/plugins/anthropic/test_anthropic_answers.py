"""Whole answers and streams of Claude as the hub's: recorded traffic and the cases that it lacks."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError
from plugins.anthropic import PROVIDER
from tests import corpus
from tests.plugins.anthropic.anthropic_support import (
    SHARED,
    STAMP,
    accumulated,
    answer,
    chat,
    decoded,
    events,
    opened,
    plain,
    streamed,
    target,
)

USAGE = {"input_tokens": 10, "output_tokens": 20}
TEXT = {"type": "text", "text": "Hello there"}
THOUGHT = {"type": "thinking", "thinking": "Let me see", "signature": "EqQB+/=="}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


def message(*content: dict[str, Any], stop: str = "end_turn", **values: Any) -> dict[str, Any]:
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_sequence": None}
    return {**base, "content": list(content), "stop_reason": stop, "usage": USAGE, **values}


def use(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def strict(kind: str, value: dict[str, Any], *extensions: str) -> None:
    """Assert the published shape, the hub's documented extensions aside."""
    document = corpus.schema("chat-strict")
    found = json.loads(json.dumps(value))
    for choice in found["choices"]:
        for name in ("native_finish_reason", "refusal_category"):
            choice.pop(name, None)
        for part in (choice.get("message"), choice.get("delta")):
            for name in ("reasoning_content", "thinking_blocks", *extensions):
                if part is not None:
                    part.pop(name, None)
    validator = Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": document["$defs"]})
    assert [error.message for error in validator.iter_errors(found)] == []


def native_sum(usage: dict[str, Any]) -> tuple[int, int]:
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage.get(name) or 0 for name in names), usage.get("output_tokens") or 0


# Recorded answers, those of Claude on Azure included: the same bytes from another host

ANSWERS = corpus.cases("anthropic", kind="chat") + corpus.cases("azure", kind="chat", endpoint="messages")
STREAMS = corpus.cases("anthropic", kind="stream") + corpus.cases("azure", kind="stream", endpoint="messages")


@pytest.mark.parametrize("case", ANSWERS)
def test_a_recorded_answer_becomes_a_strict_completion(case):
    native = json.loads(corpus.body(case))
    found = answer(native)
    strict("CreateChatCompletionResponse", found)
    usage = found["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == native_sum(native["usage"])
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    made = found["choices"][0]["message"]
    wanted = [block["id"] for block in native["content"] if block["type"] == "tool_use"]
    assert [call["id"] for call in made.get("tool_calls", ())] == wanted
    texts = "".join(block["text"] for block in native["content"] if block["type"] == "text")
    assert made["content"] == (texts or (None if wanted else ""))


@pytest.mark.parametrize("case", STREAMS)
def test_a_recorded_stream_is_accepted_by_the_official_accumulator(case):
    data = corpus.body(case)
    chunks = decoded([data])
    for chunk in chunks:
        strict("CreateChatCompletionStreamResponse", chunk, "annotations")
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert sum("role" in c["delta"] for chunk in chunks for c in chunk["choices"]) == 1
    finishes = [c for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert [choice["delta"] for choice in finishes] == [{}]
    assert chunks[-1]["choices"] == []
    if "incomplete-partial-json" in case["id"]:  # max_tokens cut its arguments short: there is no whole form
        assert finishes[0]["finish_reason"] == "length"
    else:
        assert plain(accumulated(chunks)) == plain(answer(whole(data)))


@pytest.mark.parametrize("case", STREAMS)
def test_a_recorded_stream_is_the_same_however_it_is_cut_peer_bug_36(case):
    data = corpus.body(case)
    once = decoded([data])
    dice = random.Random(7)
    cuts = range(1, len(data)) if len(data) < 1500 else sorted(dice.sample(range(1, len(data)), 60))
    for cut in cuts:
        assert decoded([data[:cut], data[cut:]]) == once
    places = [0, *sorted(dice.sample(range(1, len(data)), min(200, len(data) - 1))), len(data)]
    assert decoded([data[a:b] for a, b in itertools.pairwise(places)]) == once


@pytest.mark.parametrize("case", STREAMS)
def test_no_recorded_stream_cut_at_an_event_looks_complete_peer_bug_32(case):
    data = corpus.body(case)
    ends = [found.end() for found in re.finditer(rb"\r?\n\r?\n", data)]
    for end in [0, *(end for end in ends if data[end:].strip())]:
        stream = opened()
        chunks = stream.feed(data[:end])
        assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
        with pytest.raises(Truncated):
            stream.finish()


@pytest.mark.parametrize("case", corpus.cases("anthropic", kind="error", framing="json"))
def test_a_recorded_refusal_keeps_its_meaning_and_hides_our_key(case):
    response = case["response"]
    error = PROVIDER.read_error(response["status"], response.get("headers") or {}, corpus.body(case))
    status = {401: 502, 529: 503}.get(response["status"], response["status"])
    assert error.status == status
    if response["status"] == 401:
        assert (error.code, error.cause) == ("upstream_auth_error", "auth")
        assert "x-api-key" not in error.message
    else:
        assert error.message == response["body"]["error"]["message"]


@pytest.mark.parametrize("case", corpus.cases("anthropic", kind="error", framing="sse"))
def test_an_error_event_fails_the_stream_peer_bug_34(case):
    stream = opened()
    chunks = stream.feed(corpus.body(case))
    assert stream.failure is not None
    assert (stream.failure.status, stream.failure.code) == (503, "overloaded")
    assert not stream.done
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    assert stream.feed(b"data: {}\n\n") == []
    assert stream.finish() == []


def whole(data: bytes) -> dict[str, Any]:
    """The message that a stream amounts to, put together independently of the decoder."""
    found: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for event in (json.loads(line[5:]) for line in data.decode().splitlines() if line.startswith("data:")):
        kind = event["type"]
        if kind == "message_start":
            found = event["message"]
        elif kind == "content_block_start":
            found["content"].append({**event["content_block"]})
        elif kind == "content_block_delta":
            delta = event["delta"]
            inputs[event["index"]] = inputs.get(event["index"], "") + delta.get("partial_json", "")
            extend(found["content"][event["index"]], delta)
        elif kind == "message_delta":
            found |= event["delta"]
            found["usage"] = found["usage"] | {k: v for k, v in event["usage"].items() if v is not None}
    for index, text in inputs.items():
        if text:
            found["content"][index]["input"] = json.loads(text)
    return found


def extend(block: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in ("text", "thinking", "signature"):
        if name in delta:
            block[name] = (block.get(name) or "") + delta[name]
    if "citation" in delta:
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]


# Goldens


@pytest.mark.skipif(not SHARED.is_dir(), reason="the specification is not beside the project")
def test_the_golden_stream_gives_the_golden_chunks():
    section = (SHARED / "providers" / "anthropic.md").read_text().split("## 10. Streaming")[1]
    golden = (SHARED / "providers" / "goldens.md").read_text().split("### 2.1 Anthropic")[1].split("### 2.2")[0]
    data = re.findall(r"```\n(.*?)```", section, re.S)[0].strip().encode() + b"\n\n"
    chunks = decoded([data])
    rows = re.findall(r"^\| \d \| `(.*?)` \| (\w+) \|$", golden, re.M)
    assert len(rows) == 9
    for chunk, (delta, finish) in zip(chunks, rows, strict=False):
        reason = None if finish == "null" else finish
        assert chunk["choices"] == [{"index": 0, "delta": json.loads(delta), "finish_reason": reason}]
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["id"], chunk["created"], chunk["model"]) == ("chatcmpl-1", 1764000000, "claude-x")
    assert len(chunks) == 10
    (usage,) = re.findall(r'`"usage":(.*?)` \|', golden)
    assert chunks[-1]["usage"] == json.loads(usage)


# What no recording holds


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


def test_server_tools_are_no_client_tool_calls_peer_bug_22():
    server = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    native = message(server, result, TEXT)
    assert "tool_calls" not in answer(native)["choices"][0]["message"]
    assert plain(accumulated(decoded([streamed(native)])))["calls"] == []


def test_usage_counts_cached_and_written_tokens_as_prompt_peer_bug_28():
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert answer(message(TEXT, usage=usage))["usage"] == {
        "prompt_tokens": 135,
        "completion_tokens": 9,
        "total_tokens": 144,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }


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


@pytest.mark.parametrize(("kind", "total"), [("compaction", (30, 12)), ("fallback_message", (3, 2)), ("other", (3, 2))])
def test_iterations_are_summed_when_one_was_a_compaction(kind, total):
    rounds = [
        {"type": kind, "input_tokens": 27, "output_tokens": 10},
        {"type": "message", "input_tokens": 3, "output_tokens": 2},
    ]
    usage = answer(message(TEXT, usage={"input_tokens": 3, "output_tokens": 2, "iterations": rounds}))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == total


def test_an_answer_without_usage_invents_none():
    assert "usage" not in answer(message(TEXT, usage={}))
    data = events({"type": "message_start", "message": {"model": "x"}}, {"type": "message_stop"})
    assert all(chunk["choices"] for chunk in decoded([data]))


@pytest.mark.parametrize(
    ("native", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("compaction", "length"),
        ("refusal", "content_filter"),
        ("tool_use", "stop"),
        ("of_2027", "stop"),
    ],
)
def test_every_stop_reason_has_its_word_peer_bug_14(native, finish):
    (choice,) = answer(message(TEXT, stop=native))["choices"]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (finish, native)
    (last,) = [
        c for chunk in decoded([streamed(message(TEXT, stop=native))]) for c in chunk["choices"] if c["finish_reason"]
    ]
    assert last["finish_reason"] == finish


def test_a_refusal_is_told_in_words():
    native = message(stop="refusal", stop_details={"explanation": "Not this.", "category": "bio"})
    (choice,) = answer(native)["choices"]
    assert choice["message"]["refusal"] == "Not this."
    assert choice["refusal_category"] == "bio"
    assert answer(message(stop="refusal"))["choices"][0]["message"]["refusal"]


def test_a_web_citation_says_which_text_it_stands_for():
    cited = {"type": "web_search_result_location", "url": "https://a.example/x", "title": None, "cited_text": "c"}
    own = {"type": "char_location", "document_index": 0}
    native = message({"type": "text", "text": "abc"}, {"type": "text", "text": "defg", "citations": [cited, own]})
    place = {"start_index": 3, "end_index": 7, "url": "https://a.example/x", "title": ""}
    assert answer(native)["choices"][0]["message"]["annotations"] == [{"type": "url_citation", "url_citation": place}]
    deltas = [c["delta"] for chunk in decoded([streamed(native)]) for c in chunk["choices"]]
    assert [d["annotations"] for d in deltas if "annotations" in d] == [
        [{"index": 0, "type": "url_citation", "url_citation": place}]
    ]


def test_the_service_tier_is_named_in_openais_words():
    assert answer(message(TEXT, usage={**USAGE, "service_tier": "standard"}))["service_tier"] == "default"
    assert "service_tier" not in answer(message(TEXT, usage={**USAGE, "service_tier": "new"}))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"content":"x"}', b'{"content":[1]}'])
def test_an_answer_of_another_shape_is_the_providers_fault(body):
    with pytest.raises(BadUpstreamResponse):
        PROVIDER.chat.read_response(body, chat(), target(), STAMP)


def test_an_error_inside_a_200_is_an_error():
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    with pytest.raises(UpstreamError) as caught:
        PROVIDER.chat.read_response(body, chat(), target(), STAMP)
    assert caught.value.code == "overloaded"


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


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
OLD = "claude-sonnet-4-0"


def test_the_json_tools_input_is_the_content():
    native = message({"type": "text", "text": "Here:"}, use("toolu_1", "json_tool_call", a=1), stop="tool_use")
    found = answer(native, target(OLD), response_format=FORMAT)
    (choice,) = found["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"a":1}', "stop")
    assert "tool_calls" not in choice["message"]
    chunks = decoded([streamed(native)], target(OLD), response_format=FORMAT)
    made = accumulated(chunks)
    assert json.loads(made["choices"][0]["message"]["content"]) == {"a": 1}
    assert made["choices"][0]["finish_reason"] == "stop"


def test_a_schema_that_is_no_object_is_unwrapped():
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "items": {}}}}
    native = message(use("toolu_1", "json_tool_call", values=[1, 2]), stop="tool_use")
    assert answer(native, target(OLD), response_format=wanted)["choices"][0]["message"]["content"] == "[1,2]"
    made = accumulated(decoded([streamed(native)], target(OLD), response_format=wanted))
    assert made["choices"][0]["message"]["content"] == "[1,2]"


@pytest.mark.parametrize("text", ["{cut", "[1]", '{"other":1}'])
def test_wrapped_json_that_is_not_as_expected_is_shown_as_it_came(text):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}
    data = events(
        {"type": "message_start", "message": message()},
        {"type": "content_block_start", "index": 0, "content_block": use("t", "json_tool_call")},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        {"type": "message_stop"},
    )
    made = accumulated(decoded([data], target(OLD), response_format=wanted))
    assert made["choices"][0]["message"]["content"] == text


def test_text_is_shown_when_the_json_tool_was_not_called():
    data = streamed(message(TEXT))
    assert plain(accumulated(decoded([data], target(OLD), response_format=FORMAT)))["content"] == "Hello there"


CUSTOM = [{"type": "custom", "custom": {"name": "shell"}}]


def test_a_custom_tools_input_is_its_text():
    native = message(use("toolu_1", "shell", input='ls "a"'), stop="tool_use")
    call = {"id": "toolu_1", "type": "custom", "custom": {"name": "shell", "input": 'ls "a"'}}
    found = answer(native, tools=CUSTOM)
    assert found["choices"][0]["message"]["tool_calls"] == [call]
    strict("CreateChatCompletionResponse", found)
    deltas = [
        c["delta"]["tool_calls"][0]
        for chunk in decoded([streamed(native)], tools=CUSTOM)
        for c in chunk["choices"]
        if "tool_calls" in c["delta"]
    ]
    assert "".join(delta["custom"]["input"] for delta in deltas) == 'ls "a"'


def test_a_custom_tools_input_that_was_cut_short_is_shown_as_it_came():
    data = events(
        {"type": "message_start", "message": message()},
        {"type": "content_block_start", "index": 0, "content_block": use("t", "shell")},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"inp'}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        {"type": "message_stop"},
    )
    deltas = [c["delta"] for chunk in decoded([data], tools=CUSTOM) for c in chunk["choices"]]
    assert {"tool_calls": [{"index": 0, "custom": {"input": '{"inp'}}]} in deltas


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


def test_a_custom_tools_broken_input_is_shown_whole():
    native = message(use("toolu_1", "shell", other=1), stop="tool_use")
    made = answer(native, tools=CUSTOM)["choices"][0]["message"]["tool_calls"][0]
    assert made["custom"]["input"] == '{"other":1}'


def test_a_client_of_functions_gets_one_function_call():
    native = message(use("toolu_1", "f", a=1), use("toolu_2", "g"), stop="tool_use")
    functions = [{"name": "f"}, {"name": "g"}]
    found = answer(native, functions=functions)
    (choice,) = found["choices"]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert choice["finish_reason"] == "function_call"
    strict("CreateChatCompletionResponse", found)
    deltas = [c["delta"] for chunk in decoded([streamed(native)], functions=functions) for c in chunk["choices"]]
    calls = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert calls[0] == {"name": "f", "arguments": ""}
    assert json.loads("".join(call["arguments"] for call in calls)) == {"a": 1}


def test_names_go_back_to_what_the_client_called_them_peer_bug_19():
    tools = [{"type": "function", "function": {"name": name}} for name in ("a.b", "a b")]
    native = message(use("toolu_1", "a_b_2"), stop="tool_use")
    assert answer(native, tools=tools)["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "a b"
    other = answer(native, tools=TOOLS)
    assert other["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "a_b_2"


def test_an_input_limit_error_is_a_context_error():
    words = "input length and `max_tokens` exceed context limit: 1 + 2 > 2"
    body = json.dumps({"type": "error", "error": {"message": words}, "request_id": "req_1"}).encode()
    error = PROVIDER.read_error(400, {}, body)
    assert error.code == "context_length_exceeded"
    assert error.details["request_id"] == "req_1"


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1]", b'{"error":"x"}', b"plain words"])
def test_an_error_that_is_no_json_object_is_still_an_error(body):
    assert PROVIDER.read_error(502, {"request-id": "req_9"}, body).status == 502
