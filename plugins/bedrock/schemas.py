"""JSON schemas as Bedrock's models take them: without references, and within what structured output knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.hub import Json

# A schema whose references unfold to more nodes than this keeps them: nesting doubles quickly.
MAX_NODES = 4_000

_REFUSED = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
        *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties"),
    )
)
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
)
_NAMED = ("properties", "$defs", "definitions")


class _Unfoldable(Exception):
    """The references form a circle, lead nowhere, or unfold to too much."""


def inlined(schema: Mapping[str, Any]) -> Json:
    """The schema with each local `$ref` replaced by what it names; recursive and huge ones keep their references."""
    plain = {name: value for name, value in schema.items() if name not in ("$schema", "strict")}
    if "$ref" not in str(plain):
        return plain
    try:
        return _Unfolding(plain).unfold()
    except (_Unfoldable, RecursionError):
        return plain


class _Unfolding:
    def __init__(self, root: Json) -> None:
        self._root = root
        self._left = MAX_NODES

    def unfold(self) -> Json:
        top = {name: value for name, value in self._root.items() if name not in ("$defs", "definitions")}
        found: Json = self._copy(top, ())
        return found

    def _copy(self, node: Any, seen: tuple[str, ...]) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _Unfoldable
        if isinstance(node, list):
            return [self._copy(item, seen) for item in node]
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref")
        if isinstance(reference, str):
            if reference in seen:
                raise _Unfoldable
            beside = {name: value for name, value in node.items() if name != "$ref"}
            return self._copy({**self._find(reference), **beside}, (*seen, reference))
        return {name: self._copy(value, seen) for name, value in node.items()}

    def _find(self, reference: str) -> Json:
        node: Any = self._root
        mark, *steps = reference.split("/")
        for step in steps:
            node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        if mark != "#" or not isinstance(node, dict):
            raise _Unfoldable
        return node


def restricted(schema: Mapping[str, Any]) -> Json:
    """The schema within what structured output accepts; what had to go is said in the description.

    Objects are closed, `oneOf` becomes `anyOf`, a node with `$ref` keeps only that.
    """
    if isinstance(schema.get("$ref"), str):
        return {name: _within(name, value) for name, value in schema.items() if name in ("$ref", *_NAMED[1:])}
    kept: Json = {}
    lost: list[str] = []
    for name, value in schema.items():
        if _refused(name, value):
            lost.append(f"{name}: {value}")
        else:
            kept["anyOf" if name == "oneOf" else name] = _within(name, value)
    if kept.get("type") == "object" or "properties" in kept:
        kept["additionalProperties"] = False
    if lost:
        kept["description"] = " ".join((str(kept.get("description") or ""), f"({'; '.join(lost)})")).strip()
    return kept


def _refused(name: str, value: Any) -> bool:
    if name == "format":
        return value not in _FORMATS
    if name == "minItems":
        return value not in (0, 1)
    return name in _REFUSED


def _within(name: str, value: Any) -> Any:
    if name in _NAMED and isinstance(value, dict):
        return {key: restricted(inner) if isinstance(inner, dict) else inner for key, inner in value.items()}
    if name in ("items", "additionalProperties") and isinstance(value, dict):
        return restricted(value)
    if name in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
        return [restricted(inner) if isinstance(inner, dict) else inner for inner in value]
    return value


def is_object(schema: Mapping[str, Any]) -> bool:
    """Can the schema itself be a tool's input?"""
    kind = schema.get("type")
    return kind == "object" or (kind is None and not {"anyOf", "oneOf", "allOf", "$ref", "enum", "const"} & set(schema))
