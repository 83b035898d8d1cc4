"""What the tests of one upstream call share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from upstreams import ScriptedUpstream

from gateway.errors import UpstreamError
from gateway.timers import Limits
from gateway.upstream import Call, Collector, Endpoint, Sink, Sweep
from gateway.upstream.connection import Taker
from gateway.upstream.names import Resolver

LIMITS = Limits(connect=5, first_byte=30, idle=30, total=100)
BODY = b'{"model":"m"}'


class Noted:
    """A receiver that notes what it is told."""

    def __init__(self) -> None:
        self.status = 0
        self.head_bytes = b""
        self.body = b""
        self.pieces = 0
        self.ended = asyncio.Event()
        self.failure: UpstreamError | None = None
        self.on_data: Callable[[], None] = lambda: None

    def head(self, status: int, head: bytes) -> Taker:
        self.status = status
        self.head_bytes = head
        return self

    def data(self, data: bytes) -> None:
        self.body += data
        self.pieces += 1
        self.on_data()

    def chunk(self, chunk: bytes, start: int) -> None:
        self.data(chunk[start:-2])

    def end(self) -> None:
        assert not self.ended.is_set()
        self.ended.set()

    def lost(self, error: UpstreamError) -> None:
        assert not self.ended.is_set()
        self.failure = error
        self.ended.set()


def endpoint(upstream: ScriptedUpstream, **headers: str) -> Endpoint:
    """An endpoint for a scripted server."""
    return Endpoint(upstream.url, headers, Resolver(), None)


def head(place: Endpoint, url: str = "", length: int = len(BODY)) -> bytes:
    """A request head."""
    return place.head(url or "/v1/x", "POST", {"content-type": "application/json"}, length)


def call(place: Endpoint, limits: Limits = LIMITS, *, sweep: Sweep | None = None, **options: Any) -> Call:
    """A call whose body is collected."""

    def open_sink(call: Call) -> Sink:
        return Collector(call.ready, limits.max_response, **options)

    deadline = asyncio.get_running_loop().time() + limits.total
    return Call(place, limits, Sweep() if sweep is None else sweep, deadline, open_sink)


async def fetched(place: Endpoint, limits: Limits = LIMITS) -> tuple[int, bytes]:
    """Status and body of one call."""
    one = call(place, limits)
    await one.send(head(place), BODY)
    assert isinstance(one.sink, Collector)
    return one.status, one.sink.body
