from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import orjson
import pytest

from gateway.conversation import uncarry
from gateway.errors import BadUpstreamResponse, UpstreamError
from gateway.hub import Json
from plugins.bedrock import PROVIDER
from tests import corpus
from tests.plugins.bedrock.rules import check
from tests.plugins.bedrock.support import CLAUDE, NOVA, STAMP, WEATHER, build, chat, plain, read, target

USE = {"toolUse": {"toolUseId": "tooluse_1", "name": "weather", "input": {"city": "Rome"}}}
SIGNED = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Sig"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
LIST = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}


def answer(*blocks: Json, stop: str = "end_turn", **more: Any) -> Json:
    usage = {"inputTokens": 10, "outputTokens": 20, "totalTokens": 30}
    return {
        "output": {"message": {"role": "assistant", "content": list(blocks)}},
        "stopReason": stop,
        "usage": usage,
        **more,
    }


def choice(*blocks: Json, **how: Any) -> Json:
    stop = how.pop("stop", "end_turn")
    found: Json = read(answer(*blocks, stop=stop), **how)["choices"][0]
    return found


def test_an_answer_is_a_completion() -> None:
    assert read(answer({"text": "Hel"}, {"text": "lo"}, serviceTier={"type": "flex"})) == {
        "id": "chatcmpl-abc",
        "object": "chat.completion",
        "created": STAMP.created,
        "model": CLAUDE,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                "native_finish_reason": "end_turn",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
        "service_tier": "flex",
    }


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "stop"),
        ("malformed_tool_use", "stop"),
        ("something_new", "stop"),
        ("tool_use", "stop"),
    ],
)
def test_a_stop_reason_is_openais_and_the_native_one_stands_beside(stop: str, reason: str) -> None:
    found = choice({"text": "a"}, stop=stop)
    assert (found["finish_reason"], found["native_finish_reason"]) == (reason, stop)


