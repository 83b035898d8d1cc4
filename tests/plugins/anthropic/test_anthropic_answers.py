"""Answers of Claude as the hub's: usage, how they ended, what they cite, and errors."""

from __future__ import annotations

import json

import pytest

from gateway.errors import BadUpstreamResponse, UpstreamError
from plugins.anthropic import PROVIDER
from tests.plugins.anthropic.anthropic_support import (
    STAMP,
    accumulated,
    answer,
    chat,
    decoded,
    events,
    plain,
    streamed,
    target,
)
from tests.plugins.anthropic.natives import TEXT, USAGE, message


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


def test_an_input_limit_error_is_a_context_error():
    words = "input length and `max_tokens` exceed context limit: 1 + 2 > 2"
    body = json.dumps({"type": "error", "error": {"message": words}, "request_id": "req_1"}).encode()
    error = PROVIDER.read_error(400, {}, body)
    assert error.code == "context_length_exceeded"
    assert error.details["request_id"] == "req_1"


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1]", b'{"error":"x"}', b"plain words"])
def test_an_error_that_is_no_json_object_is_still_an_error(body):
    assert PROVIDER.read_error(502, {"request-id": "req_9"}, body).status == 502
