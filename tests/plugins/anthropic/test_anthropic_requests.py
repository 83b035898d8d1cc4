"""Hub requests as Messages requests."""

from __future__ import annotations

import json
import re
from typing import Any, get_args, get_type_hints

import anthropic.types as official
import orjson
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gateway.contract import Credential
from gateway.envelope import open_envelope
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.fields import missing
from gateway.hub import PARAMS
from plugins.anthropic import PROVIDER, build_body, check
from tests import corpus
from tests.plugins.anthropic.anthropic_support import ROWS, SHARED, USER, build, chat, sent, target

NEW, OLD, BUDGET, ALWAYS, SIX = (
    "claude-opus-4-8",
    "claude-3-haiku-20240307",
    "claude-sonnet-4-5",
    "claude-fable-5-1",
    "claude-opus-4-6",
)
FAMILIES = (NEW, OLD, BUDGET, ALWAYS, SIX, "claude-opus-4-5", "claude-sonnet-4-0", "claude-of-2030")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
PNG = "data:image/png;base64,iVBORw0="


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def system(value: Any, **more: Any) -> dict[str, Any]:
    return {"role": "system", "content": value, **more}


def said(value: Any = "ok", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": value, **more}


def calls(*ids: str, content: Any = None, **more: Any) -> dict[str, Any]:
    made = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": content, "tool_calls": made, **more}


def result(call_id: str, content: Any = "5", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


# What the official types accept

ADAPTERS = {
    False: TypeAdapter(MessageCreateParamsNonStreaming),
    True: TypeAdapter(MessageCreateParamsStreaming),
}
BLOCKS = {
    get_args(get_type_hints(kind)["type"])[0]: frozenset(get_type_hints(kind))
    for kind in (
        *(official.TextBlockParam, official.ImageBlockParam, official.DocumentBlockParam, official.ToolUseBlockParam),
        *(official.ToolResultBlockParam, official.ThinkingBlockParam, official.RedactedThinkingBlockParam),
    )
}
# The types are of the newest API version, which has no sampling parameters.
TOP = frozenset((*get_type_hints(MessageCreateParamsStreaming), "temperature", "top_p", "top_k"))


def exhaust(value: Any) -> Any:
    """Pydantic checks an Iterable only while it is read."""
    if isinstance(value, dict):
        return {key: exhaust(item) for key, item in value.items()}
    if isinstance(value, str | bytes | int | float | type(None)):
        return value
    return [exhaust(item) for item in value]


def assert_official(body: dict[str, Any]) -> None:
    exhaust(ADAPTERS[body.get("stream", False)].validate_python(body))
    assert set(body) <= TOP
    for block in (block for turn in body["messages"] for block in turn["content"]):
        assert set(block) <= BLOCKS.get(block["type"], set(block)), block


# The table and the record


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_is_total(family):
    assert missing(PROVIDER.table(target(family)), PARAMS) == set()


def test_the_record_authorizes_by_header_and_only_by_that():
    request = build()
    assert PROVIDER.authorize(request, Credential("key", "k"), 0) == {"x-api-key": "k"}
    assert PROVIDER.authorize(request, Credential("bearer", "t"), 0) == {"authorization": "Bearer t"}


def test_options_are_checked():
    assert check({"api_version": "2026-10-21", "beta": ["a", "b"]}, "m") == []
    assert check({}, "m") == []
    assert [problem.option for problem in check({"api_version": "latest", "beta": 7}, "m")] == ["api_version", "beta"]


def test_every_row_of_the_capability_data_names_known_abilities():
    assert {name for row in ROWS for name in row} == {"match", *ROWS[0]}


@pytest.mark.parametrize(
    ("family", "max_output"),
    [
        ("claude-3-haiku-20240307", 4096),
        ("claude-opus-4-1-20250805", 32000),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", 64000),
        ("claude-opus-4-6", 128000),
        ("claude-of-2030", 128000),
    ],
)
def test_the_models_maximum_is_sent_when_no_limit_is_named(family, max_output):
    assert sent(family)["max_tokens"] == max_output


def test_a_date_is_not_taken_for_a_version():
    assert target("claude-fable-5-20260901").abilities["forced_tool"] is True
    assert target("claude-fable-5-2-20260901").abilities["forced_tool"] is False


# Goldens


@pytest.mark.skipif(not SHARED.is_dir(), reason="the specification is not beside the project")
def test_the_golden_request_gives_the_golden_body():
    given, wanted = map(
        json.loads, re.findall(r"```json\n(.*?)\n```", (SHARED / "providers/goldens.md").read_text())[:2]
    )
    request = PROVIDER.chat.build_request(chat(**given), target("claude-sonnet-4-5"))
    assert json.loads(request.body) == wanted
    assert request.dropped == ("seed",)
    assert set(request.translated) == {"temperature", "stop", "parallel_tool_calls"}
    assert request.url == "https://api.anthropic.com/v1/messages"
    assert_official(wanted)


# Headers


def test_the_version_is_an_option_and_betas_are_merged_once():
    assert build().headers["anthropic-version"] == "2023-06-01"
    where = target(options={"api_version": "2026-10-21", "beta": ["a", "b"]})
    headers = {"anthropic-beta": "b, c"}
    request = PROVIDER.chat.build_request(chat(headers, anthropic={"betas": ["d"]}), where)
    assert request.headers["anthropic-version"] == "2026-10-21"
    assert request.headers["anthropic-beta"] == "a,b,c,d"
    assert "betas" not in json.loads(request.body)
    assert "anthropic-beta" not in build().headers


def test_a_file_by_id_brings_the_beta_that_it_needs():
    part = {"type": "file", "file": {"file_id": "file_1"}}
    request = build(messages=[{"role": "user", "content": [part]}])
    assert request.headers["anthropic-beta"] == "files-api-2025-04-14"
    inside = build(messages=[USER, calls("a"), result("a", [part])], tools=[TOOL])
    assert inside.headers["anthropic-beta"] == "files-api-2025-04-14"


# Parameters


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        ({"max_tokens": 7}, "max_tokens", 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, "max_tokens", 9),
        ({"max_tokens": 10**9}, "max_tokens", 64000),
        ({"max_tokens": 0}, "max_tokens", 0),
        ({"temperature": 0.2}, "temperature", 0.2),
        ({"temperature": 2}, "temperature", 1),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"top_k": 4}, "top_k", 4),
        ({"stop": "a"}, "stop_sequences", ["a"]),
        ({"stop": ["a", " ", ""]}, "stop_sequences", ["a"]),
        ({"stream": True}, "stream", True),
        ({"user": "u"}, "metadata", {"user_id": "u"}),
        ({"user": "u", "safety_identifier": "s"}, "metadata", {"user_id": "s"}),
        ({"metadata": {"user_id": "m"}}, "metadata", {"user_id": "m"}),
        ({"service_tier": "default"}, "service_tier", "standard_only"),
        ({"service_tier": "priority"}, "service_tier", "auto"),
        ({"cache_control": {"type": "ephemeral"}}, "cache_control", {"type": "ephemeral"}),
        ({"anthropic": {"speed": "fast"}}, "speed", "fast"),
        ({"max_tokens": 200_000, "anthropic": {"betas": ["output-300k-2026-03-24"]}}, "max_tokens", 200_000),
    ],
)
def test_a_parameter_reaches_the_provider(body, name, value):
    request = build(**body)
    assert json.loads(request.body)[name] == value
    assert request.dropped == ()