def test_calls_finish_with_tool_calls_and_arguments_are_text() -> None:
    found = choice({"text": "wait"}, USE, stop="tool_use", tools=[WEATHER])
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["tool_calls"] == [
        {"id": "tooluse_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    ]
    assert choice(USE, stop="tool_use")["message"]["content"] is None
    assert choice(USE, stop="max_tokens")["finish_reason"] == "length"


def test_a_call_without_input_has_an_empty_object() -> None:
    bare = {"toolUse": {"toolUseId": "t", "name": "f"}}
    assert choice(bare)["message"]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_a_servers_own_tools_are_not_the_clients() -> None:
    own = {"toolUse": {**USE["toolUse"], "type": "server_tool_use"}}
    result = {"toolResult": {"toolUseId": "tooluse_1", "content": [{"text": "hidden"}]}}
    message = choice(own, result, {"text": "found"}, stop="tool_use")["message"]
    assert message == {"role": "assistant", "content": "found", "refusal": None}


def test_thinking_is_shown_and_kept_with_its_signature() -> None:
    redacted = {"reasoningContent": {"redactedContent": "RXU4RUNr"}}
    unsigned = {"reasoningContent": {"reasoningText": {"text": " so"}}}
    message = choice(SIGNED, redacted, unsigned, {"text": "a"})["message"]
    assert message["reasoning_content"] == "hm so"
    assert message["thinking_blocks"] == [
        {"type": "thinking", "thinking": "hm", "signature": "Sig"},
        {"type": "redacted_thinking", "data": "Eu8ECk"},
    ]


def test_thinking_goes_back_as_it_came() -> None:
    redacted = {"reasoningContent": {"redactedContent": "RXU4RUNr"}}
    blocks = [SIGNED, redacted, {"text": "a"}, USE]
    message = choice(*blocks)["message"]
    result = {"role": "tool", "tool_call_id": "tooluse_1", "content": "sunny"}
    for _ in range(3):
        body = build(CLAUDE, messages=[{"role": "user", "content": "Hi"}, message, result], tools=[WEATHER])
        check(body)
        assert body["messages"][1]["content"] == blocks


def test_an_id_carries_the_thinking_where_the_deployment_says_so() -> None:
    where = target(emulate=frozenset(("thinking",)))
    first, second = choice(SIGNED, USE, USE, where=where)["message"]["tool_calls"]
    assert uncarry(first["id"]) == (
        "tooluse_1",
        {"anthropic": [{"type": "thinking", "thinking": "hm", "signature": "Sig"}]},
    )
    assert second["id"] == "tooluse_1"
    plain_client = {"role": "assistant", "content": None, "tool_calls": [first]}
    result = {"role": "tool", "tool_call_id": first["id"], "content": "sunny"}
    body = build(CLAUDE, messages=[{"role": "user", "content": "Hi"}, plain_client, result])
    assert body["messages"][1]["content"] == [SIGNED, USE]


def test_cited_text_is_text_and_a_cited_page_an_annotation() -> None:
    page = {"location": {"web": {"url": "https://r.test/a", "domain": "r.test"}}}
    other = {"location": {"documentChar": {"start": 0}}}
    cited = {"citationsContent": {"content": [{"text": "Ruby."}], "citations": [page, other]}}
    message = choice({"text": "It is "}, cited)["message"]
    assert message["content"] == "It is Ruby."
    assert message["annotations"] == [
        {
            "type": "url_citation",
            "url_citation": {"url": "https://r.test/a", "title": "r.test", "start_index": 11, "end_index": 11},
        }
    ]


def test_an_emulated_answer_is_content() -> None:
    use = {"toolUse": {"toolUseId": "t", "name": "json_answer", "input": {"a": 1}}}
    found = choice({"text": "Sure"}, use, use, stop="tool_use", model=NOVA, response_format=SCHEMA)
    assert found["message"] == {"role": "assistant", "content": '{"a":1}', "refusal": None}
    assert found["finish_reason"] == "stop"
    wrapped = {"toolUse": {"toolUseId": "t", "name": "json_answer", "input": {"values": [1]}}}
    assert choice(wrapped, model=NOVA, response_format=LIST)["message"]["content"] == "[1]"


def test_a_clients_own_tool_beside_an_emulated_answer_is_called() -> None:
    found = choice(USE, stop="tool_use", model=NOVA, response_format=SCHEMA, tools=[WEATHER])
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["tool_calls"][0]["function"]["name"] == "weather"


def test_cached_and_thinking_tokens_are_inside_their_sums() -> None:
    usage = {
        "inputTokens": 3,
        "outputTokens": 9,
        "totalTokens": 32,
        "cacheReadInputTokens": 15,
        "cacheWriteInputTokens": 5,
    }
    extra = {"usage": {"output_tokens_details": {"thinking_tokens": 4}}}
    assert read({**answer({"text": "a"}), "usage": usage, "additionalModelResponseFields": extra})["usage"] == {
        "prompt_tokens": 23,
        "completion_tokens": 9,
        "total_tokens": 32,
        "prompt_tokens_details": {"cached_tokens": 15, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }


def test_usage_that_nobody_reported_is_not_invented() -> None:
    for usage in ({}, None, {"inputTokens": None}):
        assert "usage" not in read({**answer({"text": "a"}), "usage": usage})


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"output":null}', b'{"output":{"message":5}}'])
def test_what_is_no_answer_is_a_bad_response(body: bytes) -> None:
    assert PROVIDER.chat is not None
    with pytest.raises(BadUpstreamResponse):
        PROVIDER.chat.read_response(body, chat(), target(), STAMP)


def test_an_error_inside_a_200_is_an_error() -> None:
    with pytest.raises(UpstreamError) as caught:
        read({"__type": "com.amazon.coral#ThrottlingException", "message": "Slow down"})
    assert caught.value.status == 429


ANSWERS = corpus.cases("bedrock", kind="chat", endpoint="converse")


@pytest.mark.parametrize("case", ANSWERS)
def test_recorded_answers_become_strict_completions(case: Json) -> None:
    from jsonschema import Draft202012Validator

    definitions = corpus.schema("chat-strict")["$defs"]
    validator = Draft202012Validator({"$ref": "#/$defs/CreateChatCompletionResponse", "$defs": definitions})
    native = case["response"]["body"]
    completion = read(native, unquote(case["request"]["path"].split("/")[2]))
    assert list(validator.iter_errors(plain(completion))) == []
    assert completion["usage"]["total_tokens"] == native["usage"]["totalTokens"]
    message = completion["choices"][0]["message"]
    blocks = native["output"]["message"]["content"]
    assert (message["content"] or "") == "".join(block.get("text", "") for block in blocks)
    calls = [
        block["toolUse"]
        for block in blocks
        if block.get("toolUse", {}).get("type", "tool_use") == "tool_use" and "toolUse" in block
    ]
    assert [json.loads(call["function"]["arguments"]) for call in message.get("tool_calls", ())] == [
        call["input"] for call in calls
    ]
    assert (completion["choices"][0]["finish_reason"] == "tool_calls") == bool(calls)


@pytest.mark.parametrize("case", ANSWERS)
def test_recorded_answers_can_be_said_back(case: Json) -> None:
    model = unquote(case["request"]["path"].split("/")[2])
    message = read(case["response"]["body"], model)["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in message.get("tool_calls", ())
    ]
    body = build(
        model, messages=[{"role": "user", "content": "Hi"}, message, *results, {"role": "user", "content": "go on"}]
    )
    check(body)
    signed = [
        block
        for block in case["response"]["body"]["output"]["message"]["content"]
        if "signature" in orjson.dumps(block).decode()
    ]
    assert [
        block for block in body["messages"][1]["content"] if "reasoningText" in block.get("reasoningContent", {})
    ] == signed


def test_a_client_of_functions_gets_one_function_call() -> None:
    found = choice(USE, USE, stop="tool_use", functions=[WEATHER["function"]])
    assert found["finish_reason"] == "function_call"
    assert found["message"]["function_call"] == {"name": "weather", "arguments": '{"city":"Rome"}'}
    assert "tool_calls" not in found["message"]


def test_redacted_thinking_that_is_no_text_cannot_come_back_and_is_left_out() -> None:
    message = choice({"reasoningContent": {"redactedContent": "//79"}}, {"text": "a"})["message"]
    assert "thinking_blocks" not in message
