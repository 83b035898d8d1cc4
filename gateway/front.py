"""The clients' side: connections, their limits and timers, request bodies, and answers as bytes on the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, Protocol, cast

import orjson
from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.errors import BadFraming, GatewayError
from gateway.upstream import Sweep
from gateway.upstream.pool import lines

HIGH_WATER = 64 * 1024
READ_BUFFER = 64 * 1024
# TLS takes whatever it is given and says that it is full afterwards: given less at once, it holds half as much.
TLS_PIECE = 32 * 1024
MAX_LINE = 8190
MAX_HEADERS = 100
# A refused request's bytes are read and thrown away for so long, so that a reset does not destroy the answer.
LINGER = 0.2
MIB = 1024 * 1024
# Chunk framing may cost this much more than what it frames; beyond, it is an attack on memory or processor.
FRAMING_FREE = 64 * 1024
FRAMING_RATIO = 16

REASONS = {status.value: status.phrase for status in HTTPStatus}
Handler = Callable[["Request"], Awaitable[web.StreamResponse]]


class RequestTimeout(BadFraming):
    """The client took too long to send its request."""

    status = 408
    kind = "timeout_error"
    code = "request_timeout"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a listener bears: bytes, connections and seconds."""

    max_body: int = 32 * MIB
    max_connections: int = 10_000
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    write_timeout: float = 60.0
    keepalive: float = 75.0


class Written(web.StreamResponse):
    """A response whose bytes are on the transport already; aiohttp only learns whether the connection stays."""

    def __init__(self, keep_alive: bool) -> None:
        super().__init__()
        self._stays = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to write."""
        return

    async def write_eof(self, data: Any = b"") -> None:
        """Nothing is left to write."""

    @property
    def keep_alive(self) -> bool:
        """May another request follow?"""
        return self._stays


class Request(Protocol):
    """What a handler sees of a request: the parsed head, the body's stream, and the connection to answer on."""

    head: RawRequestMessage
    client: Client

    @property
    def content(self) -> StreamReader: ...


class AiohttpRequest(web.BaseRequest):
    """aiohttp's request with its parsed head at hand: its own property for that warns on every use."""

    def __init__(self, head: RawRequestMessage, content: StreamReader, client: Client, *rest: Any) -> None:
        super().__init__(head, content, client, *rest)
        self.head = head
        self.client = client


class Lane(Protocol):
    """A shorter way for plain requests; `gateway.lane` has it, `gateway.fastlane` the connections for it."""

    def take(self, client: Any, pieces: Sequence[bytes]) -> Taken: ...
    def give_back(self, size: int) -> None: ...


class Taken(Enum):
    """What the lane says to the first bytes of a request."""

    YES = "it is under way"
    NO = "let the parser have them"
    MORE = "the rest of it is to be held until all is there"


KEEP = Written(True)
CLOSE = Written(False)