PICTURE = {
    "role": "user",
    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0=", "detail": "low"}}],
}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"seed": 1, "logit_bias": {"1": 2}, "verbosity": "low"}, {"seed", "logit_bias", "verbosity"}),
        (
            {"frequency_penalty": 1, "presence_penalty": 1, "repetition_penalty": 2, "min_p": 0.1},
            {"frequency_penalty", "presence_penalty", "repetition_penalty", "min_p"},
        ),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs", "top_logprobs"}),
        ({"user": "me@example.com"}, {"user"}),
        ({"user": "+49 170 1234567"}, {"user"}),
        ({"metadata": {"a": "b"}}, {"metadata"}),
        ({"stop": [" "]}, {"stop"}),
        ({"service_tier": "flex"}, {"service_tier"}),
        ({"temperature": 0.5, "top_p": 0.5}, {"top_p"}),
        ({"tool_choice": "required"}, {"tool_choice"}),
        ({"of_2030": 1}, {"of_2030"}),
        ({"web_search_options": "low"}, {"web_search_options"}),
        ({"messages": [{"role": "user", "name": "bob", "content": "q"}]}, {"messages.name"}),
        ({"messages": [PICTURE]}, {"messages.image_url.detail"}),
        ({"store": True, "prediction": {}, "prompt_cache_key": "k"}, {"store", "prediction", "prompt_cache_key"}),
    ],
)
def test_what_is_left_out_is_named(body, names):
    assert set(build(**body).dropped) == names
    with pytest.raises(UnsupportedParameter):
        build(BUDGET, {"unsupported": "reject"}, **body)


