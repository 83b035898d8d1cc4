"""Schemas for both dialects, and the ones that would never end."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from google.genai import types

from gateway.errors import InvalidRequest
from plugins.google.schema import MAX_NODES, json_schema, openapi
from tests.plugins.google.samples import built

TREE = {
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "v": {"type": "string"}}}},
    "$ref": "#/$defs/Node",
}


def explosive(width: int, depth: int) -> dict[str, Any]:
    """Each definition refers to the next several times: written out it has width**depth nodes."""
    definitions: dict[str, Any] = {f"d{depth}": {"type": "string"}}
    for level in range(depth):
        properties = {f"p{place}": {"$ref": f"#/$defs/d{level + 1}"} for place in range(width)}
        definitions[f"d{level}"] = {"type": "object", "properties": properties}
    return {"$defs": definitions, "$ref": "#/$defs/d0"}


def cyclic(width: int) -> dict[str, Any]:
    names = [f"n{place}" for place in range(width)]
    references = {name: {"$ref": f"#/$defs/{name}"} for name in names}
    return {"$defs": {name: {"type": "object", "properties": references} for name in names}, **references["n0"]}


def nodes(schema: Any) -> int:
    if isinstance(schema, dict):
        return 1 + sum(nodes(value) for value in schema.values())
    return sum(map(nodes, schema)) if isinstance(schema, list) else 0


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        explosive(10, 12),
        cyclic(12),
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"items": {"$ref": "#"}}]}},
        },
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"type": "array", "items": {"$ref": "#/nowhere"}},
        {"$ref": "https://elsewhere.test/schema"},
    ],
)
def test_a_schema_that_refers_to_itself_ends_in_bounded_time_and_size(schema: dict[str, Any]) -> None:
    start = time.perf_counter()
    found = openapi(schema)
    assert time.perf_counter() - start < 1
    assert nodes(found) < 6 * MAX_NODES
    assert "$ref" not in str(found)


def test_raw_schemas_keep_references_to_themselves() -> None:
    assert json_schema(TREE) == TREE
    assert len(orjson.dumps(json_schema(explosive(10, 12)))) < 10_000


def test_beside_a_reference_nothing_may_stand() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A", "description": "d"}}, "$defs": {"A": {}}}
    assert json_schema(schema)["properties"]["a"] == {"description": "d", "anyOf": [{"$ref": "#/$defs/A"}]}


def test_a_schema_nested_too_deeply_is_the_clients_fault() -> None:
    schema: Any = {"type": "string"}
    for _ in range(300):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest):
        json_schema(schema)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "format": "uuid", "$schema": "x", "additionalProperties": False}, {"type": "STRING"}),
        ({"type": "integer", "format": "int64"}, {"type": "INTEGER", "format": "int64"}),
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
        (
            {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "d"},
            {"type": "INTEGER", "description": "d", "nullable": True},
        ),
        (
            {"oneOf": [{"type": "integer"}, {"type": "string"}], "title": "t"},
            {"anyOf": [{"type": "INTEGER"}, {"type": "STRING"}]},
        ),
        ({"const": "a"}, {"type": "STRING", "enum": ["a"], "format": "enum"}),
        ({"enum": ["a", ""], "type": "string"}, {"type": "STRING", "description": "One of: a, "}),
        ({"enum": [1, 2], "type": "integer", "description": "d"}, {"type": "INTEGER", "description": "d One of: 1, 2"}),
        ({"type": "array"}, {"type": "ARRAY", "items": {"type": "STRING"}}),
        ({"prefixItems": [{"type": "number"}]}, {"type": "ARRAY", "items": {"type": "NUMBER"}}),
        (
            {
                "allOf": [
                    {"properties": {"a": {"type": "string"}}, "required": ["a"]},
                    {"properties": {"b": {"type": "string"}}},
                ]
            },
            {"type": "OBJECT", "properties": {"a": {"type": "STRING"}, "b": {"type": "STRING"}}, "required": ["a"]},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "ghost"]},
            {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}, "required": ["a"]},
        ),
    ],
)
def test_a_schema_in_the_older_dialect(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    found = openapi(schema)
    assert found == expected
    types.Schema.model_validate(found)


@pytest.mark.parametrize("schema", [{"type": "object", "properties": {}}, {}, True, None])
def test_an_object_without_properties_is_no_schema(schema: Any) -> None:
    assert openapi(schema) is None


def test_gemini_1_gets_the_older_dialect() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    body = built("gemini-1.5-pro", tools=tools)
    assert body["tools"][0]["functionDeclarations"][0]["parameters"]["type"] == "OBJECT"
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": parameters}}
    assert built("gemini-1.5-pro", response_format=wanted)["generationConfig"]["responseSchema"]["type"] == "OBJECT"
