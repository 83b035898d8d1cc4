from __future__ import annotations

import base64
import copy
import json
import re
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.conversation import carry
from gateway.errors import GatewayError, InvalidRequest, UnsupportedParameter
from gateway.hub import Json
from tests import corpus
from tests.plugins.bedrock.rules import TOOL_ID, check
from tests.plugins.bedrock.support import (
    ASK,
    BASE,
    CLAUDE,
    GPT_OSS,
    LLAMA,
    MISTRAL,
    NOVA,
    OPUS_48,
    SONNET_46,
    WEATHER,
    build,
    built,
    target,
)

MODELS = (CLAUDE, SONNET_46, OPUS_48, NOVA, LLAMA, MISTRAL, GPT_OSS, "acme.private")
PNG = "data:image/png;base64,iVBORw0="
PDF = {"type": "file", "file": {"filename": "my secret.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}}
CALL = {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": '{"z":1}'}}
RESULT = {"role": "tool", "tool_call_id": "call_a", "content": "a cat"}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "Sig"}
SYSTEM = {"role": "system", "content": "Be brief"}


def says(role: str, content: Any, **more: Any) -> Json:
    return {"role": role, "content": content, **more}


def turns(*messages: Json, model: str = CLAUDE, **params: Any) -> list[Json]:
    body = build(model, messages=list(messages), **params)
    check(body)
    found: list[Json] = body["messages"]
    return found


# --- the way there ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "segment"),
    [
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "anthropic.claude-3-5-sonnet-20241022-v2%3A0"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc123",
        ),
        (
            "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Famazon.nova-lite-v1%3A0",
        ),
        (
            "arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:custom-model/a.b-c/def123456789",
            "arn%3Aaws-us-gov%3Abedrock%3Aus-gov-west-1%3A123456789012%3Acustom-model%2Fa.b-c%2Fdef123456789",
        ),
    ],
)
def test_a_model_is_one_encoded_segment(model: str, segment: str) -> None:
    request = built(target(model))
    assert request.url == f"{BASE}/model/{segment}/converse"
    assert unquote(segment) == model
    assert built(target(model), stream=True).url == f"{BASE}/model/{segment}/converse-stream"


@pytest.mark.parametrize(
    "model",
    [
        *("../../../admin", "..", ".", "%2e%2e%2f%2e%2e%2fx", "m?x=1", "m#frag", "m%2Fx", "m\\..\\x", "m\r\nX-Evil: 1"),
        *("m\u0000", "/evil.test/x", "@evil.test", "ｅvil", "a" * 3000, "", "a/b", "m ", "m\n"),
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/../x",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/.",
        "arn:aws:s3:us-east-1:123456789012:bucket/x",
    ],
)
def test_what_is_no_model_id_reaches_no_url(model: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        built(target(model))
    assert caught.value.status == 400
    assert caught.value.param == "model"


def test_headers_ask_for_what_the_action_answers() -> None:
    assert built(target()).headers == {"content-type": "application/json", "accept": "application/json"}
    assert built(target(), stream=True).headers["accept"] == "application/vnd.amazon.eventstream"


@pytest.mark.parametrize(
    ("model", "options", "base", "region"),
    [
        (CLAUDE, {"region": "eu-central-1"}, BASE, "eu-central-1"),
        ("arn:aws:bedrock:ap-south-1:123456789012:inference-profile/x", {}, "https://proxy.test", "ap-south-1"),
        (CLAUDE, {}, "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        (CLAUDE, {}, "https://vpce-1.test", "us-east-1"),
    ],
)
def test_the_region_is_the_configured_else_the_arns_else_the_hosts(
    model: str, options: Json, base: str, region: str
) -> None:
    from dataclasses import replace

    assert built(replace(target(model, options=options), base_url=base)).scope == f"{region}/bedrock"


def test_a_base_url_may_have_a_prefix_and_a_placeholder() -> None:
    from dataclasses import replace

    where = replace(target(LLAMA), base_url="https://bedrock-runtime.{region}.amazonaws.com/prefix/")
    assert built(where).url.startswith(f"{BASE}/prefix/model/us.meta")


# --- the golden pair -------------------------------------------------------------------------------------------

GOLDEN: Json = {
    "max_completion_tokens": 300,
    "temperature": 1.4,
    "stop": "END",
    "user": "u-1",
    "seed": 7,
    "parallel_tool_calls": False,
    "tool_choice": "required",
    "messages": [
        SYSTEM,
        says("developer", "Use metric"),
        says("user", [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PNG}}]),
        says(
            "assistant",
            None,
            tool_calls=[CALL, {"id": "call_b", "type": "function", "function": {"name": "now", "arguments": ""}}],
        ),
        RESULT,
        {"role": "tool", "tool_call_id": "call_b", "content": '{"t":5}'},
        says("user", "So?"),
    ],
    "tools": [
        {
            "type": "function",
            "function": {"name": "look", "description": "Look", "parameters": WEATHER["function"]["parameters"]},
        },
        {"type": "function", "function": {"name": "now"}},
    ],
}


