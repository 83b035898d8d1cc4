"""gateway.yaml as a JSON Schema, from the same types and units that the checker reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from gateway.config.accounts import COMMON
from gateway.config.reader import SECRET_OPTIONS, SHORT, kind_of
from gateway.config.resolve import LITERAL, REFERENCES
from gateway.config.secrets import Pem, Source
from gateway.config.types import NAMES, Config, ProviderEntry
from gateway.config.units import UNITS, WRITTEN, Unit
from gateway.contract import Provider

Schema = dict[str, Any]

_LINE = {"type": "string", "pattern": r"^[^\x00-\x1f\x7f]+$"}


def schema(providers: Mapping[str, Provider] | None = None) -> Schema:
    """The JSON Schema (draft 2020-12) of a main file; with `providers`, also of each type's own options."""
    writer = _Writer(providers or {})
    root = writer.of(kind_of(Config))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gateway.yaml",
        **root,
        "$defs": writer.definitions,
    }


class _Writer:
    """Types to schemas; maps with options become definitions."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        self.definitions: Schema = {}
        self._by_kind: Mapping[type, Callable[[Any], Schema]] = {
            inspect.StructType: self._struct,
            inspect.DictType: self._map,
            inspect.VarTupleType: self._list,
            inspect.UnionType: self._optional,
            inspect.LiteralType: _literal,
            inspect.Metadata: self._annotated,
            inspect.StrType: _text,
            inspect.IntType: lambda kind: _number("integer", kind),
            inspect.FloatType: lambda kind: _number("number", kind),
            inspect.BoolType: lambda _: {"type": "boolean"},
            inspect.AnyType: lambda _: {},
            inspect.CustomType: _referred,
            inspect.DataclassType: lambda kind: _unit(WRITTEN[kind.cls]),
        }

    def of(self, kind: inspect.Type) -> Schema:
        """The schema of one type."""
        return self._by_kind[type(kind)](kind)

    def _struct(self, kind: inspect.StructType) -> Schema:
        name = kind.cls.__name__
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._object(kind)
        reference = {"$ref": f"#/$defs/{name}"}
        return {"anyOf": [_LINE, reference]} if kind.cls in SHORT else reference

    def _object(self, kind: inspect.StructType) -> Schema:
        fields = [field for field in kind.fields if kind.cls is not ProviderEntry or field.name in COMMON]
        result: Schema = {
            "type": "object",
            "description": (kind.cls.__doc__ or "").partition("\n")[0],
            "properties": {field.name: {**self.of(field.type), **_default(field)} for field in fields},
            "additionalProperties": False,
        }
        if required := [field.name for field in fields if field.required]:
            result["required"] = required
        if kind.cls is ProviderEntry:
            result |= self._options(result["properties"])
        return result

    def _options(self, common: Schema) -> Schema:
        """What a provider entry may hold besides the common options: by its type, or anything."""
        secret: Schema = {
            "additionalProperties": _OPTION,
            "properties": common | dict.fromkeys(sorted(SECRET_OPTIONS), _SECRET),
        }
        if not self._providers:
            return secret
        rules = []
        for name, provider in self._providers.items():
            condition: Schema = {"properties": {"type": {"const": name}}, "required": ["type"]}
            names: Schema = {"propertyNames": {"enum": [*COMMON, *sorted(provider.options)]}}
            rules.append({"if": condition, "then": names})
        secret["properties"] = secret["properties"] | {"type": {"enum": list(self._providers)}}
        return {**secret, "allOf": rules}

    def _map(self, kind: inspect.DictType) -> Schema:
        return {"type": "object", "additionalProperties": self.of(kind.value_type)}

    def _list(self, kind: inspect.VarTupleType) -> Schema:
        bound = {"minItems": kind.min_length} if kind.min_length else {}
        return {"type": "array", "items": self.of(kind.item_type), **bound}

    def _optional(self, kind: inspect.UnionType) -> Schema:
        inner = [self.of(each) for each in kind.types if not isinstance(each, inspect.NoneType)]
        return {"anyOf": [*inner, {"type": "null"}]}

    def _annotated(self, kind: inspect.Metadata) -> Schema:
        extra = kind.extra or {}
        if "unit" in extra:
            return _unit(UNITS[extra["unit"]])
        if "reference" in extra:
            return {"anyOf": [_LINE, *_reference()]}
        inner = self.of(kind.type)
        return {**inner, "propertyNames": {"minLength": 1, "maxLength": 256}} if NAMES in extra else inner


def _literal(kind: inspect.LiteralType) -> Schema:
    numbers = [int(value) for value in kind.values if isinstance(value, str) and value.isdigit()]
    return {"enum": [*kind.values, *numbers]}


def _text(kind: inspect.StrType) -> Schema:
    return {"type": "string", "pattern": kind.pattern} if kind.pattern else _LINE


def _number(word: str, kind: inspect.IntType | inspect.FloatType) -> Schema:
    return {"type": word, "minimum": kind.ge, "maximum": kind.le}


def _unit(unit: Unit) -> Schema:
    text: Schema = {"type": "string", "pattern": f"^{unit.pattern}$", "description": unit.example}
    number = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
    return {"anyOf": [number, text]} if unit.number else text


def _reference(*left_out: Source) -> list[Schema]:
    return [
        {
            "type": "object",
            "properties": {source: {"type": "string", "pattern": f"^{pattern}$"}},
            "required": [source],
            "additionalProperties": False,
        }
        for source, pattern in REFERENCES.items()
        if source not in left_out
    ]


# A provider's own option is anything; what looks like a reference must be one.
_OPTION: Schema = {
    "if": {"type": "object", "minProperties": 1, "maxProperties": 1, "propertyNames": {"enum": list(REFERENCES)}},
    "then": {"anyOf": _reference()},
}
_SECRET: Schema = {"anyOf": [*_reference(), {"type": "string", "pattern": f"^{LITERAL}$"}]}


def _referred(kind: inspect.CustomType) -> Schema:
    if kind.cls not in (Path, Pem):
        return _SECRET
    return {"anyOf": [_LINE, *_reference("env")]}


def _default(field: inspect.Field) -> Schema:
    """The default as an editor shows it, where it is written as it is meant."""
    plain = isinstance(field.default, bool | str) and field.default != ""
    return {"default": field.default} if plain and field.default is not msgspec.NODEFAULT else {}
