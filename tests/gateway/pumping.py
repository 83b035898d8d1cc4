"""One provider's stream through a pump to an outlet that keeps what is written, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from upstreams import NAMES, ScriptedUpstream, Step

from gateway.dialects.openai_chat import chunks_of
from gateway.errors import GatewayError, UpstreamError
from gateway.pump import Pump
from gateway.relay import Passthrough
from gateway.upstream import Call, Endpoint, Sink, Sweep
from tests.gateway.upstream.support import BODY, LIMITS, endpoint, head

Run = Callable[[Any], Any]
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
D1, D2, FIN, USAGE, DONE = (NAMES[name].encode() for name in ("D1", "D2", "FIN", "USAGE", "DONE"))
WRITE_TIMEOUT = 30.0
ERROR: Step = {"chunk": 'data: {"error":{"message":"too busy"}}\n\n'}


class Outlet:
    """A client's side that keeps what is written; `size` is what its buffer is said to hold."""

    def __init__(self) -> None:
        self.written = b""
        self.writes = 0
        self.hung_up = False
        self.aborted = False
        self.size = 0
        self.on_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        assert not self.hung_up
        self.written += data
        self.writes += 1
        self.on_write()

    def hang_up(self) -> None:
        self.hung_up = True

    def abort(self) -> None:
        self.aborted = True

    def buffered(self) -> int:
        return self.size


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """The payload of chunked framing, and whether the last chunk came."""
    assert data.startswith(HEAD)
    rest, out = data[len(HEAD) :], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert rest == b"\r\n"
            return out, True
        out += rest[:length]
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
    return out, False


def read_error(payload: bytes) -> UpstreamError:
    return UpstreamError(orjson.loads(payload)["error"]["message"], code="theirs")


class Stream:
    """One call whose sink is a pump."""

    def __init__(self, upstream: ScriptedUpstream, place: Endpoint) -> None:
        self.upstream = upstream
        self.place = place
        self.sweep = Sweep()
        self.outlet = Outlet()
        self.relay = Passthrough(read_error, chunks_of)
        self.pump: Any = None
        deadline = asyncio.get_running_loop().time() + 1000
        self.call = Call(place, LIMITS, self.sweep, deadline, self._open)

    def _open(self, call: Call) -> Sink:
        self.pump = Pump(self.relay, call, self.sweep, WRITE_TIMEOUT)
        return self.pump  # type: ignore[no-any-return]

    async def ready(self) -> None:
        async with asyncio.timeout(5):
            await self.call.send(head(self.place), BODY)

    async def flow(self, chunked: bool = True) -> None:
        await self.ready()
        self.pump.flow(self.outlet, HEAD, chunked)

    async def finished(self) -> GatewayError | None:
        async with asyncio.timeout(5):
            outcome = await self.pump.finished
        assert outcome is None or isinstance(outcome, GatewayError)
        return outcome


@asynccontextmanager
async def stream(*steps: Step) -> AsyncIterator[Stream]:
    async with ScriptedUpstream([{"t": "{{SSE}}"}, *steps]) as upstream:
        yield Stream(upstream, endpoint(upstream))


WHOLE: list[Step] = [{"chunk": "{{D1}}"}, {"chunk": "{{D2}}"}, {"chunk": "{{FIN}}{{USAGE}}"}, {"chunk": "{{DONE}}"}]