def test_the_golden_request_becomes_the_golden_body() -> None:
    request = built(target(), GOLDEN)
    body = orjson.loads(request.body)
    check(body)
    assert body["messages"] == [
        {
            "role": "user",
            "content": [{"text": "What is this?"}, {"image": {"format": "png", "source": {"bytes": "iVBORw0="}}}],
        },
        {
            "role": "assistant",
            "content": [
                {"toolUse": {"toolUseId": "call_a", "name": "look", "input": {"z": 1}}},
                {"toolUse": {"toolUseId": "call_b", "name": "now", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "call_a", "content": [{"text": "a cat"}]}},
                {"toolResult": {"toolUseId": "call_b", "content": [{"text": '{"t":5}'}]}},
                {"text": "So?"},
            ],
        },
    ]
    assert body["system"] == [{"text": "Be brief"}, {"text": "Use metric"}]
    assert body["inferenceConfig"] == {"maxTokens": 300, "temperature": 1, "stopSequences": ["END"]}
    assert body["toolConfig"]["toolChoice"] == {"any": {}}
    look, now = (tool["toolSpec"] for tool in body["toolConfig"]["tools"])
    assert look == {"name": "look", "description": "Look", "inputSchema": {"json": WEATHER["function"]["parameters"]}}
    assert now == {"name": "now", "description": "now", "inputSchema": {"json": {"type": "object", "properties": {}}}}
    assert body["additionalModelRequestFields"] == {"tool_choice": {"disable_parallel_tool_use": True}}
    assert request.dropped == ("user", "seed")
    assert request.translated == ("temperature", "stop")


# --- scalars ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "params", "field", "value"),
    [
        (CLAUDE, {"max_tokens": 5}, "inferenceConfig", {"maxTokens": 5}),
        (CLAUDE, {"max_tokens": 5, "max_completion_tokens": 7}, "inferenceConfig", {"maxTokens": 7}),
        (CLAUDE, {"max_tokens": 10**9}, "inferenceConfig", {"maxTokens": 64000}),
        ("xai.grok-4", {"max_tokens": 3}, "inferenceConfig", {"maxTokens": 16}),
        ("anthropic.claude-3-haiku-20240307-v1:0", {}, "inferenceConfig", {"maxTokens": 4096}),
        (CLAUDE, {"temperature": 0.5, "top_p": 0.9}, "inferenceConfig", {"temperature": 0.5}),
        (NOVA, {"temperature": 0.5, "top_p": 0.9}, "inferenceConfig", {"temperature": 0.5, "topP": 0.9}),
        (NOVA, {"stop": ["a", "", " ", "b"]}, "inferenceConfig", {"stopSequences": ["a", "b"]}),
        (CLAUDE, {"top_k": 40}, "additionalModelRequestFields", {"top_k": 40}),
        (NOVA, {"top_k": 40}, "additionalModelRequestFields", {"inferenceConfig": {"topK": 40}}),
        ("cohere.command-r-v1:0", {"top_k": 40}, "additionalModelRequestFields", {"k": 40}),
        (NOVA, {"service_tier": "auto"}, "serviceTier", {"type": "default"}),
        (NOVA, {"service_tier": "flex"}, "serviceTier", {"type": "flex"}),
        (NOVA, {"metadata": {"team": "search"}}, "requestMetadata", {"team": "search"}),
        (
            NOVA,
            {"bedrock": {"performanceConfig": {"latency": "optimized"}}},
            "performanceConfig",
            {"latency": "optimized"},
        ),
    ],
)
def test_a_parameter_arrives_as_converse_spells_it(model: str, params: Json, field: str, value: Json) -> None:
    body = build(model, **params)
    check(body)
    assert body[field] == value


