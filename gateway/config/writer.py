"""The resolved configuration as plain values in the grammar of gateway.yaml, with every secret masked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import inspect

from gateway.config.reader import kind_of
from gateway.config.secrets import Pem, Secret
from gateway.config.types import Address, Config, Deployment, ProviderEntry

MASK = "***"

_DURATIONS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))
_LARGEST_COUNT = 999_999_999
# A provider's own options that look like secrets; those of the built-in types are secrets already.
_LOOKS_SECRET = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@]+@")


def values(config: Config) -> dict[str, Any]:
    """The whole configuration: defaults filled in, units written out. It can be loaded again, secrets aside."""
    written: dict[str, Any] = _write(kind_of(Config), config)
    del written["include"]  # what it named is part of this
    return written


def plain_default(kind: inspect.Type, value: Any) -> Any:
    """One value of a type as gateway.yaml writes it."""
    return _write(kind, value)


def duration(value: float) -> str:
    """Seconds as a duration: the largest unit in which it is a whole number."""
    thousandths = value * 1000
    for unit, size in _DURATIONS:
        if thousandths and not round(thousandths, 3) % size:
            return f"{round(thousandths) // size}{unit}"
    return f"{_short(thousandths)}ms" if thousandths else "0s"


def size(value: int) -> str:
    """Bytes as a size."""
    return next(f"{value // each}{unit}" for unit, each in _SIZES if not value % each)


def count(value: int) -> int | str:
    """A count as a number, or in millions where a number would be too long."""
    return value if value <= _LARGEST_COUNT else f"{value / 1e6:.6f}".rstrip("0").rstrip(".") + "M"


def percent(value: float) -> str:
    """A share of 1 as a percentage."""
    return f"{_short(value * 100)}%"


# How a value of each unit is written; `gateway.config.units` reads it.
AS_WRITTEN: Mapping[str, Callable[[Any], Any]] = {
    "duration": duration,
    "duration or 0s": duration,
    "duration or p95": lambda value: duration(value) if value else "p95",
    "size": size,
    "count": count,
    "percent": percent,
    "mode": lambda value: f"{value:04o}",
    "date": lambda value: datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
}


def _short(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _write(kind: inspect.Type, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, inspect.UnionType):
        return _write(next(each for each in kind.types if not isinstance(each, inspect.NoneType)), value)
    if isinstance(kind, inspect.Metadata):
        write = AS_WRITTEN.get((kind.extra or {}).get("unit", ""))
        return write(value) if write else _write(kind.type, value)
    if isinstance(kind, inspect.StructType):
        return _struct(kind, value)
    if isinstance(kind, inspect.DictType):
        return {name: _write(kind.value_type, each) for name, each in value.items()}
    if isinstance(kind, inspect.VarTupleType):
        return [_write(kind.item_type, each) for each in value]
    return _plain(value)


def _struct(kind: inspect.StructType, value: Any) -> dict[str, Any]:
    """The options of an entry. What is empty text was not written and could not be."""
    given = {field.name: (field.type, getattr(value, field.name)) for field in kind.fields}
    own = given.pop("options")[1] if kind.cls is ProviderEntry else {}
    written = {name: _write(inner, each) for name, (inner, each) in given.items() if each != ""}
    if kind.cls is Deployment:
        # `timeouts` and `breaker` stand beside `retry` here, and are the same.
        written["retry"] = {name: each for name, each in written["retry"].items() if name not in written}
    return written | _masked(own)


def _masked(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _option(name, each) for name, each in options.items()}


def _option(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return _masked(value)
    secret = isinstance(value, str) and _LOOKS_SECRET.search(name) and not value.startswith(("/", "."))
    return MASK if secret else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Address | Path | Pem):
        return str(value)
    if hasattr(value, "currency") and hasattr(value, "per"):
        return f"{_short(value.amount)} {value.currency}/{value.per}"
    if isinstance(value, str):
        return _USER.sub(f"{MASK}@", value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
