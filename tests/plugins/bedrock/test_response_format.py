from __future__ import annotations

import json
from typing import Any

import orjson

from gateway.hub import Json
from tests.plugins.bedrock.rules import check
from tests.plugins.bedrock.support import (
    ASK,
    CLAUDE,
    LLAMA,
    NOVA,
    SYSTEM,
    WEATHER,
    build,
    built,
    target,
)


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


def test_a_recursive_schema_keeps_its_definitions() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}}
    definition = build(CLAUDE, response_format=wanted(schema))["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    found = json.loads(definition["schema"])
    assert found["$ref"] == "#/$defs/n"
    assert found["$defs"]["n"]["properties"] == {"next": {"$ref": "#/$defs/n"}}
    assert found["$defs"]["n"]["additionalProperties"] is False


def test_an_emulated_schema_is_asked_for_in_words_where_no_tool_can_be_forced() -> None:
    body = build(LLAMA, response_format=wanted({"type": "object"}))
    check(body)
    assert "toolChoice" not in body["toolConfig"]
    assert "json_answer" in body["system"][0]["text"]
