"""What one request leaves for its trace, noted on its way: its own span, one per attempt, and how it was answered."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from gateway.contract import ChatRequest
from gateway.envelope import Envelope
from gateway.errors import GatewayError, UpstreamError
from gateway.metrics import CANCELLED
from gateway.routes import Attempt
from gateway.tracing.context import SAMPLED, Parent, carried
from gateway.tracing.names import PARAMETERS

# Where an answer's id, model and finish reasons stand: in its first bytes and its last writes.
FIRST_BYTES = 4 * 1024
LAST_BYTES = 16 * 1024
LAST_WRITES = 8
# What is kept of a whole answer, or of request and answer with `content: true`.
KEPT = 256 * 1024


class Outlet(Protocol):
    """Where an answer's bytes go."""

    def write(self, data: bytes) -> None: ...
    def hang_up(self) -> None: ...
    def abort(self) -> None: ...
    def buffered(self) -> int: ...


class Span:
    """One attempt: when it was made, and how it ended. Times are Unix nanoseconds; `ended` 0: it is under way."""

    __slots__ = ("_trace", "asked", "attempt", "began", "code", "ended", "first", "id", "status", "upstream_id")

    def __init__(self, trace: Trace, attempt: Attempt) -> None:
        self._trace = trace
        self.attempt = attempt
        self.id = f"{random.getrandbits(64):016x}"
        self.asked: Mapping[str, object] = {}
        self.code = ""
        self.status = 0
        self.upstream_id = ""
        self.first = self.ended = 0
        self.began = time.time_ns()

    def carried(self, chat: ChatRequest) -> ChatRequest:
        """The request as this attempt sends it: its upstream is told that it works for this span."""
        trace = self._trace
        if trace.sampled:
            self.asked = {name: value for name in (*PARAMETERS, "n") if (value := self._asked(chat, name)) is not None}
        elif trace.parent is not None:
            # Nothing is recorded here: the upstream's parent is the client's own span.
            return chat
        state = trace.parent.state if trace.parent else ""
        assert isinstance(chat, Envelope)
        return chat.with_headers({**chat.headers, **carried(trace.id, self.id, trace.flags, state)})

    def _asked(self, chat: ChatRequest, name: str) -> object:
        """A parameter as the adapter leaves it."""
        attempt = self.attempt
        if name in attempt.set:
            return attempt.set[name]
        value: object = chat.get(name)
        return attempt.default.get(name) if value is None else value

    def answered(self, upstream_id: str) -> None:
        """The answer has begun, or is there."""
        self.first = time.time_ns()
        self.status = 200
        self.upstream_id = upstream_id

    def fail(self, error: BaseException) -> None:
        """It came to nothing."""
        self.ended = time.time_ns()
        if isinstance(error, GatewayError):
            self.code = error.code or "internal_error"
        else:
            self.code = "internal_error" if isinstance(error, Exception) else CANCELLED
        if isinstance(error, UpstreamError):
            status = error.details.get("upstream_status")
            self.status = status if isinstance(status, int) else 0


class Trace:
    """One request: `id` and `span` in hexadecimal digits, `winner` is the attempt whose answer the client got.

    `route` is the path that it was served at, empty for one that is not served.
    """

    __slots__ = (
        *("_content", "began", "body", "chat", "ended", "flags", "heard"),
        *("id", "parent", "route", "sampled", "scheme", "span", "spans", "winner"),
    )

    def __init__(self, parent: Parent | None, ratio: float, *, content: bool) -> None:
        self.began = time.time_ns()
        self.ended = 0
        self.route = ""
        self.scheme = "http"
        self.parent = parent
        number = 0 if parent else random.getrandbits(128)
        self.id = parent.trace if parent else f"{number:032x}"
        # As everybody decides who samples by the trace's id: by its last 64 bits.
        self.sampled = parent.sampled if parent else number & (2**64 - 1) < ratio * 2**64
        self.flags = parent.flags if parent else SAMPLED * self.sampled
        self.span = f"{random.getrandbits(64):016x}"
        self.spans: list[Span] = []
        self.winner: Span | None = None
        self.body = b""
        self.heard: Listener | None = None
        self.chat: Envelope | None = None
        self._content = content and self.sampled

    @property
    def size(self) -> int:
        """Bytes of the request and its answer that are kept for the spans."""
        asked = self.chat.size if self.chat is not None else 0
        return asked + len(self.body) + (self.heard.kept if self.heard else 0)

    def begin(self, attempt: Attempt) -> Span:
        """An attempt is made."""
        span = Span(self, attempt)
        self.spans.append(span)
        return span

    def take(self, span: Span | None, body: bytes, chat: ChatRequest) -> None:
        """This attempt's answer goes to the client; `body` is empty for a stream."""
        self.winner = span
        # A large one would take the interpreter from the event loop for as long as it is read.
        if self._content and isinstance(chat, Envelope) and chat.size <= KEPT:
            self.chat = chat
        if self.sampled and len(body) <= KEPT:
            self.body = body

    def listener(self, outlet: Outlet) -> Outlet:
        """The outlet for a stream, listened to if there is anything to learn."""
        if not self.sampled:
            return outlet
        self.heard = Listener(outlet, KEPT if self._content else FIRST_BYTES)
        return self.heard

    def end(self, code: str, route: str) -> None:
        """The request is over, by this code."""
        self.ended = time.time_ns()
        self.route = route
        for span in self.spans:
            if not span.ended:
                span.ended = self.ended
                span.code = CANCELLED if span is not self.winner else "" if code == "ok" else code

    def forget(self) -> None:
        """Keep nothing of what was said."""
        self.chat = self.heard = None
        self.body = b""


class Listener:
    """An outlet that keeps the first `most` bytes, and the last ones."""

    __slots__ = ("_first", "_last", "_most", "_outlet", "_size")

    def __init__(self, outlet: Outlet, most: int) -> None:
        self._outlet = outlet
        self._most = most
        self._size = 0
        self._first: list[bytes] = []
        self._last: deque[bytes] = deque(maxlen=LAST_WRITES)

    def write(self, data: bytes) -> None:
        """Pass bytes on."""
        self._outlet.write(data)
        if self._size < self._most:
            self._first.append(data)
        else:
            self._last.append(data if len(data) <= LAST_BYTES else data[-LAST_BYTES:])
        self._size += len(data)

    def hang_up(self) -> None:
        """Pass it on."""
        self._outlet.hang_up()

    def abort(self) -> None:
        """Pass it on."""
        self._outlet.abort()

    def buffered(self) -> int:
        """What the client has not taken yet."""
        return self._outlet.buffered()

    @property
    def kept(self) -> int:
        """How many bytes are kept."""
        return sum(map(len, self._first)) + sum(map(len, self._last))

    @property
    def whole(self) -> bool:
        """Is nothing missing in the middle?"""
        return not self._last

    def text(self) -> bytes:
        """What is kept, in order."""
        return b"".join((*self._first, b"\n", *self._last))
