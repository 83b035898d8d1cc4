"""Fireworks: strict about fields it does not know, and made to say when a prompt is too long."""

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
from plugins.fireworks import PROVIDER

ROWS = yaml.safe_load((Path(__file__).resolve().parents[2] / PROVIDER.models).read_text())
OVERFLOW = "context_length_exceeded_behavior"


def send(model: str = "kimi-k2p6", **fields: Any) -> tuple[Any, UpstreamRequest]:
    without = fields.pop("without", frozenset())
    chat = open_envelope(orjson.dumps({"model": "asked", "messages": [], **fields}))
    target = Target("fireworks", model, PROVIDER.base_url, model, abilities=abilities(ROWS, model), without=without)
    sent = PROVIDER.native["openai.chat"].build_request(chat, target)
    return orjson.loads(sent.body), sent


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("kimi-k2p6", "accounts/fireworks/models/kimi-k2p6"),
        ("accounts/a/models/m#accounts/a/deployments/d", "accounts/a/models/m#accounts/a/deployments/d"),
    ],
)
def test_a_bare_name_is_one_of_the_catalogue(model: str, sent: str) -> None:
    body, request = send(model)
    assert body["model"] == sent
    assert request.url == "https://api.fireworks.ai/inference/v1/chat/completions"


def test_a_prompt_that_is_too_long_is_an_error_and_the_addition_is_visible() -> None:
    body, sent = send()
    assert body[OVERFLOW] == "error"
    assert sent.translated == (OVERFLOW,)


def test_the_clients_own_wish_for_long_prompts_stands() -> None:
    body, sent = send(**{OVERFLOW: "truncate"})
    assert body[OVERFLOW] == "truncate"
    assert sent.translated == ()
    assert OVERFLOW not in send(without=frozenset((OVERFLOW,)))[0]


def test_only_one_limit_is_sent() -> None:
    body, sent = send(max_tokens=5, max_completion_tokens=7)
    assert (body.get("max_tokens"), body["max_completion_tokens"], sent.dropped) == (None, 7, ("max_tokens",))
    assert send(max_tokens=5)[0]["max_tokens"] == 5


@pytest.mark.parametrize(("asked", "sent"), [(3, 3), (5, 5), (20, 5)])
def test_top_logprobs_ends_at_five(asked: int, sent: int) -> None:
    body, request = send(logprobs=True, top_logprobs=asked)
    assert body["top_logprobs"] == sent
    assert ("top_logprobs" in request.translated) is (asked != sent)


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("deepseek-v3p2", "none", "none"),
        ("deepseek-v3p2", "minimal", "none"),
        ("kimi-k2p6", "max", "high"),
        ("gpt-oss-120b", "none", "low"),
        ("minimax-m2", "none", "low"),
        ("kimi-k2p6", 2048, 2048),
        ("kimi-k2p6", True, True),
    ],
)
def test_effort_is_one_that_the_family_has(model: str, effort: Any, sent: Any) -> None:
    assert send(model, reasoning_effort=effort)[0]["reasoning_effort"] == sent


def test_thinking_goes_alone() -> None:
    assert send(thinking={"type": "enabled"})[0]["thinking"] == {"type": "enabled"}
    assert send(thinking={"type": "enabled"}, reasoning_effort="low")[1].dropped == ("thinking",)


def test_strict_leaves_tools_and_is_named() -> None:
    tools = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"strict": 1}}}]
    body, sent = send(tools=tools)
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {"strict": 1}}}]
    assert sent.dropped == ("tools.function.strict",)


def test_a_tool_that_is_not_strict_loses_nothing_by_it() -> None:
    body, sent = send(tools=[{"type": "function", "function": {"name": "f", "strict": False}}])
    assert body["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert sent.dropped == ()


@pytest.mark.parametrize("kind", ["file", "input_audio"])
def test_content_that_cannot_be_read_is_refused(kind: str) -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        send(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, kind: {}}]}])
    assert refused.value.param == "messages"


def test_developer_is_system_and_cache_marks_go() -> None:
    message = {
        "role": "developer",
        "content": [{"type": "text", "text": "a", "cache_control": {}}],
        "cache_control": {},
    }
    body, sent = send(messages=[message])
    assert body["messages"] == [{"role": "system", "content": [{"type": "text", "text": "a"}]}]
    assert sent.dropped == ("cache_control",)
    assert "messages" in sent.translated


def test_nothing_is_added_for_usage_as_unknown_fields_are_refused() -> None:
    assert "stream_options" not in send(stream=True)[0]


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (412, {"error": {"message": "Account x is suspended", "code": "PRECONDITION_FAILED"}}, "upstream_auth_error"),
        (429, {"error": "Too Many Requests", "message": "You have exceeded your usage limits."}, "rate_limit_exceeded"),
        (
            400,
            {"error": {"message": "The prompt is too long: 9, model maximum context length: 8"}},
            "context_length_exceeded",
        ),
    ],
)
def test_each_shape_of_its_errors_has_the_right_code(status: int, body: Any, code: str) -> None:
    assert PROVIDER.read_error(status, {}, orjson.dumps(body)).code == code


def test_required_stays_required_and_is_not_respelled_peer_bug_17() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    body, sent = send(tools=tools, tool_choice="required")
    assert body["tool_choice"] == "required"
    assert "tool_choice" not in sent.translated