@pytest.mark.parametrize(
    "body",
    [
        {"n": 1},
        {"logprobs": False},
        {"modalities": ["text"]},
        {"frequency_penalty": 0},
        {"logit_bias": {}},
        {"seed": None},
    ],
)
def test_what_asks_for_nothing_is_not_named_even_under_a_strict_policy(body):
    assert build(BUDGET, {"unsupported": "reject"}, **body).dropped == ()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": ["x"]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "mystery"}]}, "tools"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "maybe"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"anthropic": {"model": "x"}}, "anthropic"),
        ({"anthropic": "x"}, "anthropic"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "mystery"}]}]}, "messages"),
        ({"messages": [system([{"type": "image_url", "image_url": PNG}]), USER]}, "messages"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_name(body, param):
    with pytest.raises(InvalidRequest) as caught:
        build(**body)
    assert caught.value.status == 400
    assert caught.value.param == param


def test_several_choices_are_left_to_the_gateway_where_the_deployment_says_so():
    assert "n" not in sent(BUDGET, {"emulate": frozenset(("n",))}, n=2)


def test_a_request_nested_too_deeply_is_refused():
    deep: Any = {}
    for _ in range(300):
        deep = {"properties": {"a": deep}}
    raw = json.dumps({"model": "m", "messages": [USER], "anthropic": {"x": deep}}).encode()
    with pytest.raises(InvalidRequest):
        PROVIDER.chat.build_request(open_envelope(raw), target())


def test_parameters_that_an_attempt_must_leave_out_are_left_out():
    request = build(
        BUDGET, {"without": frozenset(("temperature", "tools", "stop"))}, temperature=0.5, tools=[TOOL], stop="x"
    )
    body = json.loads(request.body)
    assert not {"temperature", "tools", "stop_sequences"} & set(body)
    assert set(request.dropped) == {"temperature", "tools", "stop"}


def test_the_native_object_is_merged_last_one_level_deep():
    body = sent(NEW, reasoning_effort="low", anthropic={"output_config": {"effort": "max"}, "top_k": 3})
    assert body["output_config"] == {"effort": "max"}
    assert body["top_k"] == 3


# Families


def test_newer_models_get_no_sampling_parameters():
    request = build(NEW, temperature=0.3, top_p=0.4, top_k=5)
    assert not {"temperature", "top_p", "top_k"} & set(json.loads(request.body))
    assert request.dropped == ("temperature", "top_p", "top_k")
    assert build(NEW, temperature=1).dropped == ()


def test_a_neutral_value_is_sent_where_it_is_taken_and_left_out_unnamed_elsewhere():
    assert sent(BUDGET, temperature=1)["temperature"] == 1
    assert build(BUDGET, temperature=0.5, top_p=1).dropped == ()
    assert build(BUDGET, temperature=1, reasoning_effort="low").dropped == ()


def test_the_newest_version_gets_no_sampling_parameters_either():
    request = build(BUDGET, {"options": {"api_version": "2026-10-21"}}, temperature=0.3)
    assert request.dropped == ("temperature",)


def test_older_models_take_both_as_recorded():
    body = sent("claude-sonnet-4-0", temperature=0.7, top_p=0.3, top_k=50)
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.7, 0.3, 50)


# Thinking


