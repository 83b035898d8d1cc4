"""One attempt at one endpoint: send, wait for the head, hand the body to a sink, all under timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from gateway.errors import BadUpstreamResponse, UpstreamError, UpstreamReset, UpstreamTimeout
from gateway.timers import Limits
from gateway.upstream.connection import Connection, Taker, fault
from gateway.upstream.framing import Headers, read_headers
from gateway.upstream.pool import Endpoint
from gateway.upstream.sweep import Sweep

# A pooled connection that breaks this soon after the write was closed before the provider saw the request.
STALE = 0.25


class Sink(Taker, Protocol):
    """Where a body goes. `moving` says whether something real has come since it was last asked."""

    def end(self) -> None: ...
    def lost(self, error: UpstreamError) -> None: ...
    def moving(self) -> bool: ...
    def waiting(self) -> bool:
        """Is it the client that holds things up?"""


class Ready(Protocol):
    """Who waits for an answer: a future, or something that goes on by itself as soon as it is told."""

    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> None: ...
    def set_exception(self, exception: UpstreamError, /) -> None: ...


class Collector:
    """A sink that keeps the whole `body`; the call is ready when it is complete. With `cut`, its beginning will do."""

    __slots__ = ("_cut", "_limit", "_moved", "_pieces", "_ready", "_size", "body")

    def __init__(self, ready: Ready, limit: int, *, cut: bool = False) -> None:
        self.body = b""
        self._ready = ready
        self._limit = limit
        self._cut = cut
        self._pieces: list[bytes] = []
        self._size = 0
        self._moved = False

    def data(self, data: bytes) -> None:
        """Keep a piece; raises BadUpstreamResponse beyond the limit."""
        self._moved = True
        self._size += len(data)
        if self._size > self._limit:
            if self._cut:
                return
            raise BadUpstreamResponse(f"The provider's answer is larger than {self._limit} bytes.")
        self._pieces.append(data)

    def chunk(self, chunk: bytes, start: int) -> None:
        """Keep a piece."""
        self.data(chunk[start:-2])

    def end(self) -> None:
        """The body is complete."""
        self.body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        if not self._ready.done():
            self._ready.set_result(None)

    def lost(self, error: UpstreamError) -> None:
        """The body will never be complete."""
        if not self._ready.done():
            self._ready.set_exception(error)

    def moving(self) -> bool:
        """Have bytes come since this was last asked?"""
        moved, self._moved = self._moved, False
        return moved

    def waiting(self) -> bool:
        """No client is involved yet."""
        return False


class Call:
    """One attempt. `send` returns when its sink says that it is ready; `status` and `raw_head` are those of the answer.

    `open_sink` is asked for the sink when the head has come: it finds `status` and `ready` here. One future
    serves head and body, since every wake-up of a task costs 5 µs; `begin` and a `ready` of one's own need none.
    """

    __slots__ = (
        *(
            "_body",
            "_connection",
            "_deadline",
            "_endpoint",
            "_first_by",
            "_last",
            "_limits",
            "_loop",
            "_open_sink",
            "_over",
        ),
        *("_request", "_retried", "_sent_at", "_sweep", "raw_head", "ready", "sink", "status"),
    )

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        sweep: Sweep,
        deadline: float,
        open_sink: Callable[[Call], Sink],
        ready: Ready | None = None,
    ) -> None:
        self._loop = sweep.loop
        self._endpoint = endpoint
        self._limits = limits
        self._sweep = sweep
        self._deadline = deadline
        self._open_sink = open_sink
        self._connection: Connection | None = None
        self._retried = False
        self._over = False
        self.ready: Ready = self._loop.create_future() if ready is None else ready
        self.sink: Sink | None = None
        self.status = 0
        self.raw_head = b""

    @property
    def headers(self) -> Headers:
        """The answer's headers: names in lower case."""
        return read_headers(self.raw_head)

    def begin(self, connection: Connection, request: bytes, body: bytes) -> None:
        """Send a whole request on a connection that is open; `ready` is told what becomes of it."""
        self._request, self._body = request, body
        self._write(connection)

    async def send(self, request: bytes, body: bytes) -> None:
        """Send a whole request and wait until the sink is ready; raises UpstreamError."""
        self._request, self._body = request, body
        connection = self._endpoint.idle()
        if connection is None:
            connection = await self._connect()
        try:
            self._write(connection)
            while True:
                try:
                    await cast("asyncio.Future[None]", self.ready)
                except UpstreamReset:
                    if not self.is_stale(connection):
                        raise
                    self._retried = True
                    self._endpoint.stale_retries += 1
                    self.ready = self._loop.create_future()
                    connection = await self._connect()
                    self._write(connection)
                else:
                    return
        except BaseException:
            self.abort()
            raise

    def is_stale(self, connection: Connection) -> bool:
        """Did a pooled connection break so soon that the provider cannot have seen the request?"""
        early = self._loop.time() - self._sent_at <= STALE
        return (
            early and connection.used > 1 and not connection.answered and not self._retried and self._limits.stale_retry
        )

    def abort(self) -> None:
        """Give up: the provider's connection is closed at once if the answer is still under way."""
        self._sweep.discard(self)
        connection, self._connection = self._connection, None
        if connection is not None and not self._over:
            self._over = True
            connection.abort()

    def let_go(self) -> None:
        """The sink has all that it needs; the connection reads on to the end of the answer by itself."""
        self._sweep.discard(self)
        self.sink = None
        connection, self._connection = self._connection, None
        if connection is not None and not self._over:
            self._over = True
            connection.let_go()

    def pause(self) -> None:
        """Read no more from the provider until `resume`."""
        if self._connection is not None and not self._connection.closed:
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._connection is not None and not self._connection.closed:
            self._connection.transport.resume_reading()
            self._last = self._loop.time()

    def head(self, status: int, head: bytes) -> Taker:
        """The connection's answer begins; its body is for the sink."""
        self.status = status
        self.raw_head = head
        sink = self.sink = self._open_sink(self)
        # Whoever opens sinks holds this call; in a circle they would wait for the collector.
        del self._open_sink
        return sink

    def end(self) -> None:
        """The answer is complete."""
        self._close()
        sink = self.sink
        if sink is None:
            return
        try:
            sink.end()
        except Exception as error:  # a plugin's, as in the connection
            sink.lost(fault(error))

    def lost(self, error: UpstreamError) -> None:
        """The answer will never be complete."""
        self._close()
        if self.sink is not None:
            self.sink.lost(error)
        elif not self.ready.done():
            self.ready.set_exception(error)

    def fail(self, error: UpstreamError) -> None:
        """Close the connection and tell whoever waits."""
        connection = self._connection
        if connection is not None and not self._over:
            connection.abort()
        self.lost(error)

    def sweep(self, now: float) -> None:
        """Compare the stamps with the limits."""
        sink = self.sink
        if sink is not None and sink.moving():
            self._last = now
            self._first_by = 0.0
        if now >= self._deadline:
            self.fail(UpstreamTimeout("The provider did not finish within the total time allowed."))
        elif self._first_by:
            if now >= self._first_by:
                self.fail(UpstreamTimeout("The provider did not begin to answer within the time allowed."))
        elif sink is not None and now - self._last >= self._limits.idle and not sink.waiting():
            self.fail(
                UpstreamTimeout("The provider fell silent in the middle of its answer.", code="upstream_idle_timeout")
            )

    async def _connect(self) -> Connection:
        remaining = self._deadline - self._loop.time()
        return await self._endpoint.connect(max(0.001, min(self._limits.connect, remaining)))

    def _write(self, connection: Connection) -> None:
        self._connection = connection
        self._over = False
        self._sent_at = self._last = self._loop.time()
        self._first_by = self._sent_at + self._limits.first_byte
        self._sweep.add(self)
        connection.send(self._request, self._body, self)

    def _close(self) -> None:
        self._over = True
        self._connection = None
        self._sweep.discard(self)