@pytest.mark.parametrize(
    ("model", "params", "dropped"),
    [
        (OPUS_48, {"temperature": 0.5, "top_p": 0.5, "top_k": 3}, {"temperature", "top_p", "top_k"}),
        (CLAUDE, {"temperature": 0.5, "top_p": 0.9}, {"top_p"}),
        (
            NOVA,
            {"seed": 1, "logit_bias": {"1": 1}, "user": "u", "logprobs": True},
            {"seed", "logit_bias", "user", "logprobs"},
        ),
        (NOVA, {"metadata": {"a": "b" * 300}}, {"metadata"}),
        (NOVA, {"service_tier": "scale"}, {"service_tier"}),
        (NOVA, {"parallel_tool_calls": False, "tools": [WEATHER]}, {"parallel_tool_calls"}),
        (NOVA, {"nobody_knows": 1}, {"nobody_knows"}),
        (
            LLAMA,
            {"web_search_options": {}, "reasoning_effort": "low", "top_k": 2},
            {"web_search_options", "reasoning_effort", "top_k"},
        ),
        ("openai.gpt-5-2", {"stop": "x"}, {"stop"}),
        (CLAUDE, {"reasoning_effort": "low", "temperature": 0.5, "top_k": 2}, {"temperature", "top_k"}),
        (GPT_OSS, {"reasoning_effort": "none"}, {"reasoning_effort"}),
    ],
)
def test_what_is_lost_is_named(model: str, params: Json, dropped: set[str]) -> None:
    request = built(target(model), **params)
    check(orjson.loads(request.body))
    assert set(request.dropped) == dropped
    with pytest.raises(UnsupportedParameter):
        built(target(model, unsupported="reject"), **params)
    tolerant = target(model, unsupported="reject", without=frozenset(params))
    if not dropped - set(params):
        assert set(built(tolerant, **params).dropped) >= dropped


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"thinking": "yes"}, "thinking"),
        ({"bedrock": []}, "bedrock"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, "response_format"),
        ({"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "nix"}}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools"),
        ({"messages": [says("wizard", "x")]}, "messages"),
        ({"messages": [says("user", [{"type": "hologram"}])]}, "messages"),
        (
            {"messages": [says("user", [{"type": "image_url", "image_url": {"url": "https://a.test/x.png"}}])]},
            "messages",
        ),
        ({"messages": [says("user", [{"type": "file", "file": {"file_id": "f-1"}}])]}, "messages"),
        (
            {"messages": [says("user", [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}])]},
            "messages",
        ),
        (
            {"messages": [says("user", [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA=="}}])]},
            "messages",
        ),
    ],
)
def test_what_cannot_be_said_is_refused(params: Json, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        built(target(), **params)
    assert caught.value.param == param


def test_one_answer_and_text_are_no_wishes() -> None:
    request = built(target(), n=1, modalities=["text"], response_format={"type": "text"}, tools=[], stop=None)
    assert request.dropped == request.translated == ()
    assert orjson.loads(request.body) == {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


def test_tools_are_refused_where_the_model_has_none() -> None:
    for params in ({"tools": [WEATHER]}, {"functions": [WEATHER["function"]]}):
        with pytest.raises(UnsupportedParameter):
            built(target("us.deepseek.r1-v1:0"), **params)
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    with pytest.raises(UnsupportedParameter):
        built(target("us.deepseek.r1-v1:0"), response_format=schema)


def test_native_fields_are_laid_over_the_body_last() -> None:
    guard = {"guardrailIdentifier": "id", "guardrailVersion": "1"}
    native = {
        "guardrailConfig": guard,
        "inferenceConfig": {"temperature": 0.1},
        "additionalModelRequestFields": {"a": 1},
    }
    body = build(NOVA, temperature=0.9, max_tokens=5, bedrock=native)
    check(body)
    assert body["guardrailConfig"] == guard
    assert body["inferenceConfig"] == {"temperature": 0.1, "maxTokens": 5}
    assert body["additionalModelRequestFields"] == {"a": 1}


def test_the_clients_beta_header_travels_to_claude_only() -> None:
    headers = {"anthropic-beta": "context-1m-2025-08-07, x,context-1m-2025-08-07"}
    fields = json.loads(built(target(), headers=headers).body)["additionalModelRequestFields"]
    assert fields == {"anthropic_beta": ["context-1m-2025-08-07", "x"]}
    assert "additionalModelRequestFields" not in json.loads(built(target(NOVA), headers=headers).body)


# --- thinking --------------------------------------------------------------------------------------------------


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
    name = carry("call_a", {"thinking_blocks": [SIGNED]})
    loop = [says("assistant", None, tool_calls=[{**CALL, "id": name}]), {**RESULT, "tool_call_id": name}]
    _, called, result = turns(*ASK, *loop)
    assert called["content"][0] == {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "Sig"}}}
    assert called["content"][1]["toolUse"]["toolUseId"] == "call_a"
    assert result["content"][0]["toolResult"]["toolUseId"] == "call_a"


@pytest.mark.parametrize("model", [NOVA, LLAMA, GPT_OSS])
def test_claudes_thinking_is_not_sent_to_other_models(model: str) -> None:
    assert "reasoningContent" not in str(turns(*ASK, says("assistant", "ok", thinking_blocks=[SIGNED]), model=model))


# --- messages --------------------------------------------------------------------------------------------------


def test_neighbours_are_merged_and_blank_texts_left_out() -> None:
    assert turns(says("user", "a"), says("user", ["b", "  "]), says("assistant", ""), says("assistant", "c ")) == [
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": [{"text": "c"}]},
    ]


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([], ["user"]),
        ([SYSTEM], ["user"]),
        ([says("assistant", "hello")], ["user", "assistant"]),
        ([says("user", "")], ["user"]),
        ([says("user", "a"), says("assistant", ""), says("user", "b")], ["user", "assistant", "user"]),
    ],
)
def test_a_conversation_begins_with_the_user_and_no_turn_is_empty(messages: list[Json], roles: list[str]) -> None:
    assert [turn["role"] for turn in turns(*messages)] == roles


