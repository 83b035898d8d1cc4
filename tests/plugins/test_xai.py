"""xAI: what its reasoning models refuse never reaches them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from gateway.abilities import abilities
from gateway.contract import Target, UpstreamRequest
from gateway.envelope import open_envelope
from gateway.errors import UnsupportedParameter
from plugins.xai import PROVIDER

ROWS = yaml.safe_load((Path(__file__).resolve().parents[2] / PROVIDER.models).read_text())


def send(model: str = "grok-4", **fields: Any) -> tuple[Any, UpstreamRequest]:
    chat = open_envelope(orjson.dumps({"model": "asked", "messages": [], **fields}))
    target = Target("xai", model, PROVIDER.base_url, model, abilities=abilities(ROWS, model))
    sent = PROVIDER.native["openai.chat"].build_request(chat, target)
    return orjson.loads(sent.body), sent


@pytest.mark.parametrize(
    "model", ["grok-4", "grok-4-fast", "grok-4.20-reasoning", "grok-code-fast-1", "grok-3-mini", "grok-5"]
)
def test_reasoning_models_lose_stop_and_penalties_by_name(model: str) -> None:
    asked = {"stop": "END", "frequency_penalty": 1, "presence_penalty": 1}
    body, sent = send(model, **asked, temperature=0.5)
    assert set(sent.dropped) == set(asked)
    assert asked.keys().isdisjoint(body)
    assert body["temperature"] == 0.5


@pytest.mark.parametrize("model", ["grok-2", "grok-3", "grok-3-fast"])
def test_other_models_keep_them(model: str) -> None:
    assert send(model, stop="END", frequency_penalty=1)[1].dropped == ()


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("grok-3-mini", "minimal", "low"),
        ("grok-3-mini-fast", "medium", "low"),
        ("grok-3-mini", "max", "high"),
        ("grok-4.3", "max", "high"),
        ("grok-4.3", "none", "none"),
        ("grok-4.6", "max", "xhigh"),
        ("grok-4", "low", None),
        ("grok-4.20-non-reasoning", "low", None),
        ("grok-code-fast-1", "low", None),
    ],
)
def test_effort_is_one_that_the_model_has(model: str, effort: str, sent: str | None) -> None:
    body, request = send(model, reasoning_effort=effort)
    assert body.get("reasoning_effort") == sent
    assert ("reasoning_effort" in request.dropped) is (sent is None)


def test_message_names_go_and_are_named() -> None:
    messages = [{"role": "user", "name": "ann", "content": "a"}, {"role": "developer", "content": "b"}]
    body, sent = send(messages=messages)
    assert body["messages"] == [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]
    assert (sent.dropped, sent.translated) == (("messages.name",), ("messages",))


def test_the_name_of_a_function_is_not_a_message_name() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    body, sent = send(messages=messages, tools=[{"type": "function", "function": {"name": "f"}}])
    assert body["messages"] == messages
    assert sent.dropped == ()


def test_only_one_limit_is_sent() -> None:
    assert send(max_tokens=5, max_completion_tokens=7)[1].dropped == ("max_tokens",)
    assert send(max_tokens=5)[0]["max_tokens"] == 5


@pytest.mark.parametrize(("asked", "sent"), [(8, 8), (20, 8)])
def test_top_logprobs_ends_at_eight(asked: int, sent: int) -> None:
    assert send(logprobs=True, top_logprobs=asked)[0]["top_logprobs"] == sent


def test_what_xai_does_not_know_is_dropped_by_name() -> None:
    names = ("logit_bias", "web_search_options", "search_parameters", "store", "top_k", "prompt_cache_key")
    assert set(send(**dict.fromkeys(names, 7))[1].dropped) == set(names)


@pytest.mark.parametrize(
    ("name", "value"), [("functions", []), ("modalities", ["text", "audio"]), ("guided_choice", ["a"])]
)
def test_what_would_change_the_answers_shape_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        send(**{name: value})
    assert refused.value.param == name


def test_sound_as_content_is_refused() -> None:
    with pytest.raises(UnsupportedParameter):
        send(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])


def test_usage_is_asked_for_in_streams() -> None:
    assert send(stream=True)[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("status", "body", "shown", "code"),
    [
        (200, {"code": "The service is currently unavailable", "error": "busy"}, 503, "overloaded"),
        (200, {"code": "Client specified an invalid argument", "error": "bad"}, 400, "invalid_request"),
        (200, {"error": "who knows"}, 502, "upstream_error"),
        (400, {"code": "x", "error": "Incorrect API key provided: xa***yz."}, 502, "upstream_auth_error"),
        (
            403,
            {"code": "x", "error": "Content violates usage guidelines: SAFETY_CHECK_TYPE_BIO"},
            400,
            "content_filter",
        ),
        (429, {"code": "Some resource has been exhausted", "error": "Too many requests"}, 429, "rate_limit_exceeded"),
    ],
)
def test_a_sentence_as_code_gets_the_status_it_means(status: int, body: Any, shown: int, code: str) -> None:
    error = PROVIDER.read_error(status, {}, orjson.dumps(body))
    assert (error.status, error.code) == (shown, code)


def test_plain_text_from_its_server_is_shown() -> None:
    error = PROVIDER.read_error(422, {}, b"Failed to deserialize the JSON body into the target type")
    assert (error.status, error.message) == (422, "Failed to deserialize the JSON body into the target type")


def test_cache_marks_leave_messages_and_are_named() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    part = {"type": "text", "text": "q"}
    body, sent = send(
        messages=[{"role": "user", "content": [{**part, **mark}]}, {"role": "user", "content": "z", **mark}]
    )
    assert body["messages"] == [{"role": "user", "content": [part]}, {"role": "user", "content": "z"}]
    assert sent.dropped == ("cache_control",)