@pytest.mark.parametrize(
    ("family", "body", "thinking", "effort"),
    [
        (SIX, {"reasoning_effort": "minimal"}, {"type": "adaptive", "display": "summarized"}, "low"),
        (SIX, {"reasoning_effort": "xhigh"}, {"type": "adaptive", "display": "summarized"}, "high"),
        (SIX, {"reasoning_effort": "max"}, {"type": "adaptive", "display": "summarized"}, "max"),
        (NEW, {"reasoning_effort": "xhigh"}, {"type": "adaptive", "display": "summarized"}, "xhigh"),
        (NEW, {"reasoning_effort": "none"}, {"type": "disabled"}, None),
        (NEW, {"reasoning": {"enabled": False, "effort": "max"}}, {"type": "disabled"}, "high"),
        (ALWAYS, {"reasoning_effort": "none"}, None, "low"),
        (BUDGET, {"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 1024}, None),
        (BUDGET, {"reasoning_effort": "medium"}, {"type": "enabled", "budget_tokens": 2048}, None),
        (BUDGET, {"reasoning_effort": "high"}, {"type": "enabled", "budget_tokens": 4096}, None),
        (BUDGET, {"reasoning_effort": "max"}, {"type": "enabled", "budget_tokens": 16384}, None),
        (BUDGET, {"reasoning_effort": "none"}, None, None),
        ("claude-opus-4-5", {"reasoning_effort": "max"}, {"type": "enabled", "budget_tokens": 16384}, "high"),
        (
            BUDGET,
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            {"type": "enabled", "budget_tokens": 3000},
            None,
        ),
        (
            SIX,
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            {"type": "enabled", "budget_tokens": 3000},
            None,
        ),
        (
            NEW,
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            {"type": "adaptive", "display": "summarized"},
            "medium",
        ),
        (
            NEW,
            {"thinking": {"type": "enabled", "budget_tokens": 50000, "display": "omitted"}},
            {"type": "adaptive", "display": "omitted"},
            "max",
        ),
        (NEW, {"thinking": {"type": "adaptive"}, "reasoning_effort": "high"}, {"type": "adaptive"}, "high"),
        (NEW, {"thinking": {"type": "between_tools"}}, {"type": "between_tools"}, None),
        (BUDGET, {"thinking": {"type": "adaptive"}}, {"type": "enabled", "budget_tokens": 4096}, None),
        (BUDGET, {"thinking": {"type": "between_tools"}}, {"type": "between_tools"}, None),
        (BUDGET, {"thinking": {"type": "disabled"}}, None, None),
        (BUDGET, {"reasoning": {"max_tokens": 5000}}, {"type": "enabled", "budget_tokens": 5000}, None),
        (BUDGET, {"reasoning": {"enabled": True}}, {"type": "enabled", "budget_tokens": 2048}, None),
        (BUDGET, {"reasoning": {"effort": "high"}}, {"type": "enabled", "budget_tokens": 4096}, None),
        (
            BUDGET,
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}},
            {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
            None,
        ),
        (BUDGET, {"reasoning": {}}, None, None),
    ],
)
def test_thinking_follows_the_family(family, body, thinking, effort):
    request = build(family, **body)
    native = json.loads(request.body)
    assert native.get("thinking") == thinking
    assert native.get("output_config", {}).get("effort") == effort
    assert request.dropped == ()


@pytest.mark.parametrize(
    ("family", "body", "dropped"),
    [
        (OLD, {"reasoning_effort": "high"}, "reasoning_effort"),
        (BUDGET, {"reasoning_effort": "extreme"}, "reasoning_effort"),
        (BUDGET, {"reasoning": "yes"}, "reasoning"),
        (BUDGET, {"thinking": {"budget_tokens": 5}}, "thinking"),
        (BUDGET, {"thinking": {"type": "enabled", "budget_tokens": 100}}, "thinking"),
        (OLD, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
    ],
)
def test_thinking_that_cannot_be_is_named(family, body, dropped):
    request = build(family, **body)
    assert request.dropped == (dropped,)
    assert "thinking" not in json.loads(request.body)


def test_the_budget_gets_room_beside_the_answer():
    request = build(BUDGET, max_tokens=300, reasoning_effort="high")
    body = json.loads(request.body)
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (4396, 4096)
    assert "max_tokens" in request.translated
    body = sent(BUDGET, max_completion_tokens=63000, thinking={"type": "enabled", "budget_tokens": 63500})
    assert (body["max_tokens"], "thinking" in body) == (64000, False)
    full = build(BUDGET, max_tokens=64000, thinking={"type": "enabled", "budget_tokens": 64000})
    assert full.dropped == ("thinking",)
    assert "max_tokens" not in full.translated


def test_sampling_steps_back_while_thinking_except_a_top_p_that_was_recorded_as_taken():
    request = build(BUDGET, reasoning_effort="low", temperature=0.5, top_k=3, top_p=0.5)
    assert set(request.dropped) == {"temperature", "top_k", "top_p"}
    assert sent(BUDGET, reasoning_effort="low", top_p=0.95)["top_p"] == 0.95
    clamped = build(BUDGET, reasoning_effort="low", temperature=1.5)
    assert "temperature" in clamped.dropped
    assert "temperature" not in clamped.translated


# Tools


def test_a_tool_becomes_a_tool():
    function = {"name": "f", "description": "D", "parameters": {"properties": {"a": {}}}, "strict": False}
    (tool,) = sent(tools=[{"type": "function", "function": function}])["tools"]
    assert tool == {"name": "f", "description": "D", "input_schema": {"properties": {"a": {}}, "type": "object"}}


@pytest.mark.parametrize(
    "function", [{"name": "f"}, {"name": "f", "parameters": None, "description": ""}, {"name": "f", "parameters": {}}]
)
def test_a_tool_without_parameters_takes_an_empty_object_peer_bug_9(function):
    (tool,) = sent(tools=[{"type": "function", "function": function}])["tools"]
    assert tool == {"name": "f", "input_schema": {"type": "object", "properties": {}}}


def test_server_tools_and_native_tools_travel_on_unchanged():
    tools = [{"type": "web_search_20260209", "name": "web_search"}, {"name": "x", "input_schema": {"type": "object"}}]
    assert sent(tools=tools)["tools"] == tools


def test_extras_of_a_tool_are_kept():
    (tool,) = sent(tools=[{**TOOL, "defer_loading": True, "cache_control": {"type": "ephemeral"}}])["tools"]
    assert tool["defer_loading"] is True
    assert tool["cache_control"] == {"type": "ephemeral"}


def test_a_custom_tool_takes_one_string_and_tells_its_grammar():
    wanted = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: A"}}
    (tool,) = sent(tools=[{"type": "custom", "custom": {"name": "sh", "description": "Run", "format": wanted}}])[
        "tools"
    ]
    assert tool["input_schema"]["properties"] == {"input": {"type": "string"}}
    assert tool["description"].startswith("Run")
    assert "start: A" in tool["description"]


def test_a_custom_tool_without_words_has_no_description():
    (tool,) = sent(tools=[{"type": "custom", "custom": {"name": "sh", "format": {"type": "text"}}}])["tools"]
    assert "description" not in tool


def test_odd_names_are_mapped_for_tool_choice_and_history_alike():
    tool = {"type": "function", "function": {"name": "a.b"}}
    history = calls("c")
    history["tool_calls"][0]["function"]["name"] = "a.b"
    choice = {"type": "function", "function": {"name": "a.b"}}
    body = sent(tools=[tool], tool_choice=choice, messages=[USER, history, result("c")])
    assert body["tools"][0]["name"] == body["tool_choice"]["name"] == body["messages"][1]["content"][0]["name"] == "a_b"


@pytest.mark.parametrize(
    ("choice", "native"),
    [
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
        ({"type": "tool", "name": "f"}, {"type": "tool", "name": "f"}),
        ({"type": "any"}, {"type": "any"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}}, {"type": "any"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}, {"type": "auto"}),
    ],
)
def test_a_choice_is_translated(choice, native):
    assert sent(tools=[TOOL], tool_choice=choice).get("tool_choice", {"type": "auto"}) == native


def test_only_allowed_tools_are_offered():
    other = {"type": "function", "function": {"name": "g"}}
    allowed = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "g"}}]},
    }
    assert [tool["name"] for tool in sent(tools=[TOOL, other], tool_choice=allowed)["tools"]] == ["g"]


def test_parallel_calls_are_turned_off_where_there_is_a_choice():
    assert sent(tools=[TOOL], parallel_tool_calls=False)["tool_choice"] == {
        "type": "auto",
        "disable_parallel_tool_use": True,
    }
    assert sent(tools=[TOOL], parallel_tool_calls=False, tool_choice="none")["tool_choice"] == {"type": "none"}
    assert "tool_choice" not in sent(parallel_tool_calls=False)


