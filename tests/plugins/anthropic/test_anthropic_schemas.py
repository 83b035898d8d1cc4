"""Answers in a given shape: by the model's own means, by a tool, or in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import InvalidRequest
from plugins.anthropic import PROVIDER
from tests.plugins.anthropic.anthropic_support import USER, build, sent, target
from tests.plugins.anthropic.conversations import TOOL, system, text

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