class Client(web.RequestHandler):
    """One client connection: the outlet of the stream that it carries. It knows since when it waits for a head."""

    __slots__ = (
        *("_front", "_head_since", "_raw", "_reading", "_under", "_unread", "_unread_since", "_wire"),
        *("busy", "pump", "quiet_since", "taught"),
    )

    def __init__(self, front: Front, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own AppRunner passes None as well
            keepalive_timeout=front.bounds.keepalive,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            read_bufsize=READ_BUFFER,
            lingering_time=LINGER,
            auto_decompress=False,
        )
        self._front = front
        self._head_since = 0.0
        self._reading: StreamReader | None = None
        self._raw = 0
        self._unread = 0
        self._unread_since = 0.0
        # aiohttp forgets the transport when it closes; what is still buffered there may never leave.
        self._wire: asyncio.Transport | None = None
        self._under: asyncio.Transport | None = None
        self.busy = False
        self.quiet_since = 0.0
        self.pump: Any = None
        # How many heads the lane has learned from it.
        self.taught = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        wire = self._wire = cast("asyncio.Transport", transport)
        wire.set_write_buffer_limits(high=HIGH_WATER)
        self._head_since = self.quiet_since = self._loop.time()
        self._front.arrived(self)

    def rests_on(self, raw: asyncio.Transport, since: float) -> None:
        """Know the connection below TLS, and since when it is there: two buffers share what one may hold otherwise."""
        wire: Any = self._wire
        self._under, self._head_since = raw, since
        for each in (wire, raw):
            each.set_write_buffer_limits(high=HIGH_WATER // 2)
        wire.set_read_buffer_limits(high=READ_BUFFER)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._front.left(self)
        if self.pump is not None:
            self.pump.stop()
        super().connection_lost(exc)
        self._wire = self._under = None

    def data_received(self, data: bytes) -> None:
        if not self.busy:
            self._hears()
        elif self._reading is not None:
            self._raw += len(data)
            if self._raw > FRAMING_FREE + FRAMING_RATIO * self._reading.total_bytes:
                self.refuse(BadFraming("The request body's chunk framing is out of proportion."))
                return
        super().data_received(data)

    def _hears(self) -> None:
        """Bytes of a request have come."""
        self.quiet_since = 0.0
        if not self._head_since:
            self._head_since = self._loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.pump is not None:
            self.pump.hold()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.pump is not None:
            self.pump.release()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what aiohttp itself refused in our shape; neither client nor log sees the bytes that provoked it."""
        error = parse_error(exc)
        self._front.refused(error)
        self.refuse(error)
        return CLOSE

    def begin(self) -> None:
        """A request's head is complete."""
        self.busy = True
        self._head_since = 0.0

    def rest(self) -> None:
        """The request is over."""
        self.busy = False
        self.quiet_since = self._loop.time()
        self._reading = None
        self.pump = None

    def reads(self, content: StreamReader | None) -> None:
        """Watch the framing of this chunked body."""
        self._reading = content
        self._raw = 0

    def write(self, data: bytes) -> None:
        """Send bytes; they are buffered here if the client does not take them."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            if self._under is None or len(data) <= TLS_PIECE:
                transport.write(data)
            else:
                for start in range(0, len(data), TLS_PIECE):
                    if not transport.is_closing():
                        transport.write(data[start : start + TLS_PIECE])

    def hang_up(self) -> None:
        """Send what is buffered, then close."""
        self.close()
        if self.transport is not None:
            self.transport.close()

    @property
    def closing(self) -> bool:
        """Is nothing more taken for the client, although not everything may have left?"""
        return self._wire is not None and self._wire.is_closing()

    def abort(self) -> None:
        """Close at once; what is buffered is lost."""
        if self._wire is not None:
            self._wire.abort()

    def buffered(self) -> int:
        """Bytes that the client has not taken yet."""
        size = self._wire.get_write_buffer_size() if self._wire is not None else 0
        return size if self._under is None else size + self._under.get_write_buffer_size()

    def refuse(self, error: GatewayError) -> None:
        """Answer with an error outside of any handler, and close."""
        self.write(answer(error.status, {}, orjson.dumps(error.body()), keep_alive=False))
        self.force_close()

    def sweep(self, now: float) -> None:
        """Close a connection whose request head is overdue, or that takes nothing of what it was answered."""
        if self._head_since and not self.busy and now - self._head_since >= self._front.bounds.header_timeout:
            self._head_since = 0.0
            error = RequestTimeout("The request's head did not arrive in time.")
            self._front.refused(error)
            self.refuse(error)
        if self.pump is None or self.closing:
            self._watch_unread(now)

    def _watch_unread(self, now: float) -> None:
        """A stream's pump watches its client itself; this is for whole answers, and for what a stream leaves behind."""
        # TLS's farewell counts as a byte that nobody has taken: a client may read long before it answers, or never.
        size = self.buffered() + self.closing
        if size != self._unread:
            self._unread, self._unread_since = size, now
        elif size and now - self._unread_since >= self._front.bounds.write_timeout:
            self.abort()


class Front:
    """A listener's connections: counted, capped, swept. `refused` is told of errors that no handler sees."""

    def __init__(
        self,
        handler: Handler,
        bounds: Bounds,
        sweep: Sweep,
        refused: Callable[[GatewayError], None],
        kind: type[Client] = Client,
    ) -> None:
        self.bounds = bounds
        self.refused = refused
        self.clients: set[Client] = set()
        self.draining = False
        self.lane: Lane | None = None
        self._handler = handler
        self._sweep = sweep
        front = self

        class Server(web.Server):
            """aiohttp's low-level server with our connections."""

            def __call__(self) -> web.RequestHandler:
                return kind(front, self, asyncio.get_running_loop())

        loop = asyncio.get_running_loop()
        self.server: web.Server = Server(
            self.serve,  # type: ignore[arg-type]  # the factory below makes the requests that it takes
            request_factory=lambda *parts: AiohttpRequest(*parts, loop),
            handler_cancellation=True,
            access_log=None,
        )

    def arrived(self, client: Client) -> None:
        """A connection was accepted; one too many is told so and closed."""
        self._sweep.add(client)
        if len(self.clients) >= self.bounds.max_connections or self.draining:
            error = too_many()
            self.refused(error)
            client.write(answer(503, {"retry-after": "1"}, orjson.dumps(error.body()), keep_alive=False))
            client.force_close()
            return
        self.clients.add(client)

    def left(self, client: Client) -> None:
        """A connection is gone."""
        self.clients.discard(client)
        self._sweep.discard(client)

    @property
    def working(self) -> list[Client]:
        """The connections that carry a request, or a part of one."""
        return [client for client in self.clients if client.busy or not client.quiet_since]

    def close_idle(self, before: float) -> None:
        """Close the connections on which no byte of a request has come since before this loop time."""
        for client in tuple(self.clients):
            if not client.busy and 0 < client.quiet_since <= before:
                client.force_close()

    async def serve(self, request: Request) -> web.StreamResponse:
        """Answer one request of a connection."""
        client = request.client
        client.begin()
        try:
            return await self._handler(request)
        finally:
            client.rest()


def too_many() -> GatewayError:
    """What a connection beyond the limit is told."""
    message = "The gateway has too many connections; try again."
    return GatewayError(message, status=503, kind="overloaded_error", code="overloaded", retry_after=1)


def answer(
    status: int, headers: Mapping[str, str], body: bytes, *, keep_alive: bool, kind: str = "application/json"
) -> bytes:
    """A whole answer as bytes."""
    return (
        head(status, {**headers, "content-type": kind, "content-length": str(len(body))}, keep_alive=keep_alive) + body
    )


def head(status: int, headers: Mapping[str, str], *, keep_alive: bool) -> bytes:
    """A status line and headers as bytes; raises ValueError for a value that would begin another line."""
    return head_of(status, lines(headers), keep_alive=keep_alive)


def head_of(status: int, lines: str, *, keep_alive: bool) -> bytes:
    """A status line and header lines as bytes."""
    close = "" if keep_alive else "connection: close\r\n"
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\n{lines}{close}\r\n".encode("latin-1", "replace")


def parse_error(exc: BaseException | None) -> GatewayError:
    """What aiohttp's parser refused, as ours; nothing of the bytes that provoked it."""
    if isinstance(exc, LineTooLong):
        # aiohttp quotes the target as a bytearray, a header's value as bytes.
        if isinstance(exc.args[0], bytearray) and exc.args[0].startswith(b"/"):
            return BadFraming("The request's target is too long.", status=414, code="headers_too_large")
        return BadFraming("A line of the request's head is too long.", status=431, code="headers_too_large")
    if isinstance(exc, HttpProcessingError):
        return BadFraming("The request is not valid HTTP/1.1.")
    return GatewayError("The gateway failed to serve the request.")