@pytest.mark.parametrize(("family", "body"), [(ALWAYS, {}), (BUDGET, {"reasoning_effort": "low"})])
def test_a_forced_tool_becomes_auto_where_it_is_refused(family, body):
    request = build(family, tools=[TOOL], tool_choice="required", **body)
    assert json.loads(request.body)["tool_choice"] == {"type": "auto"}
    assert "tool_choice" in request.translated


def test_functions_are_tools():
    assert build(function_call="required").dropped == ("function_call",)
    assert build(functions=[{"name": "f"}], function_call="auto").translated == ("functions", "function_call")
    body = sent(functions=[{"name": "f"}], function_call={"name": "f"})
    assert body["tools"][0]["name"] == "f"
    assert body["tool_choice"] == {"type": "tool", "name": "f"}


def test_web_search_becomes_the_providers_own_tool():
    place = {"type": "approximate", "approximate": {"city": "Bonn", "country": "DE"}}
    request = build(web_search_options={"search_context_size": "low", "user_location": place})
    assert json.loads(request.body)["tools"] == [
        {
            "type": "web_search_20250305",
            "name": "web_search",
            "max_uses": 1,
            "user_location": {"type": "approximate", "city": "Bonn", "country": "DE"},
        }
    ]
    assert request.translated == ("web_search_options",)
    assert sent(web_search_options={})["tools"] == [{"type": "web_search_20250305", "name": "web_search"}]


def test_strict_tools_are_strict_where_the_model_can_and_the_limits_allow():
    function = {
        "name": "f",
        "strict": True,
        "parameters": {"type": "object", "properties": {"a": {"type": "string", "minLength": 2}}, "required": ["a"]},
    }
    (tool,) = sent(tools=[{"type": "function", "function": function}])["tools"]
    assert tool["strict"] is True
    assert tool["input_schema"]["additionalProperties"] is False
    assert "minLength" not in tool["input_schema"]["properties"]["a"]
    (tool,) = sent("claude-sonnet-4-0", tools=[{"type": "function", "function": function}])["tools"]
    assert "strict" not in tool
    assert tool["input_schema"] == function["parameters"]
    many = [{"type": "function", "function": {**function, "name": f"f{at}"}} for at in range(21)]
    request = build(tools=many)
    assert not any("strict" in tool for tool in json.loads(request.body)["tools"])
    assert "tools" in request.translated


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {f"a{at}": {} for at in range(25)}},
        {
            "type": "object",
            "properties": {f"a{at}": {"type": ["string", "null"]} for at in range(17)},
            "required": [f"a{at}" for at in range(17)],
        },
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    ],
)
def test_a_strict_schema_that_would_not_compile_is_sent_without_strict(parameters):
    function = {"name": "f", "strict": True, "parameters": parameters}
    (tool,) = sent(tools=[{"type": "function", "function": function}])["tools"]
    assert tool == {"name": "f", "input_schema": parameters}


@pytest.mark.parametrize(
    ("parameters", "schema"),
    [
        (
            {
                "anyOf": [
                    {"properties": {"a": {}}, "required": ["a"]},
                    {"properties": {"b": {}}, "required": ["a", "b"]},
                ]
            },
            {"properties": {"a": {}, "b": {}}, "required": ["a"], "type": "object"},
        ),
        (
            {"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"required": ["b"]}], "required": ["c"]},
            {"properties": {"a": {}}, "required": ["c", "a", "b"], "type": "object"},
        ),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"x": {}}}}},
            {"$defs": {"A": {"type": "object", "properties": {"x": {}}}}, "type": "object", "properties": {"x": {}}},
        ),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
            {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}, "type": "object"},
        ),
        ({"$ref": "https://a.example/x"}, {"type": "object"}),
        ({"$ref": "#/nowhere"}, {"type": "object"}),
        ({"type": ["object", "null"]}, {"type": "object"}),
        ({"type": "object", "oneOf": "x"}, {"type": "object"}),
    ],
)
def test_the_root_of_a_tools_schema_is_a_plain_object(parameters, schema):
    (tool,) = sent(tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])["tools"]
    assert tool["input_schema"] == schema


# Shapes of answers

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1, "description": "A"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}


def test_a_schema_is_the_models_own_matter_where_it_can():
    request = build(response_format=FORMAT)
    assert json.loads(request.body)["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {"a": {"type": "integer", "description": "A. minimum: 1"}},
            "additionalProperties": False,
        },
    }
    assert request.translated == ("response_format",)
    assert sent(guided_json=SCHEMA)["output_config"] == sent(response_format=FORMAT)["output_config"]


@pytest.mark.parametrize(
    ("schema", "enforceable"),
    [
        (
            {"oneOf": [{"type": "string"}], "anyOf": [{"type": "null"}]},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        ),
        (
            {"$ref": "#/$defs/A", "description": "x", "$defs": {"A": {"maxLength": 3}}},
            {"$ref": "#/$defs/A", "$defs": {"A": {"description": "maxLength: 3"}}},
        ),
        ({"type": "string", "format": "uuid"}, {"type": "string", "format": "uuid"}),
        ({"type": "string", "format": "color"}, {"type": "string", "description": 'format: "color"'}),
        (
            {"type": "array", "minItems": 1, "items": {"type": "object"}},
            {"type": "array", "minItems": 1, "items": {"type": "object", "additionalProperties": False}},
        ),
        ({"type": "array", "minItems": 2}, {"type": "array", "description": "minItems: 2"}),
        ({"enum": [{"pattern": "x"}]}, {"enum": [{"pattern": "x"}]}),
        ({"properties": 3}, {"properties": 3, "additionalProperties": False}),
        ({"items": [{"minLength": 1}, True]}, {"items": [{"description": "minLength: 1"}, True]}),
    ],
)
def test_a_schema_keeps_what_can_be_enforced_and_tells_the_rest(schema, enforceable):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert sent(response_format=wanted)["output_config"]["format"]["schema"] == enforceable