def test_a_late_system_message_stays_in_its_place() -> None:
    late = [SYSTEM, says("user", "a"), says("system", "Now French"), says("assistant", "b"), says("user", "c")]
    body = build(CLAUDE, messages=late)
    check(body)
    assert body["system"] == [{"text": "Be brief"}]
    assert body["messages"][0]["content"] == [{"text": "a"}, {"text": "<system>Now French</system>"}]
    newer = turns(*late, model=OPUS_48)
    assert newer[1] == {"role": "system", "content": [{"text": "Now French"}]}


@pytest.mark.parametrize("after", [says("user", "x"), says("system", "again")])
def test_a_late_system_message_that_may_not_stand_alone_becomes_user_text(after: Json) -> None:
    found = turns(*ASK, says("system", "Now French"), after, says("user", "y"), model=OPUS_48)
    assert [turn["role"] for turn in found] == ["user"]
    assert {"text": "<system>Now French</system>"} in found[0]["content"]


@pytest.mark.parametrize("model", [CLAUDE, NOVA, OPUS_48])
def test_appending_turns_keeps_the_earlier_ones(model: str) -> None:
    history = [
        *(SYSTEM, says("user", "a"), says("assistant", "b"), says("user", "c"), says("system", "late")),
        *(says("assistant", None, tool_calls=[CALL]), RESULT, says("user", [{"type": "text", "text": "d"}, PDF])),
        *(says("assistant", "e"), says("user", [PDF]), says("assistant", "f"), says("user", "g")),
    ]
    after_user = [n for n, message in enumerate(history, 1) if message["role"] == "assistant" and n > 1]
    whole = turns(*history, model=model)
    for n in after_user:
        if history[n - 1].get("tool_calls"):
            continue
        part = turns(*history[:n], model=model)
        assert whole[: len(part)] == part


def test_results_follow_their_calls_whatever_stood_between() -> None:
    second = {**CALL, "id": "call_b"}
    found = turns(
        *ASK,
        says("assistant", "wait", tool_calls=[CALL, second]),
        says("user", "hurry"),
        {"role": "tool", "tool_call_id": "call_b", "content": ""},
        says("system", "calm"),
        RESULT,
    )
    kinds = [next(iter(block)) for block in found[2]["content"]]
    assert kinds == ["toolResult", "toolResult", "text", "text"]
    assert found[2]["content"][1]["toolResult"]["content"] == [{"text": "(empty)"}]


def test_a_missing_result_is_made_up_as_an_error() -> None:
    result = turns(*ASK, says("assistant", None, tool_calls=[CALL]), says("user", "go on"))[2]["content"][0][
        "toolResult"
    ]
    assert result["status"] == "error"


def test_a_history_with_tools_brings_its_tools_back() -> None:
    body = build(messages=[*ASK, says("assistant", None, tool_calls=[CALL, {**CALL, "id": "b"}]), RESULT])
    check(body)
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["look"]


