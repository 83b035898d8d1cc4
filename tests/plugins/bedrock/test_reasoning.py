from __future__ import annotations

import base64

import orjson
import pytest

from gateway.conversation import carry
from gateway.hub import Json
from tests.plugins.bedrock.rules import check
from tests.plugins.bedrock.support import (
    ASK,
    CALL,
    CLAUDE,
    GPT_OSS,
    LLAMA,
    NOVA,
    OPUS_48,
    RESULT,
    SIGNED,
    SONNET_46,
    build,
    built,
    says,
    target,
    turns,
)


@pytest.mark.parametrize(
    ("model", "params", "fields"),
    [
        (CLAUDE, {"reasoning_effort": "high"}, {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
        (
            CLAUDE,
            {"thinking": {"type": "enabled", "budget_tokens": 500}},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
        (CLAUDE, {"reasoning": {"max_tokens": 3000}}, {"thinking": {"type": "enabled", "budget_tokens": 3000}}),
        (CLAUDE, {"reasoning_effort": "none"}, {}),
        (
            "anthropic.claude-opus-4-5-20251101-v1:0",
            {"reasoning_effort": "max"},
            {"thinking": {"type": "enabled", "budget_tokens": 16384}, "output_config": {"effort": "high"}},
        ),
        (
            SONNET_46,
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "output_config": {"effort": "medium"}},
        ),
        (
            SONNET_46,
            {"reasoning_effort": "xhigh"},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}},
        ),
        (
            SONNET_46,
            {"reasoning_effort": "minimal"},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        ),
        (
            OPUS_48,
            {"thinking": {"type": "enabled", "budget_tokens": 9000}},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}},
        ),
        (OPUS_48, {"reasoning": {"enabled": False}}, {"thinking": {"type": "disabled"}}),
        ("anthropic.claude-fable-5-v1:0", {"reasoning_effort": "none"}, {"output_config": {"effort": "low"}}),
        (NOVA, {"reasoning_effort": "xhigh"}, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}),
        (NOVA, {"reasoning_effort": "none"}, {}),
        (GPT_OSS, {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}),
        ("openai.gpt-5-2", {"reasoning_effort": "none"}, {"reasoning": {"effort": "none"}}),
        ("openai.gpt-5-2", {"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        ("qwen.qwen3-32b-v1:0", {"reasoning_effort": "high"}, {"reasoning_config": "high"}),
        ("us.deepseek.v3-v1:0", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ],
)
def test_thinking_is_asked_for_in_the_models_own_words(model: str, params: Json, fields: Json) -> None:
    body = build(model, **params)
    check(body)
    assert body.get("additionalModelRequestFields", {}) == fields


def test_thinking_tokens_are_asked_for_where_they_are_told() -> None:
    assert build(OPUS_48, reasoning_effort="low")["additionalModelResponseFieldPaths"] == [
        "/usage/output_tokens_details"
    ]


def test_the_answer_has_room_beside_the_thinking() -> None:
    request = built(target(), max_tokens=100, reasoning_effort="medium")
    assert orjson.loads(request.body)["inferenceConfig"] == {"maxTokens": 2148}
    assert "max_tokens" in request.translated
    tight = build("anthropic.claude-opus-4-1-20250805-v1:0", max_tokens=30_000, thinking={"budget_tokens": 31_000})
    assert tight["inferenceConfig"]["maxTokens"] == 32_000
    assert tight["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 2_000


def test_a_tool_loop_without_its_thinking_does_not_think_on() -> None:
    loop = [*ASK, says("assistant", None, tool_calls=[CALL]), RESULT]
    request = built(target(), messages=loop, reasoning_effort="high")
    assert request.dropped == ("reasoning_effort",)
    assert "additionalModelRequestFields" not in orjson.loads(request.body)
    with_it = [*ASK, says("assistant", None, tool_calls=[CALL], thinking_blocks=[SIGNED]), RESULT]
    assert "thinking" in build(messages=with_it, reasoning_effort="high")["additionalModelRequestFields"]


def test_signed_thinking_comes_first_and_unchanged() -> None:
    redacted = {"type": "redacted_thinking", "data": "Eu8ECk"}
    message = says(
        "assistant", "ok", thinking_blocks=[SIGNED, redacted, {"type": "thinking", "thinking": "no signature"}]
    )
    content = turns(*ASK, message, says("user", "go"))[1]["content"]
    assert content == [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Sig"}}},
        {"reasoningContent": {"redactedContent": base64.b64encode(b"Eu8ECk").decode()}},
        {"text": "ok"},
    ]


def test_thinking_survives_in_an_id_when_the_client_keeps_nothing_else() -> None:
    name = carry("call_a", {"anthropic": [SIGNED]})
    loop = [says("assistant", None, tool_calls=[{**CALL, "id": name}]), {**RESULT, "tool_call_id": name}]
    _, called, result = turns(*ASK, *loop)
    assert called["content"][0] == {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Sig"}}}
    assert called["content"][1]["toolUse"]["toolUseId"] == "call_a"
    assert result["content"][0]["toolResult"]["toolUseId"] == "call_a"


@pytest.mark.parametrize("model", [NOVA, LLAMA, GPT_OSS])
def test_claudes_thinking_is_not_sent_to_other_models(model: str) -> None:
    assert "reasoningContent" not in str(turns(*ASK, says("assistant", "ok", thinking_blocks=[SIGNED]), model=model))


def test_reasoning_without_an_effort_is_of_medium_effort() -> None:
    fields = build(CLAUDE, reasoning={"enabled": True})["additionalModelRequestFields"]
    assert fields == {"thinking": {"type": "enabled", "budget_tokens": 2048}}


def test_thinking_blocks_that_are_no_objects_are_passed_over() -> None:
    content = turns(*ASK, says("assistant", "ok", thinking_blocks=["x", SIGNED, {"type": "thinking"}]))[1]["content"]
    assert [next(iter(block)) for block in content] == ["reasoningContent", "text"]


def test_thinking_among_the_parts_of_the_content_comes_first_too() -> None:
    content = turns(*ASK, says("assistant", [{"type": "text", "text": "ok"}, SIGNED]))[1]["content"]
    assert [next(iter(block)) for block in content] == ["reasoningContent", "text"]


def test_a_budget_without_a_limit_gets_the_models_own() -> None:
    assert build(CLAUDE, reasoning_effort="max")["inferenceConfig"] == {"maxTokens": 64_000}
    assert "inferenceConfig" not in build(SONNET_46, reasoning_effort="max")


def test_an_adaptive_model_too_gives_up_in_a_tool_loop_without_its_thinking() -> None:
    loop = [*ASK, says("assistant", None, tool_calls=[CALL]), RESULT]
    assert built(target(SONNET_46), messages=loop, reasoning_effort="high").dropped == ("reasoning_effort",)
    turned_off = built(target(SONNET_46), messages=loop, reasoning_effort="none")
    assert turned_off.dropped == ()


def test_no_limit_is_invented_for_a_model_whose_own_is_unknown() -> None:
    where = target("private", abilities={"thinking": "budget"})
    assert "inferenceConfig" not in orjson.loads(built(where, reasoning_effort="max").body)
