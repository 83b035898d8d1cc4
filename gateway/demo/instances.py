"""JSON values that satisfy a JSON Schema, made without chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.hub import Json

DEEP = 6  # below this level only what is required is filled in, so that recursive schemas end

FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "P1D",
    "email": "demo@example.com",
    "hostname": "demo.example.com",
    "uri": "https://demo.example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000001",
}


def instance(schema: Any, words: str = "demo") -> Any:
    """A value that the schema accepts; free strings say `words`.

    Understands type, enum, const, properties, required, items, prefixItems, anyOf, oneOf, allOf, $ref, formats and
    the bounds of numbers, strings and lists, also with Google's upper-case types. `pattern` is not understood.
    """
    return _Maker(schema if isinstance(schema, dict) else {}, words).make(schema, 0)


class _Maker:
    def __init__(self, root: Json, words: str) -> None:
        self._root = root
        self._words = words

    def make(self, schema: Any, depth: int) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.make(self._branch(schema, key, depth), depth + 1)
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind in ("integer", "number"):
            return _number(schema, kind)
        return {"boolean": True, "null": None}.get(kind) if kind in ("boolean", "null") else self._string(schema)

    def _resolved(self, schema: Any) -> Json:
        if not isinstance(schema, dict):
            return {}
        seen = 0
        while "$ref" in schema and seen < 20:
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**self._pointed(schema["$ref"]), **beside}
            seen += 1
        whole: Json = schema
        for part in schema.get("allOf", ()):
            whole = _merged(whole, self._resolved(part))
        return whole

    def _pointed(self, reference: str) -> Json:
        value: Any = self._root
        for name in reference.removeprefix("#").strip("/").split("/"):
            if name:
                value = value.get(name.replace("~1", "/").replace("~0", "~"), {}) if isinstance(value, dict) else {}
        return value if isinstance(value, dict) else {}

    def _branch(self, schema: Json, key: str, depth: int) -> Json:
        rest = {name: value for name, value in schema.items() if name != key}
        branches = [self._resolved(branch) for branch in schema[key]]
        plain = [branch for branch in branches if _kind(branch) not in ("object", "array", "null")]
        nulls = [branch for branch in branches if _kind(branch) == "null"]
        others = [branch for branch in branches if _kind(branch) != "null"]
        wanted = (nulls or plain or branches) if depth >= DEEP else (others or branches)
        return _merged(rest, wanted[0])

    def _object(self, schema: Json, depth: int) -> Json:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        names = [name for name in properties if depth < DEEP or name in required]
        made = {name: self.make(properties[name], depth + 1) for name in names}
        other = schema.get("additionalProperties")
        for name in required:
            if name not in made:
                made[name] = self.make(other if isinstance(other, dict) else {}, depth + 1)
        for count in range(len(made), schema.get("minProperties", 0)):
            made[f"key{count}"] = self.make(other if isinstance(other, dict) else {}, depth + 1)
        return made

    def _array(self, schema: Json, depth: int) -> list[Any]:
        items = schema.get("items", {})
        made = [self.make(each, depth + 1) for each in schema.get("prefixItems", ())]
        least = int(schema.get("minItems", 0))
        wanted = max(least, 0 if depth >= DEEP or items is False else 1)
        wanted = max(min(wanted, int(schema.get("maxItems", wanted))), least)
        while len(made) < wanted:
            value = self.make(items, depth + 1)
            made.append(_distinct(value, made) if schema.get("uniqueItems") else value)
        return made

    def _string(self, schema: Json) -> str:
        value = FORMATS.get(schema.get("format", ""), self._words)
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        value += "x" * (least - len(value))
        return value if most is None else value[: int(most)]


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if isinstance(kind, str):
        return kind.lower()
    if "properties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "integer" if "minimum" in schema or "maximum" in schema else "string"


def _number(schema: Mapping[str, Any], kind: str) -> int | float:
    low = schema.get("minimum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + (1 if kind == "integer" else 0.5)
    high = schema.get("maximum")
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - (1 if kind == "integer" else 0.5)
    value: Any = 7 if low is None and high is None else max(low, 7) if low is not None else min(high or 0, 7)
    if high is not None:
        value = min(value, high)
    step = schema.get("multipleOf")
    if step:
        value = -(-(low if low is not None else value) // step) * step
    return int(value) if kind == "integer" else float(value)


def _distinct(value: Any, taken: list[Any]) -> Any:
    """The value, changed until it is not among those taken."""
    while value in taken:
        if isinstance(value, str):
            value += "x"
        elif isinstance(value, int | float):
            value += 1
        else:
            break
    return value


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> Json:
    merged = {**first, **second}
    merged.pop("allOf", None)
    if "properties" in first and "properties" in second:
        merged["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        merged["required"] = [*first["required"], *second["required"]]
    return merged
