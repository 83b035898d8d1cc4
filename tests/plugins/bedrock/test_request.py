from __future__ import annotations

import json
from urllib.parse import unquote

import orjson
import pytest

from gateway.abilities import abilities
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.hub import Json
from tests.plugins.bedrock.rules import check
from tests.plugins.bedrock.support import (
    BASE,
    CALL,
    CLAUDE,
    GPT_OSS,
    LLAMA,
    NOVA,
    OPUS_48,
    PNG,
    RESULT,
    SYSTEM,
    WEATHER,
    build,
    built,
    rows,
    says,
    target,
)


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
    assert set(request.translated) == {"temperature", "stop", "parallel_tool_calls"}


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


MARK: Json = {"cache_control": {"type": "ephemeral"}}
MARKED: Json = {"type": "text", "text": "t", **MARK}
LONG_MARKED: Json = {"type": "text", "text": "t", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
PICTURE: Json = {
    "role": "user",
    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0=", "detail": "low"}}],
}


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
        (NOVA, {"service_tier": ["flex"]}, {"service_tier"}),
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
        (CLAUDE, {"messages": [{"role": "user", "name": "bob", "content": "q"}]}, {"messages.name"}),
        (CLAUDE, {"messages": [PICTURE]}, {"messages.image_url.detail"}),
        (CLAUDE, {"messages": [{"role": "user", "content": [MARKED] * 5}]}, {"cache_control"}),
        (LLAMA, {"messages": [{"role": "user", "content": [MARKED]}]}, {"cache_control"}),
        (LLAMA, {"tools": [{**WEATHER, **MARK}]}, {"cache_control"}),
        (NOVA, {"messages": [{"role": "user", "content": [LONG_MARKED]}]}, {"cache_control.ttl"}),
        (
            NOVA,
            {"tools": [{**WEATHER, "function": {**WEATHER["function"], "strict": True}}]},
            {"tools.function.strict"},
        ),
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


def test_values_that_ask_for_nothing_are_not_called_lost() -> None:
    nothing = {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "logprobs": False, "metadata": {}}
    for model in (CLAUDE, OPUS_48, LLAMA):
        request = built(target(model, unsupported="reject"), **nothing, stop=[], repetition_penalty=1, seed=None)
        assert request.dropped == request.translated == ()
        assert set(orjson.loads(request.body)) == {"messages"}
    assert built(target(OPUS_48), temperature=1, top_p=1).dropped == ()
    assert built(target(OPUS_48), temperature=True).dropped == ("temperature",)


def test_guided_json_is_a_response_format() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    request = built(target(), guided_json=schema)
    definition = orjson.loads(request.body)["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert json.loads(definition["schema"])["properties"] == schema["properties"]
    assert "guided_json" in request.translated
    assert build(NOVA, guided_json=schema)["toolConfig"]["toolChoice"] == {"tool": {"name": "json_answer"}}


@pytest.mark.parametrize("family", ["claude-sonnet-4-5", "anthropic.claude-sonnet-4-5-20250929-v1:0"])
def test_a_private_name_has_the_abilities_of_its_base_model(family: str) -> None:
    where = target(
        "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/x", abilities=abilities(rows(), family)
    )
    body = orjson.loads(built(where, reasoning_effort="low").body)
    assert body["additionalModelRequestFields"]["thinking"]["type"] == "enabled"


def test_no_messages_are_refused_and_not_made_up() -> None:
    with pytest.raises(InvalidRequest) as caught:
        build(CLAUDE, messages=[])
    assert caught.value.param == "messages"


def test_what_says_the_same_in_other_words_is_named_as_translated() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}}}
    assert built(target(CLAUDE), response_format=schema).translated == ("response_format",)
    assert built(target(CLAUDE), tools=[WEATHER], parallel_tool_calls=False).translated == ("parallel_tool_calls",)


def test_a_response_format_without_a_type_is_refused() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        build(CLAUDE, response_format={"schema": {}})
    assert caught.value.param == "response_format"