def test_a_schema_that_refers_to_itself_stays_small_peer_bug_10():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {**node, "$defs": {"N": node}}}}
    assert len(build(response_format=wanted).body) < 600


def test_a_schema_nested_too_deeply_is_refused():
    deep: Any = {"type": "string"}
    for _ in range(120):
        deep = {"type": "array", "items": deep}
    with pytest.raises(InvalidRequest):
        build(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": deep}})


def test_json_without_schema_is_asked_for_in_words():
    request = build(response_format={"type": "json_object"}, messages=[system("S"), USER])
    found = json.loads(request.body)["system"]
    assert found[0] == text("S")
    assert "JSON" in found[1]["text"]
    assert request.translated == ("response_format",)
    assert "system" not in sent(response_format={"type": "text"})
    assert "JSON" in sent(response_format={"type": "json_schema", "json_schema": {"name": "x"}})["system"][0]["text"]


def test_an_older_model_is_made_to_call_a_tool_with_the_schema():
    body = sent("claude-sonnet-4-0", response_format=FORMAT)
    assert body["tools"] == [
        {"name": "json_tool_call", "description": "Respond with a JSON object", "input_schema": SCHEMA}
    ]
    assert body["tool_choice"] == {"type": "tool", "name": "json_tool_call", "disable_parallel_tool_use": True}
    assert "output_config" not in body
    assert PROVIDER.table(target("claude-sonnet-4-0"))["response_format"].decision == "emulate"


def test_the_json_tool_stands_beside_the_clients_tools():
    taken = {"type": "function", "function": {"name": "json_tool_call"}}
    body = sent("claude-sonnet-4-0", response_format=FORMAT, tools=[taken])
    assert len({tool["name"] for tool in body["tools"]}) == 2
    assert body["tool_choice"]["type"] == "any"
    assert (
        sent("claude-sonnet-4-0", response_format=FORMAT, tools=[TOOL], tool_choice="none")["tool_choice"]["name"]
        == "json_tool_call"
    )


def test_while_thinking_the_json_tool_is_asked_for_in_words():
    body = sent("claude-sonnet-4-0", response_format=FORMAT, reasoning_effort="low")
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "json_tool_call" in body["system"][-1]["text"]


def test_a_schema_that_is_no_object_is_wrapped_for_the_tool():
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}
    (tool,) = sent("claude-sonnet-4-0", response_format=wanted)["tools"]
    assert tool["input_schema"] == {
        "type": "object",
        "properties": {"values": {"type": "array"}},
        "required": ["values"],
    }


# Messages


def test_leading_system_messages_are_the_system_prompt_one_block_each():
    body = sent(messages=[system("A"), {"role": "developer", "content": [text("B"), text("")]}, system(" "), USER])
    assert body["system"] == [text("A"), text("B")]


def test_a_late_system_message_keeps_its_place_peer_bug_7():
    messages = [USER, system("now short"), said(), USER]
    assert [turn["role"] for turn in sent(NEW, messages=messages)["messages"]] == [
        "user",
        "system",
        "assistant",
        "user",
    ]
    old = sent(BUDGET, messages=messages)["messages"]
    assert old[0]["content"] == [text("hi"), text("<system>now short</system>")]
    assert "system" not in sent(NEW, messages=messages)


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([USER, system("x")], ["user", "system"]),
        ([USER, system("x"), USER], ["user"]),
        ([USER, said(), system("x"), USER], ["user", "assistant", "user"]),
        ([USER, said(), system("x")], ["user", "assistant", "user"]),
        ([USER, system("x"), system("y"), said(), USER], ["user", "system", "assistant", "user"]),
        ([USER, system(""), said(), USER], ["user", "assistant", "user"]),
        ([USER, calls("a"), result("a"), system("x")], ["user", "assistant", "user", "system"]),
    ],
)
def test_a_late_system_message_is_one_only_where_the_provider_allows_it(messages, roles):
    assert [turn["role"] for turn in sent(NEW, messages=messages)["messages"]] == roles


def test_a_request_of_system_messages_alone_has_a_user_peer_bug_12():
    body = sent(messages=[system("Be kind")])
    assert body["system"] == [text("Be kind")]
    assert body["messages"] == [{"role": "user", "content": [text("(continue)")]}]


def test_a_history_that_begins_with_the_assistant_gets_a_user_first():
    assert [turn["role"] for turn in sent(messages=[said(), USER])["messages"]] == ["user", "assistant", "user"]


def test_blank_texts_are_left_out_and_blank_turns_filled():
    body = sent(
        messages=[{"role": "user", "content": [text(" "), text("a")]}, said(""), {"role": "user", "content": ""}]
    )
    assert body["messages"] == [
        {"role": "user", "content": [text("a")]},
        {"role": "assistant", "content": [text("(no content)")]},
        {"role": "user", "content": [text("(continue)")]},
    ]


