"""Tools, functions and the choice among them as Claude takes them."""

from __future__ import annotations

import json

import pytest

from tests.plugins.anthropic.anthropic_support import USER, build, sent
from tests.plugins.anthropic.conversations import ALWAYS, BUDGET, TOOL, calls, result


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
