"""JSON schemas as Claude takes them: for tools, and for answers that must follow one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from gateway.errors import InvalidRequest
from gateway.hub import Json

MAX_DEPTH = 100
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"))
_MAPS = ("properties", "$defs", "definitions")
_LISTS = {"anyOf": "anyOf", "oneOf": "anyOf", "allOf": "allOf", "prefixItems": "prefixItems"}
# What a grammar cannot enforce; the model reads it in the description instead.
_UNENFORCED = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties", "not", "if", "then", "else"),
        *("dependentRequired", "dependentSchemas", "dependencies", "patternProperties", "propertyNames", "contains"),
        *("minContains", "maxContains", "unevaluatedProperties", "unevaluatedItems"),
    )
)
MAX_STRICT_TOOLS, MAX_OPTIONAL, MAX_UNIONS = 20, 24, 16


def enforceable(schema: Any, depth: int = 0) -> Any:
    """The schema with what the provider enforces; what it does not stands as text in the descriptions.

    References are kept, never followed: a schema that refers to itself stays as small as it is.
    """
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"A JSON schema is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(schema, list):
        return [enforceable(item, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {key: enforceable_map(schema[key], depth) if key in _MAPS else schema[key] for key in _kept(schema)}
    found: Json = {}
    notes: list[str] = []
    for key, value in schema.items():
        if _unenforced(key, value):
            notes.append(f"{key}: {orjson.dumps(value).decode()}")
        elif key != "additionalProperties":
            _take(found, key, value, depth)
    if "properties" in found or _is_object(found.get("type")):
        found["additionalProperties"] = False
    if notes:
        found["description"] = ". ".join(filter(None, (str(schema.get("description") or ""), *notes)))
    return found


def _kept(schema: Json) -> list[str]:
    return [key for key in schema if key in ("$ref", "$defs", "definitions")]


def enforceable_map(schemas: Any, depth: int) -> Any:
    """Named schemas, each made enforceable."""
    if not isinstance(schemas, dict):
        return schemas
    return {name: enforceable(schema, depth + 1) for name, schema in schemas.items()}


def _unenforced(key: str, value: Any) -> bool:
    if key == "format":
        return not isinstance(value, str) or value not in _FORMATS
    if key == "minItems":
        return value not in (0, 1)
    return key in _UNENFORCED


def _take(found: Json, key: str, value: Any, depth: int) -> None:
    if key in _MAPS:
        found[key] = enforceable_map(value, depth)
    elif key in _LISTS and isinstance(value, list):
        found[_LISTS[key]] = found.get(_LISTS[key], []) + enforceable(value, depth)
    elif key == "items":
        found[key] = enforceable(value, depth + 1)
    else:
        found[key] = value


def _is_object(kind: Any) -> bool:
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def tool_schema(schema: Any) -> Json:
    """An object schema for a tool's input, whatever a client wrote.

    The provider wants `type: object` at the root and no choice there: a reference is resolved once, the branches
    of a choice are merged into one object whose properties are those of all of them.
    """
    if not isinstance(schema, dict) or not schema:
        return {"type": "object", "properties": {}}
    root = {**schema, **_resolved(schema)} if "$ref" in schema else dict(schema)
    root.pop("$ref", None)
    for key in ("anyOf", "oneOf", "allOf"):
        branches = root.pop(key, None)
        if isinstance(branches, list):
            root = _merged(root, [one for one in branches if isinstance(one, dict)], every=key == "allOf")
    return {**root, "type": "object"} if root.get("type") != "object" else root


def _resolved(schema: Json) -> Json:
    """What the root refers to inside the schema; nothing for a circle or a foreign reference."""
    seen: set[str] = set()
    found: Any = schema
    while isinstance(found, dict) and isinstance(ref := found.get("$ref"), str):
        if ref in seen or not ref.startswith("#/"):
            return {}
        seen.add(ref)
        found = schema
        for step in ref[2:].split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _merged(root: Json, branches: list[Json], every: bool) -> Json:
    properties = dict(_properties(root))
    required = _required(root)
    for branch in branches:
        for name, value in _properties(branch).items():
            properties.setdefault(name, value)
    demands = [_required(branch) for branch in branches]
    names = dict.fromkeys(name for demand in demands for name in demand)
    shared = [name for name in names if every or all(name in demand for demand in demands)]
    required += [name for name in shared if name not in required]
    return {**root, "properties": properties, **({"required": required} if required else {})}


def _properties(schema: Json) -> Json:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _required(schema: Json) -> list[str]:
    found = schema.get("required")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def strict_fits(schemas: list[Json]) -> bool:
    """Are these strict tool schemas within what the provider compiles together?"""
    if len(schemas) > MAX_STRICT_TOOLS:
        return False
    optional = unions = 0
    for schema in schemas:
        for node in _nodes(schema):
            if "$ref" in node:
                return False  # perhaps recursive: not worth a 400
            optional += len(set(_properties(node)) - set(_required(node)))
            unions += "anyOf" in node or isinstance(node.get("type"), list)
    return optional <= MAX_OPTIONAL and unions <= MAX_UNIONS


def _nodes(schema: Any) -> Iterator[Json]:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            waiting += [value for key, value in node.items() if key not in ("enum", "const", "default", "examples")]