@pytest.mark.parametrize("arguments", ['{"a":1}{"b":2}', "nonsense", "[1]", None, "", {"a": 1}, "5"])
def test_any_arguments_become_an_object(arguments: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    block = turns(*ASK, says("assistant", None, tool_calls=[call]))[1]["content"][0]
    assert isinstance(block["toolUse"]["input"], dict)


def test_odd_ids_are_rewritten_the_same_way_on_both_sides() -> None:
    for odd in ("ä b", "x" * 65, "", "functions.f:0"):
        loop = [says("assistant", None, tool_calls=[{**CALL, "id": odd}]), {**RESULT, "tool_call_id": odd}]
        _, called, result = turns(*ASK, *loop)
        use_id = called["content"][0]["toolUse"]["toolUseId"]
        assert TOOL_ID.fullmatch(use_id)
        assert result["content"][0]["toolResult"]["toolUseId"] == use_id
        assert result["content"][0]["toolResult"].get("status") is None


def test_mistral_gets_ids_of_nine_letters() -> None:
    loop = [
        says("assistant", None, tool_calls=[CALL, {**CALL, "id": "abcDEF123"}]),
        RESULT,
        {**RESULT, "tool_call_id": "abcDEF123"},
    ]
    found = turns(*ASK, *loop, model=MISTRAL)
    ids = [block["toolUse"]["toolUseId"] for block in found[1]["content"]]
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", use_id) for use_id in ids)
    assert ids[1] == "abcDEF123"
    assert [block["toolResult"]["toolUseId"] for block in found[2]["content"]] == ids


def test_functions_of_old_are_tools() -> None:
    history = [
        *ASK,
        says("assistant", None, function_call={"name": "f", "arguments": "{}"}),
        says("function", "1", name="f"),
    ]
    request = built(
        target(), messages=history, functions=[{"name": "f", "parameters": {}}], function_call={"name": "f"}
    )
    body = orjson.loads(request.body)
    check(body)
    assert body["toolConfig"]["toolChoice"] == {"tool": {"name": "f"}}
    assert {"functions", "function_call"} <= set(request.translated)


# --- media -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:image/jpg;base64,AA==", "jpeg"),
        ("data:image/webp;base64,AA==", "webp"),
        ("data:IMAGE/GIF;base64,AA==", "gif"),
    ],
)
def test_an_image_has_the_format_of_its_media_type(url: str, kind: str) -> None:
    block = turns(says("user", [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]))[0]["content"][0]
    assert block == {"image": {"format": kind, "source": {"bytes": "AA=="}}}


def test_media_in_s3_are_named_and_not_fetched() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "s3://bucket/a.webp"}},
        {"type": "video_url", "video_url": {"url": "s3://b/c.mov"}},
    ]
    image, video = turns(says("user", parts), model=NOVA)[0]["content"]
    assert image == {"image": {"format": "webp", "source": {"s3Location": {"uri": "s3://bucket/a.webp"}}}}
    assert video["video"]["format"] == "mov"


def test_documents_get_neutral_names_and_a_text_beside_them() -> None:
    content = turns(says("user", [PDF, PDF]))[0]["content"]
    assert [block["document"]["name"] for block in content[:2]] == ["document-1", "document-2"]
    assert "text" in content[2]
    assert "secret" not in str(content)


def test_a_documents_format_comes_from_its_name_or_type() -> None:
    def kind(name: str, media: str) -> str:
        part = {"type": "file", "file": {"filename": name, "file_data": f"data:{media};base64,AA=="}}
        found: str = turns(says("user", [part]))[0]["content"][0]["document"]["format"]
        return found

    assert kind("a.md", "text/plain") == "md"
    assert kind("", "text/csv") == "csv"
    assert kind("b.xlsx", "application/octet-stream") == "xlsx"
    with pytest.raises(UnsupportedParameter):
        kind("a.exe", "application/octet-stream")


def test_audio_goes_to_models_that_hear() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}}
    block = turns(says("user", [part]), model="mistral.voxtral-mini-3b-2507")[0]["content"][0]
    assert block == {"audio": {"format": "mp3", "source": {"bytes": "AA=="}}}