def test_a_prefill_does_not_end_in_white_space():
    assert sent(messages=[USER, said("So: \n")])["messages"][-1] == {"role": "assistant", "content": [text("So:")]}
    assert sent(messages=[USER, said("")])["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_results_come_first_and_calls_last():
    body = sent(messages=[USER, calls("a", content="I look"), USER, result("a"), USER], tools=[TOOL])
    assert [[block["type"] for block in turn["content"]] for turn in body["messages"]] == [
        ["text"],
        ["text", "tool_use"],
        ["tool_result", "text", "text"],
    ]


def test_a_result_may_hold_an_image_or_nothing():
    image = {"type": "image_url", "image_url": {"url": PNG}}
    body = sent(
        messages=[USER, calls("a", "b", "c"), result("a", [text("see"), image]), result("b", ""), result("c", [])]
    )
    first, second, third = body["messages"][2]["content"]
    assert [block["type"] for block in first["content"]] == ["text", "image"]
    assert "content" not in second
    assert "content" not in third


def test_a_missing_result_is_an_error_result():
    body = sent(messages=[USER, calls("a"), USER])
    assert body["messages"][2]["content"][0] == {
        "type": "tool_result",
        "tool_use_id": "a",
        "content": "(no result)",
        "is_error": True,
    }


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,aa"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "aa"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example/x.png", "detail": "low"}},
            {"type": "image", "source": {"type": "url", "url": "https://a.example/x.png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:application/pdf;base64,aa"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aa"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,aa", "filename": "a.pdf"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "aa"},
                "title": "a.pdf",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/octet-stream;base64,aa", "filename": "A.PDF"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "aa"},
                "title": "A.PDF",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/csv;base64,YSxi", "filename": "a.csv"}},
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "a,b"},
                "title": "a.csv",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "https://a.example/x.pdf"}},
            {"type": "document", "source": {"type": "url", "url": "https://a.example/x.pdf"}},
        ),
        (
            {"type": "file", "file": {"file_id": "file_1"}},
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        ),
        (
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                "cache_control": None,
            },
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
        ),
        ({"type": "refusal", "refusal": "no"}, {"type": "text", "text": "no"}),
    ],
)
def test_a_part_becomes_a_block(part, block):
    assert sent(messages=[{"role": "user", "content": [part]}])["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "aa", "format": "mp3"}},
        {"type": "video_url", "video_url": {"url": "https://a.example/v"}},
        {"type": "image_url", "image_url": {"url": "http://a.example/x.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,aa"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,####"}},
    ],
)
def test_a_part_that_claude_cannot_read_is_refused(part):
    with pytest.raises(InvalidRequest) as caught:
        build(messages=[{"role": "user", "content": [part]}])
    assert caught.value.param == "messages"


def test_a_host_that_fetches_nothing_is_not_given_addresses():
    where = target()
    hosted = type(where)(
        **{name: getattr(where, name) for name in ("provider", "model", "base_url", "family")},
        abilities={**where.abilities, "url_sources": False},
    )
    part = {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}
    with pytest.raises(UnsupportedParameter):
        build_body(chat(messages=[{"role": "user", "content": [part]}]), hosted)


def test_a_refusal_of_the_assistant_is_its_text():
    assert sent(messages=[USER, said(None, refusal="No."), USER])["messages"][1]["content"] == [text("No.")]


# Cache marks

MARK = {"type": "ephemeral"}


def test_a_cache_mark_is_kept_at_every_place():
    body = sent(
        messages=[
            system("S", cache_control=MARK),
            {"role": "user", "content": [text("a"), text("b")], "cache_control": MARK},
            calls("x"),
            result("x", cache_control={"type": "ephemeral", "ttl": "1h"}),
        ],
        tools=[{**TOOL, "cache_control": MARK}],
    )
    assert body["system"][0]["cache_control"] == MARK
    assert body["tools"][0]["cache_control"] == MARK
    first, second = body["messages"][0]["content"]
    assert ("cache_control" in first, second["cache_control"]) == (False, MARK)
    assert body["messages"][2]["content"][0]["cache_control"]["ttl"] == "1h"


def test_a_mark_inside_a_result_stands_on_the_result():
    body = sent(messages=[USER, calls("x"), result("x", [text("a", cache_control=MARK)])])
    (block,) = body["messages"][2]["content"]
    assert block["cache_control"] == MARK
    assert block["content"] == [text("a")]


@pytest.mark.parametrize(("body", "kept"), [({}, 4), ({"cache_control": MARK}, 3)])
def test_the_last_four_marks_are_kept(body, kept):
    parts = [text(str(at), cache_control=MARK) for at in range(6)]
    request = build(messages=[{"role": "user", "content": parts}], **body)
    marks = ["cache_control" in block for block in json.loads(request.body)["messages"][0]["content"]]
    assert marks == [False] * (6 - kept) + [True] * kept
    assert "cache_control" in request.dropped


# Everything at once


def accepted(case):
    body = (case.get("request") or {}).get("body")
    return isinstance(body, dict) and isinstance(body.get("messages"), list) and case["response"]["status"] == 200


@pytest.mark.parametrize("case", [case for case in corpus.cases("anthropic") if case.marks or accepted(*case.values)])
def test_a_recorded_native_request_survives_as_parts_and_native_object(case):
    body = case["request"]["body"]
    tools = {"tools": body["tools"]} if "tools" in body else {}
    ours = sent(
        body["model"],
        **tools,
        max_tokens=body["max_tokens"],
        messages=[USER],
        anthropic={k: v for k, v in body.items() if k not in ("model", "stream", "messages", "tools")},
    )
    for name, value in body.items():
        if name not in ("messages", "stream"):
            assert ours[name] == value


PARTS = st.one_of(
    st.builds(text, st.sampled_from(["", " ", "a", "ü", "\n"])),
    st.just({"type": "image_url", "image_url": {"url": PNG}}),
    st.just({"type": "refusal", "refusal": "no"}),
)
CONTENT = st.one_of(st.none(), st.sampled_from(["", " ", "x", "y "]), st.lists(PARTS, max_size=3))
IDS = st.sampled_from(["a", "b", "a b", "ü", "", "x" * 200])
THOUGHTS = st.lists(
    st.sampled_from(
        [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "thinking", "thinking": "unsigned"},
            {"type": "redacted_thinking", "data": "d"},
        ]
    ),
    max_size=2,
)
MESSAGES = st.lists(
    st.one_of(
        st.builds(lambda c: {"role": "user", "content": c}, CONTENT),
        st.builds(lambda c: {"role": "system", "content": c}, st.sampled_from(["", "s", [text("t")]])),
        st.builds(
            lambda c, t: said(c if c is None or isinstance(c, str) else "z", thinking_blocks=t), CONTENT, THOUGHTS
        ),
        st.builds(lambda ids, t: calls(*ids, thinking_blocks=t), st.lists(IDS, min_size=1, max_size=3), THOUGHTS),
        st.builds(result, IDS, CONTENT),
    ),
    min_size=1,
    max_size=9,
)


