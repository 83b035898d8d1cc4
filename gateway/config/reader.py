"""A tree of YAML to the values of `gateway.config.types`, with a finding for everything that does not fit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from gateway.config.document import Node, plain
from gateway.config.findings import Findings, nearest, shown
from gateway.config.resolve import Resolver, is_reference
from gateway.config.secrets import Pem, Secret
from gateway.config.types import NAMES, Breaker, ProviderEntry, Retry, RouteTarget, Timeouts
from gateway.config.units import UNITS, WRITTEN, Unit

# Where a bare text stands for a map with this one option.
SHORT: Mapping[type, str] = {RouteTarget: "use"}
# Options of a provider entry that are secrets wherever they come from.
SECRET_OPTIONS = frozenset(("access_key_id", "secret_access_key", "session_token", "client_secret"))
# Plain words that other YAML readers take for a boolean or a number: as a name they must be quoted.
AMBIGUOUS = re.compile(r"(?i:y|n|yes|no|on|off|true|false|null|~)|[-+]?[0-9.][0-9._:eE+-]*|0[xo][0-9a-fA-F]+")

# What missing options are instead of the type's default: `retry` of the file, for every entry.
Bases = Mapping[type, msgspec.Struct]

INVALID = object()


@cache
def kind_of(cls: type) -> inspect.Type:
    """What msgspec knows of a type: fields, defaults, bounds."""
    return inspect.type_info(cls)


def bases(retry: Retry) -> Bases:
    """The defaults of entries that may override the file's `retry`."""
    return {Retry: retry, Timeouts: retry.timeouts, Breaker: retry.breaker}


