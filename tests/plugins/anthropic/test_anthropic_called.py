"""What Claude calls: the client's tools, and those that stand for a shape or a function."""

from __future__ import annotations

import json

import pytest

from tests.plugins.anthropic.anthropic_support import accumulated, answer, decoded, events, plain, streamed, target
from tests.plugins.anthropic.natives import TEXT, TOOLS, message, strict, use

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