def test_images_in_a_result_stand_beside_it_where_the_model_wants_that() -> None:
    picture = {**RESULT, "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PNG}}]}
    loop = [*ASK, says("assistant", None, tool_calls=[CALL]), picture, says("user", "so?")]
    inside = turns(*loop)[2]["content"]
    assert [next(iter(block)) for block in inside[0]["toolResult"]["content"]] == ["text", "image"]
    beside = turns(*loop, model=MISTRAL)[2]["content"]
    assert [next(iter(block)) for block in beside] == ["toolResult", "image", "text"]


# --- caching ---------------------------------------------------------------------------------------------------

MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
POINT = {"cachePoint": {"type": "default"}}


def test_a_cache_point_stands_behind_what_was_marked() -> None:
    body = build(
        NOVA,
        messages=[
            says("system", [{"type": "text", "text": "s", **MARK}]),
            says("user", "a", **MARK),
            says("assistant", None, tool_calls=[CALL]),
            {**RESULT, **MARK},
        ],
        tools=[{**WEATHER, **MARK}],
    )
    check(body)
    assert body["system"] == [{"text": "s"}, POINT]
    assert body["messages"][0]["content"] == [{"text": "a"}, POINT]
    assert body["messages"][2]["content"][1] == POINT
    assert body["toolConfig"]["tools"][1] == POINT


def test_a_cache_points_ttl_goes_to_models_that_know_it() -> None:
    assert {"cachePoint": {"type": "default", "ttl": "1h"}} in turns(says("user", "a", **MARK))[0]["content"]
    assert POINT in turns(says("user", "a", **MARK), model=NOVA)[0]["content"]
    assert "cachePoint" not in str(turns(says("user", "a", **MARK), model=LLAMA))


def test_the_last_four_cache_points_are_kept() -> None:
    parts = [{"type": "text", "text": str(n), **MARK} for n in range(6)]
    content = turns(says("user", parts), model=NOVA)[0]["content"]
    assert [next(iter(block)) for block in content] == ["text", "text", *("text", "cachePoint") * 4]


def test_a_blank_or_thinking_block_gets_no_cache_point() -> None:
    message = says("assistant", [{"type": "text", "text": " ", **MARK}], thinking_blocks=[SIGNED], tool_calls=[CALL])
    assert "cachePoint" not in str(turns(*ASK, message)[1])


def test_automatic_caching_marks_the_end() -> None:
    assert turns(*ASK, model=NOVA, cache_control={"type": "ephemeral"})[-1]["content"][-1] == POINT


# --- tools -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "model", "native"),
    [
        ("auto", CLAUDE, None),
        ("required", CLAUDE, {"any": {}}),
        ("required", LLAMA, None),
        ({"type": "function", "function": {"name": "weather"}}, NOVA, {"tool": {"name": "weather"}}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WEATHER]}}, NOVA, {"any": {}}),
    ],
)
def test_a_tool_choice_becomes_converses(choice: Any, model: str, native: Any) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    request = built(target(model), tools=[WEATHER, other], tool_choice=choice)
    body = orjson.loads(request.body)
    check(body)
    assert body["toolConfig"].get("toolChoice") == native
    assert ("tool_choice" in request.translated) == (native is None and choice != "auto")
    allowed = isinstance(choice, dict) and choice["type"] == "allowed_tools"
    assert len(body["toolConfig"]["tools"]) == (1 if allowed else 2)


def test_no_tool_choice_leaves_the_tools_out_unless_the_history_needs_them() -> None:
    assert "toolConfig" not in build(tools=[WEATHER], tool_choice="none")
    body = build(
        tools=[WEATHER], tool_choice="none", messages=[*ASK, says("assistant", None, tool_calls=[CALL]), RESULT]
    )
    assert "toolChoice" not in body["toolConfig"]


def test_a_forced_tool_is_free_while_claude_thinks() -> None:
    request = built(target(), tools=[WEATHER], tool_choice="required", reasoning_effort="low")
    assert "toolChoice" not in orjson.loads(request.body)["toolConfig"]
    assert "tool_choice" in request.translated


def test_calls_one_at_a_time_are_claudes() -> None:
    fields = build(tools=[WEATHER], parallel_tool_calls=False)["additionalModelRequestFields"]
    assert fields == {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    assert built(target(NOVA), tools=[WEATHER], parallel_tool_calls=True).dropped == ()


def test_names_that_do_not_fit_are_rewritten_everywhere_and_apart() -> None:
    names = ["a.b", "a/b", "ü" * 80]
    tools = [{"type": "function", "function": {"name": name, "description": " "}} for name in names]
    call = {"id": "c", "type": "function", "function": {"name": "a/b", "arguments": "{}"}}
    body = build(
        tools=tools,
        tool_choice={"type": "function", "function": {"name": "a/b"}},
        messages=[*ASK, says("assistant", None, tool_calls=[call])],
    )
    check(body)
    natives = [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]]
    assert natives[:2] == ["a_b", "a_b_2"]
    assert body["toolConfig"]["toolChoice"] == {"tool": {"name": "a_b_2"}}
    assert body["messages"][1]["content"][0]["toolUse"]["name"] == "a_b_2"


def test_references_in_a_schema_are_unfolded() -> None:
    schema = {
        "$schema": "x",
        "$defs": {"c": {"type": "string"}},
        "properties": {"a": {"$ref": "#/$defs/c", "title": "A"}},
    }
    found = build(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])["toolConfig"]["tools"][
        0
    ]
    assert found["toolSpec"]["inputSchema"]["json"] == {
        "properties": {"a": {"type": "string", "title": "A"}},
        "type": "object",
    }


