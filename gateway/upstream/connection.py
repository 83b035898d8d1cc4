"""One connection to a provider: whole requests out, one answer at a time in."""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

from gateway.errors import Truncated, UpstreamError, UpstreamReset
from gateway.upstream.framing import Framing, start_of

HIGH_WATER = 64 * 1024
# Below the 15-60 s after which providers' own front ends close an idle connection.
IDLE = 15.0
# The provider counts from its last byte, and our next request takes its time to get there.
IDLE_MARGIN = 1.0

_KEEP_ALIVE = re.compile(rb"\r\nkeep-alive:[^\r\n]*\btimeout *= *\"?([0-9]{1,9})", re.IGNORECASE)


class Taker(Protocol):
    """Who takes an answer's body."""

    def data(self, data: bytes) -> None:
        """A piece of it."""

    def chunk(self, chunk: bytes, start: int) -> None:
        """A piece that came as one HTTP chunk: the content is `chunk[start:-2]`, the rest its framing."""


class Receiver(Protocol):
    """Who waits for an answer on a connection. Called in the order head, then end or lost once."""

    def head(self, status: int, head: bytes) -> Taker:
        """The answer begins; returns who takes its body."""

    def end(self) -> None: ...
    def lost(self, error: UpstreamError) -> None: ...


class Home(Protocol):
    """The pool that a connection belongs to."""

    def put_back(self, connection: Connection) -> None: ...
    def forget(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """An HTTP/1.1 client connection that carries one exchange after the other, never two at once.

    `answered` says that bytes of an answer to the current request have come; `used` counts the requests. After `keep`
    seconds of idleness it is not used again.
    """

    __slots__ = (
        *(
            "_early",
            "_framing",
            "_home",
            "_receiver",
            "_taker",
            "answered",
            "closed",
            "idle_since",
            "keep",
            "transport",
        ),
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, home: Home) -> None:
        self._home = home
        self._framing = Framing()
        self._receiver: Receiver | None = None
        self._taker: Taker = DISCARD
        self._early = b""
        self.closed = False
        self.used = 0
        self.idle_since = 0.0
        self.keep = IDLE
        self.answered = False

    @property
    def unwanted(self) -> bool:
        """Is an answer under way that nobody waits for?"""
        return self._receiver is DISCARD

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport, by how it was made
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def send(self, request: bytes, body: bytes, receiver: Receiver) -> None:
        """Write a whole request; the receiver gets the answer to it."""
        self._receiver = receiver
        self._framing.reset()
        self.answered = False
        self.used += 1
        if not self.closed:
            if len(body) < HIGH_WATER:
                self.transport.write(request + body)
            else:
                self.transport.writelines((request, body))
        if self.used == 1:
            self._catch_up()

    def abort(self) -> None:
        """Drop the connection, and the answer that was under way, at once."""
        self._receiver, self._taker = None, DISCARD
        self.closed = True
        self.transport.abort()

    def let_go(self) -> None:
        """The receiver has what it wanted: read on to the answer's end for the pool's sake alone."""
        if self._receiver is not None:
            self._receiver = self._taker = DISCARD
            self.idle_since = asyncio.get_running_loop().time()
            self._read_on()

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            self._keep(data)
            return
        framing = self._framing
        had_head = framing.status
        self.answered = True
        try:
            if framing.aligned and (start := start_of(data)):
                self._taker.chunk(data, start)
                return
            body = framing.feed(data)
            if framing.status and not had_head:
                self._taker = receiver.head(framing.status, framing.head)
            if body:
                self._taker.data(body)
        except UpstreamError as error:
            self._fail(error)
        except Exception as error:  # a plugin reads here, and what it reads is a stranger's
            self._fail(fault(error))
        if framing.complete and self._receiver is not None:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._home.forget(self)
        if self._receiver is None:
            return
        if not self._framing.status:
            self._fail(UpstreamReset("The provider closed the connection without an answer."))
        elif exc is not None:
            self._fail(Truncated("The connection to the provider broke in the middle of its answer."))
        else:
            try:
                self._framing.finish()
            except UpstreamError as error:
                self._fail(error)
            else:
                self._finish()

    def _keep(self, data: bytes) -> None:
        """Bytes that nobody asked for: only before the first request could the next answer be told from them."""
        if not self.used and len(self._early) < HIGH_WATER:
            self._early += data
        else:
            self.abort()

    def _catch_up(self) -> None:
        """What came before the first request was written (a refusal, or the end) is the answer to it."""
        early, self._early = self._early, b""
        if early:
            self.data_received(early)
        if self.closed and self._receiver is not None:
            self.connection_lost(None)

    def _finish(self) -> None:
        receiver, self._receiver, self._taker = self._receiver, None, DISCARD
        assert receiver is not None
        if self._framing.reusable and not self.closed and not self.transport.get_write_buffer_size():
            self._read_on()
            if self.used == 1:
                self.keep = patience(self._framing.head)
            self._home.put_back(self)
        else:
            self._close()
        if self._framing.whole:
            receiver.end()
        else:
            receiver.lost(Truncated("The provider's packed answer ended too early."))

    def _read_on(self) -> None:
        """Undo a pause: whoever asked for it is served, and will not ask to resume."""
        if not self.closed and not self.transport.is_reading():
            self.transport.resume_reading()

    def _fail(self, error: UpstreamError) -> None:
        receiver, self._receiver, self._taker = self._receiver, None, DISCARD
        self._close()
        if receiver is not None:
            receiver.lost(error)

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self.transport.close()


def patience(head: bytes) -> float:
    """How long the provider that sent this head may be left idle: less than it says, and 15 s at most."""
    said = _KEEP_ALIVE.search(head)
    return min(IDLE, int(said[1]) - IDLE_MARGIN) if said else IDLE


def fault(error: Exception) -> UpstreamError:
    """What a request is told whose answer made its reader raise what no reader should; the cause is for the log."""
    message = "The gateway failed to read the provider's answer."
    fault = UpstreamError(message, status=500, kind="server_error", code="internal_error")
    fault.__cause__ = error
    return fault


class Discard:
    """A receiver that only lets an answer come to its end, and listens to nothing of it."""

    __slots__ = ()

    def head(self, status: int, head: bytes) -> Taker:
        """Take the body too."""
        return self

    def data(self, data: bytes) -> None:
        """Forget it."""

    def chunk(self, chunk: bytes, start: int) -> None:
        """Forget it."""

    def end(self) -> None:
        """Nobody listens any more."""

    def lost(self, error: UpstreamError) -> None:
        """Nobody listens any more."""


DISCARD = Discard()