class Reader:
    """Reads nodes as types. What does not fit is reported, and left out or replaced so that reading goes on."""

    def __init__(self, found: Findings, resolver: Resolver) -> None:
        self._found = found
        self._resolver = resolver
        self._by_kind: Mapping[type, Callable[[Any, Node, str, Bases], Any]] = {
            inspect.StructType: self._struct,
            inspect.DictType: self._map,
            inspect.VarTupleType: self._list,
            inspect.UnionType: self._optional,
            inspect.LiteralType: self._literal,
            inspect.Metadata: self._annotated,
            inspect.StrType: self._text,
            inspect.IntType: self._number,
            inspect.FloatType: self._number,
            inspect.BoolType: self._bool,
            inspect.AnyType: self._any,
            inspect.CustomType: self._referred,
            inspect.DataclassType: self._written,
        }

    def read(self, kind: inspect.Type, node: Node, where: str, defaults: Bases) -> Any:
        """The node's value; INVALID, with a finding, when it has none of this kind."""
        return self._by_kind[type(kind)](kind, node, where, defaults)

    def _refuse(self, node: Node, where: str, expected: str) -> object:
        given = {list: "a list", dict: "a map", type(None): "nothing"}.get(type(node.value)) or shown(node.value)
        self._found.error(node.mark, where, f"expected {expected}, not {given}")
        return INVALID

    def _struct(self, kind: inspect.StructType, node: Node, where: str, defaults: Bases) -> Any:
        if (short := SHORT.get(kind.cls)) and isinstance(node.value, str):
            node = Node(node.mark, {short: node}, names={})
        if not isinstance(node.value, dict):
            return self._refuse(node, where, "a map of options")
        fields = {field.name: field for field in kind.fields}
        values: dict[str, Any] = {}
        if kind.cls is ProviderEntry:
            own = fields.pop("options").name
            values[own] = self._options({k: v for k, v in node.value.items() if k not in fields}, where)
        else:
            self._unknown(node, where, fields)
        for name, field in fields.items():
            values[name] = value = self._field(field, node, where, defaults, defaults.get(kind.cls))
            if isinstance(value, Retry):
                defaults = bases(value)
        return kind.cls(**values)

    def _field(self, field: inspect.Field, node: Node, where: str, defaults: Bases, base: msgspec.Struct | None) -> Any:
        child = node.get(field.name)
        if child is not None:
            value = self.read(field.type, child, _under(where, field.name), defaults)
            if value is not INVALID:
                return value
        elif field.required:
            self._found.error(node.mark, _under(where, field.name), "is missing")
        return getattr(base, field.name) if base else _default(field, defaults)

    def _unknown(self, node: Node, where: str, fields: Mapping[str, inspect.Field]) -> None:
        for name in node.names:
            if name not in fields:
                message = f"unknown option '{name}'{nearest(name, fields)}"
                self._found.error(node.mark_of(name), _under(where, name), message)

    def _options(self, nodes: Mapping[str, Node], where: str) -> dict[str, Any]:
        """A provider's own options: references resolved, the secret ones masked."""
        values: dict[str, Any] = {}
        for name, node in nodes.items():
            values[name] = self._option(name, node, _under(where, name))
        return {name: value for name, value in values.items() if value is not INVALID}

    def _option(self, name: str, node: Node, where: str) -> Any:
        if name == "credentials":
            return self._credentials(node, where)
        if name in SECRET_OPTIONS or is_reference(node):
            secret = self._resolver.secret(node, where, self._found)
            if secret is None:
                return INVALID
            return secret if name in SECRET_OPTIONS else secret.reveal()
        if isinstance(node.value, dict):
            return self._options(node.value, where)
        return self._any(None, node, where, {})

    def _credentials(self, node: Node, where: str) -> Any:
        """Google's: a file by its path, so that a replaced one is noticed; its text; true for the machine's own."""
        if isinstance(node.value, dict) and "env" not in node.value:
            path = self._resolver.path(node, where, self._found)
            return INVALID if path is None else str(path)
        if isinstance(node.value, bool) or (isinstance(node.value, str) and not node.value.startswith(("{", "$"))):
            return node.value
        secret = self._resolver.secret(node, where, self._found, lines=True)
        return INVALID if secret is None else secret

    def _map(self, kind: inspect.DictType, node: Node, where: str, defaults: Bases) -> Any:
        if not isinstance(node.value, dict):
            return self._refuse(node, where, "a map")
        read = {name: self.read(kind.value_type, child, _under(where, name), defaults) for name, child in node.items()}
        return {name: value for name, value in read.items() if value is not INVALID}

    def _names(self, node: Node, where: str) -> None:
        for name, key in node.names.items():
            if key.plain and AMBIGUOUS.fullmatch(name):
                self._found.error(key.mark, _under(where, name), f"quote the name: '{name}'")
            elif not name or name != name.strip() or not name.isprintable() or len(name) > 256:
                self._found.error(key.mark, where, "a name is 1 to 256 printable characters")

    def _list(self, kind: inspect.VarTupleType, node: Node, where: str, defaults: Bases) -> Any:
        if not isinstance(node.value, list):
            return self._refuse(node, where, "a list")
        if len(node.value) < (kind.min_length or 0):
            return self._refuse(node, where, "at least one entry")
        read = [
            self.read(kind.item_type, child, f"{where}[{index}]", defaults) for index, child in enumerate(node.value)
        ]
        return tuple(value for value in read if value is not INVALID)

    def _optional(self, kind: inspect.UnionType, node: Node, where: str, defaults: Bases) -> Any:
        if node.value is None:
            return None
        (inner,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
        return self.read(inner, node, where, defaults)

    def _literal(self, kind: inspect.LiteralType, node: Node, where: str, defaults: Bases) -> Any:
        value = node.value
        number = _finite(node)
        if number is not None and number == number // 1 and number not in kind.values:
            # 429 in a list of conditions is a number to YAML and a word to us.
            value = str(int(number))
        for known in kind.values:
            if value == known and not isinstance(value, bool):
                return known
        words = sorted(map(str, kind.values))
        near = nearest(value, words) if isinstance(value, str) else ""
        return self._refuse(node, where, f"{' or '.join(words)}{near}")

    def _annotated(self, kind: inspect.Metadata, node: Node, where: str, defaults: Bases) -> Any:
        extra = kind.extra or {}
        if NAMES in extra:
            self._names(node, where)
        if "unit" in extra:
            return self._unit(UNITS[extra["unit"]], node, where)
        if "reference" in extra and is_reference(node):
            found = self._resolver.secret(node, where, self._found)
            if found is None:
                return INVALID
            node = Node(node.mark, found.reveal())
        return self.read(kind.type, node, where, defaults)

    def _written(self, kind: inspect.DataclassType, node: Node, where: str, defaults: Bases) -> Any:
        return self._unit(WRITTEN[kind.cls], node, where)

    def _unit(self, unit: Unit, node: Node, where: str) -> Any:
        number = _finite(node) if unit.number else None
        value = node.value if number is None or number != number // 1 else str(int(number))
        try:
            return unit.parse(value) if isinstance(value, str) else self._refuse(node, where, unit.example)
        except ValueError:
            if not unit.secret:
                return self._refuse(node, where, unit.example)
            self._found.error(node.mark, where, f"expected {unit.example}")
            return INVALID

    def _text(self, kind: inspect.StrType, node: Node, where: str, defaults: Bases) -> Any:
        if isinstance(node.value, bool | int | float):
            return self._refuse(node, where, f'text (quote it: "{node.text}")')
        if not isinstance(node.value, str) or not node.value:
            return self._refuse(node, where, "text")
        if not node.value.isprintable():
            return self._refuse(node, where, "text on one line")
        if kind.pattern and not re.search(kind.pattern, node.value):
            return self._refuse(node, where, f"text like {kind.pattern}")
        return node.value

    def _number(self, kind: inspect.IntType | inspect.FloatType, node: Node, where: str, defaults: Bases) -> Any:
        whole = isinstance(kind, inspect.IntType)
        value = _finite(node)
        if value is None or (whole and value != value // 1) or not _between(value, kind.ge, kind.le):
            word = "a whole number" if whole else "a number"
            return self._refuse(node, where, f"{word} from {kind.ge} to {kind.le}")
        return int(value) if whole else float(value)

    def _bool(self, kind: inspect.BoolType, node: Node, where: str, defaults: Bases) -> Any:
        return node.value if isinstance(node.value, bool) else self._refuse(node, where, "true or false")

    def _any(self, kind: object, node: Node, where: str, defaults: Bases) -> Any:
        if isinstance(node.value, float) and not math.isfinite(node.value):
            return self._refuse(node, where, "a value that JSON has")
        for name, child in node.items():
            self._any(kind, child, _under(where, name), defaults)
        if isinstance(node.value, list):
            for index, child in enumerate(node.value):
                self._any(kind, child, f"{where}[{index}]", defaults)
        return plain(node)

    def _referred(self, kind: inspect.CustomType, node: Node, where: str, defaults: Bases) -> Any:
        value: Secret | Path | Pem | None
        if kind.cls is Path:
            value = self._resolver.path(node, where, self._found)
        elif kind.cls is Pem:
            value = self._resolver.pem(node, where, self._found)
        else:
            value = self._resolver.secret(node, where, self._found)
        return INVALID if value is None else value


def _under(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _finite(node: Node) -> int | float | None:
    """The node's number; None when it holds none, or none that is finite."""
    value = node.value
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if number and isinstance(value, int | float) else None


def _between(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _default(field: inspect.Field, defaults: Bases) -> Any:
    if isinstance(field.type, inspect.StructType) and field.type.cls in defaults:
        return defaults[field.type.cls]
    if field.default is not msgspec.NODEFAULT:
        return field.default
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    # Already reported as missing or wrong; this only lets the checks that follow go on.
    return () if isinstance(field.type, inspect.Metadata | inspect.VarTupleType) else ""
