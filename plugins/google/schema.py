"""JSON Schemas as Gemini reads them: nearly raw, or in the older OpenAPI dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.errors import InvalidRequest
from gateway.hub import Json

# A schema within these limits is converted whole; of a larger one the rest becomes "any object".
MAX_NODES = 2_000
MAX_DEPTH = 24
_DEEPEST = 200

_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions", "patternProperties")
_SINGLE = ("items", "additionalProperties", "not")

_KEPT = (
    *("title", "description", "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength"),
    *("minProperties", "maxProperties", "pattern", "default", "example"),
)
_FORMATS = frozenset(("int32", "int64", "float", "double", "date-time"))
_ANY: Mapping[str, Any] = {"type": "OBJECT"}


def json_schema(schema: Any) -> Any:
    """The schema with nothing beside a `$ref` but `$` keys; what stood there is put around it."""
    return _bare_refs(schema, 0)


def _bare_refs(node: Any, depth: int) -> Any:
    if not isinstance(node, dict):
        return node
    if depth > _DEEPEST:
        raise InvalidRequest("A JSON schema is nested too deeply.")
    out: Json = {}
    for key, value in node.items():
        if key in _LISTS and isinstance(value, list):
            out[key] = [_bare_refs(item, depth + 1) for item in value]
        elif key in _NAMED and isinstance(value, dict):
            out[key] = {name: _bare_refs(item, depth + 1) for name, item in value.items()}
        else:
            out[key] = _bare_refs(value, depth + 1) if key in _SINGLE else value
    if "$ref" not in out or all(key.startswith("$") for key in out):
        return out
    around = {key: value for key, value in out.items() if not key.startswith("$") or key == "$defs"}
    return {**around, "anyOf": [{"$ref": out["$ref"]}]} if "anyOf" not in around else {"$ref": out["$ref"]}


def openapi(schema: Any) -> Json | None:
    """The schema in the dialect of Gemini 1: references put in place, types in capitals; None for any object.

    Ends in bounded time and size on any schema: a reference to itself becomes "any object".
    """
    if not isinstance(schema, dict):
        return None
    found = _Conversion(schema).node(schema, 0, frozenset())
    return None if found == _ANY else found


class _Conversion:
    """One conversion: the schema that references point into, and how many nodes were made."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._count = 0

    def node(self, node: Any, depth: int, within: frozenset[str]) -> Json:
        self._count += 1
        if not isinstance(node, dict) or depth > MAX_DEPTH or self._count > MAX_NODES:
            return dict(_ANY)
        reference = node.get("$ref")
        if isinstance(reference, str):
            target = None if reference in within else self._resolved(reference)
            beside = {key: value for key, value in node.items() if key != "$ref"}
            return self.node({**(target or {}), **beside}, depth + 1, within | {reference})
        if isinstance(node.get("allOf"), list):
            return self.node(self._merged(node, within), depth + 1, within)
        options = node.get("anyOf") or node.get("oneOf")
        if isinstance(options, list) and options:
            return self._union(node, options, depth, within)
        return self._plain(node, depth, within)

    def _resolved(self, reference: str) -> Json | None:
        place: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        return place if isinstance(place, dict) and reference.startswith("#") else None

    def _merged(self, node: Json, within: frozenset[str]) -> Json:
        """The members of allOf in one node; the first one level of references is followed."""
        merged: Json = {key: value for key, value in node.items() if key != "allOf"}
        for member in node["allOf"][:MAX_DEPTH]:
            if isinstance(member, dict) and isinstance(reference := member.get("$ref"), str):
                member = None if reference in within else self._resolved(reference)
            for key, value in (member or {}).items() if isinstance(member, dict) else ():
                if key == "properties" and isinstance(value, dict):
                    merged[key] = {**value, **(merged.get(key) or {})}
                elif key == "required" and isinstance(value, list):
                    merged[key] = [*(merged.get(key) or []), *value]
                elif key != "allOf":
                    merged.setdefault(key, value)
        return merged

    def _union(self, node: Json, options: list[Any], depth: int, within: frozenset[str]) -> Json:
        """anyOf must be the only key of its node; null becomes `nullable`, a single option takes the node's place."""
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "oneOf")}
        real = [option for option in options if not (isinstance(option, dict) and option.get("type") == "null")]
        nullable = {"nullable": True} if len(real) < len(options) else {}
        if len(real) == 1 and isinstance(real[0], dict):
            return {**self.node({**real[0], **rest}, depth + 1, within), **nullable}
        found = [self.node(option, depth + 1, within) for option in real]
        return {"anyOf": [{**option, **nullable} for option in found]} if found else {"type": "NULL"}

    def _plain(self, node: Json, depth: int, within: frozenset[str]) -> Json:
        types = node.get("type")
        if isinstance(types, list):
            real = [kind for kind in types if kind != "null"]
            nullable = {"nullable": True} if len(real) < len(types) else {}
            if len(real) > 1:
                found = [self.node({**node, "type": kind}, depth + 1, within) for kind in real]
                return {"anyOf": [{**option, **nullable} for option in found]}
            return {**self.node({**node, "type": real[0] if real else "null"}, depth + 1, within), **nullable}
        out: Json = {"type": _type(node)}
        out.update((key, node[key]) for key in _KEPT if key in node)
        if node.get("format") in _FORMATS:
            out["format"] = node["format"]
        out.update(_choices(node))
        if out["type"] == "ARRAY":
            items = node.get("items") or next(iter(node.get("prefixItems") or ()), None)
            out["items"] = self.node(items, depth + 1, within) if items else {"type": "STRING"}
        if out["type"] == "OBJECT":
            out.update(self._members(node, depth, within))
        return out

    def _members(self, node: Json, depth: int, within: frozenset[str]) -> Json:
        properties = node.get("properties")
        if not isinstance(properties, dict) or not properties:
            return {}
        out: Json = {}
        for name, value in properties.items():
            if self._count > MAX_NODES:
                break
            out[name] = self.node(value, depth + 1, within)
        required = [name for name in _names(node.get("required")) if name in out]
        return {"properties": out, **({"required": list(dict.fromkeys(required))} if required else {})}


def _type(node: Json) -> str:
    kind = node.get("type")
    if isinstance(kind, str):
        return kind.upper()
    if "items" in node or "prefixItems" in node:
        return "ARRAY"
    return "STRING" if "enum" in node or "const" in node else "OBJECT"


def _choices(node: Json) -> Json:
    """An enum may hold texts only, and not the empty one; of other values a remark is left."""
    values = [node["const"]] if "const" in node else node.get("enum")
    if not isinstance(values, list) or not values:
        return {}
    if all(isinstance(value, str) and value for value in values):
        return {"enum": values, "format": "enum"}
    remark = f"One of: {', '.join(map(str, values[:100]))}"
    told = node.get("description")
    return {"description": f"{told} {remark}" if told else remark}


def _names(value: Any) -> Iterable[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else ()