def test_a_schema_that_unfolds_without_end_keeps_its_references() -> None:
    circle = {
        "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}}},
        "properties": {"n": {"$ref": "#/$defs/n"}},
    }
    doubling: Json = {"$defs": {"l0": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/l40"}}}
    for n in range(40):
        doubling["$defs"][f"l{n + 1}"] = {"anyOf": [{"$ref": f"#/$defs/l{n}"}, {"$ref": f"#/$defs/l{n}"}]}
    nowhere = {"properties": {"x": {"$ref": "https://a.test/schema"}, "y": {"$ref": "#/$defs/none"}}}
    for schema in (circle, doubling, nowhere):
        found = build(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])["toolConfig"][
            "tools"
        ][0]
        assert found["toolSpec"]["inputSchema"]["json"] == {**schema, "type": "object"}


def test_strict_goes_to_models_that_take_it() -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    spec = build(tools=[strict])["toolConfig"]["tools"][0]["toolSpec"]
    assert spec["strict"] is True
    assert spec["inputSchema"]["json"]["additionalProperties"] is False
    assert "strict" not in build(NOVA, tools=[strict])["toolConfig"]["tools"][0]["toolSpec"]


def test_nova_searches_the_web() -> None:
    body = build(NOVA, web_search_options={})
    check(body)
    assert body["toolConfig"] == {"tools": [{"systemTool": {"name": "nova_grounding"}}]}
    own = build(NOVA, tools=[{"systemTool": {"name": "nova_code_interpreter"}}])
    assert own["toolConfig"]["tools"] == [{"systemTool": {"name": "nova_code_interpreter"}}]


# --- the form of the answer ------------------------------------------------------------------------------------


def wanted(schema: Json, **more: Any) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}


def test_a_schema_travels_as_text_where_the_model_knows_it() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 1, "description": "Years"}}}
    body = build(CLAUDE, response_format=wanted(schema, description="d"))
    check(body)
    definition = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (definition["name"], definition["description"]) == ("n", "d")
    assert json.loads(definition["schema"]) == {
        "type": "object",
        "properties": {"age": {"type": "integer", "description": "Years (minimum: 1)"}},
        "additionalProperties": False,
    }
    assert "toolConfig" not in body


def test_structured_output_loses_no_limit_without_saying_so() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"oneOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "phone"}]},
            "b": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "object", "properties": {}}},
            "pattern": {"type": "string", "pattern": "^x"},
        },
    }
    definition = build(CLAUDE, response_format=wanted(schema))["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    found = json.loads(definition["schema"])["properties"]
    assert found["a"] == {
        "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "description": "(format: phone)"}]
    }
    assert found["b"]["minItems"] == 1
    assert found["b"]["description"] == "(maxItems: 3)"
    assert found["b"]["items"]["additionalProperties"] is False
    assert found["pattern"] == {"type": "string", "description": "(pattern: ^x)"}


def test_a_schema_is_emulated_by_a_forced_tool_elsewhere() -> None:
    request = built(target(NOVA), response_format=wanted({"type": "object", "properties": {}}))
    body = orjson.loads(request.body)
    check(body)
    assert body["toolConfig"]["toolChoice"] == {"tool": {"name": "json_answer"}}
    assert request.translated == ("response_format",)
    beside = build(NOVA, response_format=wanted({"type": "object"}), tools=[WEATHER])
    assert beside["toolConfig"]["toolChoice"] == {"any": {}}
    assert len(beside["toolConfig"]["tools"]) == 2


def test_a_schema_that_is_no_object_is_wrapped() -> None:
    body = build(NOVA, response_format=wanted({"type": "array", "items": {}}))
    check(body)
    schema = body["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"]
    assert schema["properties"] == {"values": {"type": "array", "items": {}}}


def test_the_emulated_tool_gives_way_to_a_tool_of_its_name() -> None:
    mine = {"type": "function", "function": {"name": "json_answer"}}
    body = build(NOVA, response_format=wanted({"type": "object"}), tools=[mine])
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["json_answer", "json_answer_"]


def test_a_json_object_is_asked_for_in_words() -> None:
    request = built(target(), messages=[SYSTEM, *ASK], response_format={"type": "json_object"})
    system = orjson.loads(request.body)["system"]
    assert len(system) == 2
    assert "JSON" in system[1]["text"]
    assert request.translated == ("response_format",)


# --- any conversation ------------------------------------------------------------------------------------------

TEXTS = st.one_of(st.sampled_from(["", " ", "a", "hello\n", "é"]), st.text(max_size=5))
IDS = st.sampled_from(["a", "b", "call_1", "ä", "x" * 70, "functions.f:0", ""])
NAMES = st.sampled_from(["f", "g", "a.b", "a/b", "n" * 70, "ü"])
PARTS = st.one_of(
    st.builds(lambda text, mark: {"type": "text", "text": text, **mark}, TEXTS, st.sampled_from([{}, MARK])),
    st.just({"type": "image_url", "image_url": {"url": PNG}}),
    st.just(PDF),
)
CONTENT = st.one_of(st.none(), TEXTS, st.lists(PARTS, max_size=4))
CALLS = st.builds(
    lambda use_id, name, arguments: {
        "id": use_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    IDS,
    NAMES,
    st.sampled_from(["", "{}", '{"a":1}', "{bad", None, '{"a":1}{"b":2}']),
)
MESSAGES = st.one_of(
    st.builds(says, st.sampled_from(["user", "system", "developer"]), CONTENT),
    st.builds(lambda content, calls: says("assistant", content, tool_calls=calls), TEXTS, st.lists(CALLS, max_size=3)),
    st.builds(
        lambda content, blocks: says("assistant", content, thinking_blocks=blocks),
        TEXTS,
        st.lists(st.just(SIGNED), max_size=2),
    ),
    st.builds(
        lambda use_id, content, mark: {"role": "tool", "tool_call_id": use_id, "content": content, **mark},
        IDS,
        CONTENT,
        st.sampled_from([{}, MARK]),
    ),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    messages=st.lists(MESSAGES, max_size=9),
    model=st.sampled_from(MODELS),
    tools=st.lists(NAMES, max_size=3, unique=True),
    effort=st.sampled_from([None, "none", "high"]),
)
def test_any_conversation_becomes_one_that_converse_takes(
    messages: list[Json], model: str, tools: list[str], effort: str | None
) -> None:
    messages = [m for m in messages if m["role"] not in ("system", "developer") or isinstance(m["content"], str | None)]
    params: Json = {"messages": messages, "reasoning_effort": effort}
    params["tools"] = [{"type": "function", "function": {"name": name}} for name in tools]
    before = copy.deepcopy(params)
    try:
        body = build(model, params)
    except UnsupportedParameter as error:
        assert error.param == "messages"
        assert model == GPT_OSS or "image" in str(error) or "document" in str(error)
        return
    check(body)
    assert params == before
    assert build(model, params) == body


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["type", "role", "content", "text", "tool_calls", "function", "name", "image_url"]),
                inner,
                max_size=3,
            ),
        ),
        max_leaves=8,
    )
)
def test_a_malformed_message_is_our_error_and_never_a_crash(value: Any) -> None:
    for messages in ([value], [{"role": "user", "content": value}], [{"role": "assistant", "tool_calls": value}]):
        try:
            build(CLAUDE, messages=messages)
        except GatewayError as error:
            assert error.status == 400


