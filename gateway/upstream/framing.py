"""One HTTP/1.1 answer out of bytes: head, body and where it ends, bounded in every direction."""

from __future__ import annotations

import zlib
from typing import Any

import httptools

from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError

MAX_HEAD = 64 * 1024
MAX_HEADERS = 256
MAX_INTERIM = 20
# JSON text packs by less than 20; a ratio of 200 past the first MiB is a bomb.
MAX_RATIO = 200
FREE_OUTPUT = 1024 * 1024
INFLATE_STEP = 256 * 1024

Headers = dict[str, str]


class Framing:
    """A C parser (llhttp) with our limits around it; `reset` makes it ready for the next answer.

    `status` is 0 until the head is complete; interim answers (1xx) are passed over. Header names are lower case; of a
    repeated header the last value counts. `reusable` says that the connection may carry another exchange.
    A packed body (gzip, deflate) comes out unpacked.
    """

    __slots__ = (
        *(
            "_body",
            "_extra",
            "_head_size",
            "_inflate",
            "_interim",
            "_keeps",
            "_packed",
            "_parser",
            "_pending",
            "_unpacked",
            "_until_close",
        ),
        *("complete", "headers", "status"),
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self.headers: Headers = {}
        self.reset()

    def reset(self) -> None:
        """Forget the last answer."""
        self._body = []
        self._pending: list[tuple[bytes, bytes]] = []
        self._inflate: Any = None
        self._packed = self._unpacked = self._head_size = self._interim = self.status = 0
        self._until_close = self._extra = self._keeps = self.complete = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the body bytes that they hold. Raises UpstreamError for what HTTP does not allow."""
        if not self.status:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._extra:
                raise _as_ours(error) from error
        if not self.status and self._head_size > MAX_HEAD:
            raise BadUpstreamResponse("The provider sent a response head that is too large.")
        if not self._body:
            return b""
        body, self._body = self._body, []
        if self._inflate is not None:
            body = [piece for packed in body for piece in self._inflated(packed)]
        return body[0] if len(body) == 1 else b"".join(body)

    def finish(self) -> None:
        """Say that the provider closed; raises Truncated if its answer was not complete."""
        if self._until_close:
            self.complete = True
        if not self.complete or not self.whole:
            raise Truncated("The provider closed the connection in the middle of its answer.")

    @property
    def whole(self) -> bool:
        """Did a packed body come to its own end?"""
        return self._inflate is None or self._inflate.eof

    @property
    def reusable(self) -> bool:
        """May another request follow on the connection?"""
        return self.complete and not self._extra and not self._until_close and self._keeps

    def on_message_begin(self) -> None:
        if self.complete:
            self._extra = True
            raise BadUpstreamResponse("The provider sent a second answer.")
        self._pending = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._pending.append((name, value))
        if len(self._pending) > MAX_HEADERS:
            raise BadUpstreamResponse("The provider sent too many response headers.")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise BadUpstreamResponse("The provider sent interim answers without end.")
            return
        if not 200 <= status <= 599:
            raise BadUpstreamResponse(f"The provider answered with status {status}.")
        headers = self.headers = {
            name.lower().decode("latin-1"): value.decode("latin-1") for name, value in self._pending
        }
        self.status = status
        self._until_close = "content-length" not in headers and "transfer-encoding" not in headers and status != 204
        coding = headers.pop("content-encoding", "identity").lower()
        if coding in {"gzip", "x-gzip", "deflate"}:
            self._inflate = zlib.decompressobj(47)
        elif coding != "identity":
            raise BadUpstreamResponse("The provider used a content coding that was not asked for.")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            # llhttp forgets this with the next call.
            self._keeps = self._parser.should_keep_alive()

    def _inflated(self, data: bytes) -> list[bytes]:
        pieces = []
        self._packed += len(data)
        try:
            while data and not self._inflate.eof:
                piece = self._inflate.decompress(data, INFLATE_STEP)
                self._unpacked += len(piece)
                if self._unpacked > FREE_OUTPUT + self._packed * MAX_RATIO:
                    raise BadUpstreamResponse("The provider's answer unpacks to too many bytes.")
                pieces.append(piece)
                data = self._inflate.unconsumed_tail
        except zlib.error as error:
            raise BadUpstreamResponse("The provider's answer cannot be unpacked.") from error
        return pieces


def _as_ours(error: httptools.HttpParserError) -> UpstreamError:
    cause = error.__context__
    return (
        cause if isinstance(cause, UpstreamError) else BadUpstreamResponse("The provider's answer is not valid HTTP.")
    )
