"""What a wire format is to the demo's server, and how it says no."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from gateway.demo.answers import Answer, Ask
from gateway.hub import Json


class Refused(Exception):
    """A request that this provider refuses; each wire format says it in its own words."""

    def __init__(
        self, message: str, status: int = 400, *, kind: str = "", param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request, found by its path. `model` is empty where the body names it."""

    provider: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Json
    serial: int
    model: str = ""
    operation: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: a wire format, or a list of models where `wire` is None. `alt` is Google's query option."""

    provider: str
    wire: Wire | None
    model: str = ""
    operation: str = ""
    alt: str = ""


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire format as functions.

    `open` reads a request or raises Refused. `whole` and `stream` write the answers; `stream` gives one event
    at a time, the last one being terminal. `refuse` writes an error as the place does, `troubles` are those that a
    switch asks for. `broken` is an error inside a stream, `filler` an event of about so many bytes.
    """

    open: Callable[[Incoming], Ask]
    whole: Callable[[Ask, Sequence[Answer]], Reply]
    stream: Callable[[Ask, Sequence[Answer]], Iterable[bytes]]
    refuse: Callable[[Refused, Place], Reply]
    troubles: Mapping[str, Refused]
    broken: Callable[[Ask], bytes]
    filler: Callable[[Ask, int], bytes]
    headers: Callable[[Ask], Mapping[str, str]]
    stream_type: str = "text/event-stream; charset=utf-8"


def dump(value: object) -> bytes:
    """JSON bytes."""
    return orjson.dumps(value)


def data(value: object, end: bytes = b"\n\n") -> bytes:
    """A value as one server-sent event."""
    return b"data: " + orjson.dumps(value) + end
