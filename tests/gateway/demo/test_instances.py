"""gateway.demo.instances: every value is checked with jsonschema against its schema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from gateway.demo.instances import FORMATS, instance

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "parent": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "children", "parent"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS: dict[str, Any] = {
    "everything": {},
    "string": {"type": "string", "minLength": 9, "maxLength": 12},
    "short": {"type": "string", "maxLength": 2},
    "enum": {"enum": ["celsius", "fahrenheit"]},
    "const": {"const": {"kind": "point"}},
    "integer": {"type": "integer", "minimum": 10, "maximum": 12},
    "exclusive": {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    "negative": {"type": "number", "maximum": -4.5},
    "multiple": {"type": "integer", "minimum": 10, "multipleOf": 4},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "nullable": {"type": ["string", "null"]},
    "list": {"type": "array", "items": {"type": "integer"}, "minItems": 3},
    "nothing": {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    "distinct": {"type": "array", "items": {"type": "string"}, "minItems": 3, "uniqueItems": True},
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
    "object": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
    "untyped": {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "any of": {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "string"}]},
    "one of": {"oneOf": [{"type": "null"}, {"type": "object", "required": ["x"]}]},
    "all of": {
        "allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"const": 1}}, "required": ["a"]}]
    },
    "pointer": {
        "$defs": {"a/b": {"type": "boolean"}},
        "properties": {"x": {"$ref": "#/$defs/a~1b"}},
        "required": ["x"],
    },
    "true": {"properties": {"a": True}, "required": ["a"]},
    "only a bound": {"minimum": 3},
    "only items": {"items": {"type": "boolean"}, "minItems": 1},
    "distinct numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
    "merged": {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}, "required": ["b"]}]},
    "tree": TREE,
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_the_value_satisfies_its_schema(schema: Any) -> None:
    jsonschema.Draft202012Validator(schema).validate(instance(schema, "some words"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_kept(name: str) -> None:
    schema = {"type": "string", "format": name}
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(instance(schema))


def test_upper_case_types_are_understood() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {"a": {"type": "INTEGER"}, "b": {"type": "ARRAY", "items": {"type": "STRING"}}},
    }
    assert instance(schema, "w") == {"a": 7, "b": ["w"]}