# --- pairs -----------------------------------------------------------------------------------------------------


def pairs() -> list[Any]:
    folder = corpus.CORPUS / "_pairs"
    if not folder.is_dir():
        return [pytest.param({}, marks=pytest.mark.skip(reason="no recorded traffic"))]
    found = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    return [
        pytest.param(pair, id=pair["id"])
        for pair in found
        if "bedrock" in pair["members"] and "openai" in pair["members"]
    ]


def meaning(body: Json) -> Json:
    """The body without what differs by library: limits, ids, descriptions, strictness, auto, empty members."""
    numbers: dict[str, str] = {}
    text = json.dumps(body, sort_keys=True)
    for use_id in re.findall(r'"toolUseId": "([^"]+)"', text):
        numbers.setdefault(use_id, f"id-{len(numbers)}")
        text = text.replace(use_id, numbers[use_id])
    found: Json = json.loads(text)
    found.get("inferenceConfig", {}).pop("maxTokens", None)
    config = found.get("toolConfig", {})
    config.pop("toolChoice", None) if config.get("toolChoice") == {"auto": {}} else None
    for tool in config.get("tools", ()):
        spec = tool["toolSpec"]
        spec.pop("strict", None)
        spec["inputSchema"]["json"] = {
            k: v for k, v in spec["inputSchema"]["json"].items() if k not in ("additionalProperties", "title")
        }
    for turn in found["messages"]:
        for block in turn["content"]:
            block.get("toolResult", {}).pop("status", None)
    return {name: value for name, value in found.items() if value not in ({}, [])}


# Where a library sent other tools to Bedrock than to OpenAI: it left one out, forced none, or made a tool of a schema.
OTHERWISE = {
    "pydantic-tool-choice-tools_plus_output-1": ("toolConfig",),
    "pydantic-tool-choice-tools_plus_output-2": ("toolConfig",),
    "reqllm-object_basic": ("toolConfig", "outputConfig"),
    "reqllm-tool_round_trip_1": ("toolConfig",),
    "reqllm-tool_round_trip_2": ("toolConfig",),
}


@pytest.mark.parametrize("pair", pairs())
def test_a_scenario_becomes_what_other_libraries_sent(pair: Json) -> None:
    member = pair["members"]["bedrock"]
    request = built(target(member["model"]), pair["members"]["openai"]["body"])
    body = orjson.loads(request.body)
    check(body)
    ours, theirs = meaning(body), meaning(member["body"])
    for name in OTHERWISE.get(pair["id"], ()):
        ours.pop(name, None), theirs.pop(name, None)
    assert ours == theirs
    assert request.url.rsplit("/", 1)[1] == member["endpoint"]
