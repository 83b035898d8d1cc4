"""Strict checks of JSON bodies: a shape is a function that raises Misfit where a value does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

Shape = Callable[[Any, str], None]
Kind = Literal["extra", "missing", "type", "value"]


class Misfit(Exception):
    """A value that does not fit: `path` is dotted, `name` the key that is extra or missing."""

    def __init__(self, kind: Kind, path: str, name: str = "", detail: str = "") -> None:
        super().__init__(f"{path}: {kind} {name}{detail}")
        self.kind: Kind = kind
        self.path = path
        self.name = name
        self.detail = detail


def below(path: str, key: object) -> str:
    """The path of a member."""
    return f"{path}.{key}" if path else str(key)


def anything(value: Any, path: str) -> None:
    """Fits every value."""


def text(value: Any, path: str) -> None:
    """Fits strings."""
    if not isinstance(value, str):
        raise Misfit("type", path, detail="a string")


def filled(value: Any, path: str) -> None:
    """Fits strings that are not empty."""
    text(value, path)
    if not value:
        raise Misfit("value", path, detail="must not be empty")


def spoken(detail: str) -> Shape:
    """Fits strings that are more than blank; `detail` is said of the others."""

    def check(value: Any, path: str) -> None:
        text(value, path)
        if not value.strip():
            raise Misfit("value", path, detail=detail)

    return check


def matching(pattern: str, detail: str) -> Shape:
    """Fits strings of a pattern; `detail`, with the pattern for its {}, is said of the others."""
    compiled = re.compile(pattern)
    said = detail.format(pattern)

    def check(value: Any, path: str) -> None:
        text(value, path)
        if not compiled.fullmatch(value):
            raise Misfit("value", path, detail=said)

    return check


def flag(value: Any, path: str) -> None:
    """Fits booleans."""
    if not isinstance(value, bool):
        raise Misfit("type", path, detail="a boolean")


def mapping(value: Any, path: str) -> None:
    """Fits every object."""
    if not isinstance(value, dict):
        raise Misfit("type", path, detail="an object")


def number(low: float, high: float) -> Shape:
    """Fits numbers of a range."""

    def check(value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Misfit("type", path, detail="a number")
        if not low <= value <= high:
            raise Misfit("value", path, detail=f"must be between {low} and {high}")

    return check


def integer(low: int, high: int = 2**53) -> Shape:
    """Fits whole numbers of a range."""
    ranged = number(low, high)

    def check(value: Any, path: str) -> None:
        if not isinstance(value, int):
            raise Misfit("type", path, detail="an integer")
        ranged(value, path)

    return check


def one_of(*values: object) -> Shape:
    """Fits the values listed."""

    def check(value: Any, path: str) -> None:
        if value not in values:
            raise Misfit("value", path, detail=f"must be one of {', '.join(map(str, values))}")

    return check


def listing(item: Shape, low: int = 0, high: int = 100_000) -> Shape:
    """Fits lists whose items fit."""

    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise Misfit("type", path, detail="a list")
        if not low <= len(value) <= high:
            raise Misfit("value", path, detail=f"must have {low} to {high} items")
        for index, each in enumerate(value):
            item(each, below(path, index))

    return check


def either(*shapes: Shape) -> Shape:
    """Fits what one of the shapes fits; tells the last one's complaint."""

    def check(value: Any, path: str) -> None:
        for shape in shapes[:-1]:
            try:
                return shape(value, path)
            except Misfit:
                continue
        return shapes[-1](value, path)

    return check


def record(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    """Fits objects that have the required keys and no keys besides the optional ones."""
    members = {**required, **(optional or {})}

    def check(value: Any, path: str) -> None:
        mapping(value, path)
        for name, item in value.items():
            if name not in members:
                raise Misfit("extra", path, name)
            members[name](item, below(path, name))
        for name in required:
            if name not in value:
                raise Misfit("missing", path, name)

    return check


def tagged(tag: str, shapes: Mapping[str, Shape]) -> Shape:
    """Fits objects by the value of one key."""

    def check(value: Any, path: str) -> None:
        mapping(value, path)
        if tag not in value:
            raise Misfit("missing", path, tag)
        kind = value[tag]
        if not isinstance(kind, str) or kind not in shapes:
            raise Misfit("value", below(path, tag), detail=f"must be one of {', '.join(shapes)}")
        shapes[kind](value, path)

    return check


def union(shapes: Mapping[str, Shape], beside: Mapping[str, Shape] | None = None) -> Shape:
    """Fits objects with exactly one of the keys, and any of those that may stand beside it."""
    members = {**shapes, **(beside or {})}
    closed = record({}, members)

    def check(value: Any, path: str) -> None:
        closed(value, path)
        if sum(name in value for name in shapes) != 1:
            raise Misfit("value", path, detail=f"must have exactly one of {', '.join(shapes)}")

    return check