def assert_ordered(body: dict[str, Any]) -> None:
    """The provider's rules of order, each with the 400 that breaking it brings."""
    turns = body["messages"]
    assert turns[0]["role"] == "user"
    seen: set[str] = set()
    for place, turn in enumerate(turns):
        kinds = [block["type"] for block in turn["content"]]
        assert kinds
        if place:
            assert turn["role"] != turns[place - 1]["role"]
        if turn["role"] == "system":
            assert turns[place - 1]["role"] == "user"
            assert place + 1 == len(turns) or turns[place + 1]["role"] == "assistant"
        assert all(block["text"].strip() for block in turn["content"] if block["type"] == "text")
        order = {"thinking": 0, "redacted_thinking": 0, "tool_result": 0, "tool_use": 2}
        assert kinds == sorted(kinds, key=lambda kind: order.get(kind, 1))
        uses = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
        assert not seen & set(uses)
        assert len(set(uses)) == len(uses)
        seen |= set(uses)
        assert all(re.fullmatch("[a-zA-Z0-9_-]+", one) for one in uses)
        after = turns[place + 1]["content"] if place + 1 < len(turns) else []
        answered = [block["tool_use_id"] for block in after if block["type"] == "tool_result"]
        assert answered == uses
    last = turns[-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        assert last["content"][-1]["text"] == last["content"][-1]["text"].rstrip()


@given(MESSAGES, st.sampled_from([NEW, BUDGET]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_conversation_keeps_the_providers_order_peer_bug_18(messages, family, thinking):
    asked = {"reasoning_effort": "low"} if thinking else {}
    envelope = chat(messages=messages, tools=[TOOL], **asked)
    before = orjson.dumps(envelope.parsed())
    request = PROVIDER.chat.build_request(envelope, target(family))
    assert orjson.dumps(envelope.parsed()) == before
    assert (
        request.body == PROVIDER.chat.build_request(chat(messages=messages, tools=[TOOL], **asked), target(family)).body
    )
    body = json.loads(request.body)
    assert_ordered(body)
    if family == BUDGET:
        assert_official(body)


TURN = st.sampled_from(
    [
        [USER],
        [system("later"), said(), USER],
        [said("a"), USER],
        [calls("a", content="look"), result("a")],
        [calls("a", "b b"), result("b b"), result("a"), USER],
        [said(""), {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}],
    ]
)


@given(
    st.lists(TURN, max_size=4), TURN.filter(lambda turn: turn[0]["role"] == "assistant"), st.sampled_from([NEW, BUDGET])
)
@settings(max_examples=100, deadline=None)
def test_appending_a_turn_keeps_the_prefix_byte_for_byte_peer_bug_7(turns, more, family):
    first = [system("S"), USER, *(message for turn in turns for message in turn)]
    short = sent(family, messages=first, tools=[TOOL])
    longer = sent(family, messages=[*first, *more], tools=[TOOL])
    assert longer["messages"][: len(short["messages"])] == short["messages"]
    assert {**longer, "messages": 0} == {**short, "messages": 0}


@pytest.mark.parametrize(
    "body",
    [
        {"guided_json": "no JSON"},
        {"guided_json": [1]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}}},
        {"response_format": {"type": "json_schema"}},
    ],
)
def test_a_schema_that_is_none_is_refused(body):
    with pytest.raises(InvalidRequest) as caught:
        build(**body)
    assert caught.value.param == next(iter(body))


def test_a_guided_json_may_be_the_text_of_a_schema():
    schema = {"type": "object", "properties": {}}
    assert sent(guided_json=json.dumps(schema)) == sent(guided_json=schema)
