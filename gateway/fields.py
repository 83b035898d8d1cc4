"""Parameter tables: one decision for every parameter, applied the same way by every provider."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import orjson

from gateway.contract import Row, Table, Target
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.hub import NEUTRAL, Json


class Unfit(Exception):
    """Raised by a converter: this value has no equivalent; the parameter is dropped (or rejected, by policy)."""


def forward(note: str = "") -> Row:
    """Same name, same meaning."""
    return Row("forward", note=note)


def rename(to: str, note: str = "") -> Row:
    """Same value under another name; `to` is a dotted path in the provider's body."""
    return Row("rename", to, note=note)


def convert(to: str, function: Callable[[Any], Any], note: str = "") -> Row:
    """Another value, perhaps under another name; `function` may raise Unfit."""
    return Row("convert", to, function, note)


def elsewhere(note: str) -> Row:
    """Translated by a function of the plugin, because it needs more than its own value."""
    return Row("convert", note=note)


def emulate(note: str) -> Row:
    """The provider has no such thing; the gateway achieves the same by other means."""
    return Row("emulate", note=note)


def drop(note: str = "not supported by this provider") -> Row:
    """Left out and named in `x-gateway-dropped-params`; refused where the deployment says so."""
    return Row("drop", note=note)


def reject(note: str) -> Row:
    """Always refused: leaving it out would change the shape of the answer."""
    return Row("reject", note=note)


class Applied:
    """What a table made of a request: the provider's `values`, and the names to tell the client."""

    __slots__ = ("_target", "dropped", "translated", "values")

    def __init__(self, target: Target) -> None:
        self.values: Json = {}
        self.dropped: list[str] = []
        self.translated: list[str] = []
        self._target = target

    def drop(self, name: str, why: str = "is not supported by this model") -> None:
        """Leave a parameter out, or refuse the request where the deployment says `unsupported_params: reject`."""
        if self._target.unsupported == "reject" and name not in self._target.without:
            raise UnsupportedParameter(name, why)
        if name not in self.dropped:
            self.dropped.append(name)

    def translate(self, name: str) -> None:
        """Note that the parameter's value reached the provider changed."""
        if name not in self.translated:
            self.translated.append(name)

    def put(self, path: str, value: Any) -> None:
        """Set a value at a dotted path of the provider's body."""
        place = self.values
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value


def apply(table: Table, request: Mapping[str, Any], target: Target) -> Applied:
    """Take every parameter of a hub request through its row; None counts as absent, an unknown name is dropped.

    Rows made by `elsewhere` and `emulate` are left to the plugin. Raises UnsupportedParameter.
    """
    applied = Applied(target)
    for name, value in request.items():
        if value is None:
            continue
        if name in target.without:
            applied.drop(name)
            continue
        row = table.get(name)
        if row is None:
            applied.drop(name, "is unknown to this provider")
        else:
            _apply_row(applied, name, value, row)
    return applied


def _apply_row(applied: Applied, name: str, value: Any, row: Row) -> None:
    if row.decision == "reject":
        refuse(name, value, row)
    elif row.decision == "drop":
        applied.drop(name, row.note)
    elif row.decision in {"forward", "rename"}:
        applied.put(row.to or name, value)
    elif row.convert is not None:
        try:
            native = row.convert(value)
        except Unfit as unfit:
            applied.drop(name, str(unfit) or "has a value that this provider cannot take")
        else:
            applied.put(row.to, native)
            if native != value:
                applied.translate(name)


def refuse(name: str, value: object, row: Row) -> None:
    """Raise UnsupportedParameter unless the value is the one that leaving it out means anyway."""
    if name in NEUTRAL and value == NEUTRAL[name]:
        return
    raise UnsupportedParameter(name, row.note)


def missing(table: Table, params: Iterable[str]) -> set[str]:
    """The parameters that a table says nothing about; a total table gives an empty set."""
    return set(params) - set(table)


def clamp(low: float, high: float) -> Callable[[Any], Any]:
    """A converter that keeps a number within bounds."""

    def clamped(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unfit("is not a number")
        return min(max(value, low), high)

    return clamped


def schema_object(name: str, value: Any) -> Json:
    """The JSON schema that a parameter holds as an object or as its text; raises InvalidRequest for anything else."""
    try:
        schema = orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"'{name}' is not JSON.", param=name) from error
    if not isinstance(schema, dict):
        raise InvalidRequest(f"'{name}' must be a JSON schema.", param=name)
    return schema


def as_list(value: Any) -> list[Any]:
    """A converter from one-or-many to many."""
    return list(value) if isinstance(value, list | tuple) else [value]


# What messages and tools may hold beside their meaning, by the names under which its loss is told.
SPEAKER = "messages.name"
DETAIL = "messages.image_url.detail"
MARKS = "cache_control"
MARKS_TTL = "cache_control.ttl"
STRICT_TOOLS = "tools.function.strict"


def tell_losses(request: Mapping[str, Any], applied: Applied, lacks: Collection[str]) -> None:
    """Name as dropped what the request's messages and tools hold of `lacks`, which the provider has no field for."""
    for name in dict.fromkeys(_held(request)):
        if name in lacks:
            applied.drop(name, "has no equivalent at this provider")


def _held(request: Mapping[str, Any]) -> Iterator[str]:
    for message in _objects(request.get("messages")):
        # The name on a tool's result is that of its call: nothing is lost with it.
        if message.get("name") and message.get("role") not in ("tool", "function"):
            yield SPEAKER
        yield from _marks(message)
        for part in (*_objects(message.get("content")), *_objects(message.get("tool_calls"))):
            yield from _marks(part)
            image = part.get("image_url")
            if isinstance(image, dict) and image.get("detail") not in (None, "auto"):
                yield DETAIL
    for tool in (*_objects(request.get("tools")), *_objects(request.get("functions"))):
        yield from _marks(tool)
        function = tool.get("function")
        if isinstance(function, dict):
            yield from _marks(function)
            if function.get("strict") is True:
                yield STRICT_TOOLS


def _marks(holder: Mapping[str, Any]) -> Iterator[str]:
    mark = holder.get("cache_control")
    if mark:
        yield MARKS
        if isinstance(mark, dict) and mark.get("ttl") not in (None, "5m"):
            yield MARKS_TTL


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []
