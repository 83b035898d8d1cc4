"""One HTTP/1.1 answer out of bytes: head, body and where it ends, bounded in every direction."""

from __future__ import annotations

import re
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

_CODED = re.compile(rb"\n(?i:content-encoding):")
_SIZED = re.compile(rb"\n(?i:content-length|transfer-encoding):")


class Framing:
    """A C parser (llhttp) with our limits around it; `reset` makes it ready for the next answer.

    `status` is 0 until the head is complete, `head` then the status line and the headers as they came; interim answers
    (1xx) are passed over. The parser checks every header but hands over none, since a callback for each costs 0.3 µs:
    `read_headers` is for who asks.
    `reusable` says that the connection may carry another exchange. A packed body (gzip, deflate) comes out unpacked.
    While `aligned`, the next bytes begin a chunk of a body that is not packed: a whole one need not be fed.
    """

    __slots__ = (
        *(
            "_between",
            "_body",
            "_extra",
            "_inflate",
            "_interim",
            "_keeps",
            "_packed",
            "_parser",
            "_silent",
            "_unpacked",
        ),
        *("aligned", "complete", "head", "on_body", "status"),
    )

    def __init__(self) -> None:
        self._body: list[bytes] = []
        # What the parser calls needs no frame of ours.
        self.on_body = self._body.append
        self._parser = httptools.HttpResponseParser(self)
        self.reset()

    def reset(self) -> None:
        """Forget the last answer."""
        self._body.clear()
        self.head = b""
        self._inflate: Any = None
        self._packed = self._unpacked = self._interim = self._silent = self.status = 0
        self._extra = self._keeps = self._between = self.aligned = self.complete = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the body bytes that they hold. Raises UpstreamError for what HTTP does not allow."""
        if not self.status:
            self.head = self.head + data if self.head else data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self.complete:
                raise _as_ours(error) from error
            # The answer itself is good; what follows it is not.
            self._extra = True
        self.aligned = self._between and data.endswith(b"\r\n")
        if not self.status and len(self.head) > MAX_HEAD:
            raise BadUpstreamResponse("The provider sent a response head that is too large.")
        if self._body or self.aligned:
            self._silent = 0
        else:
            self._idle_bytes(len(data))
        if not self._body:
            return b""
        body = self._body
        if self._inflate is not None:
            body[:] = [piece for packed in body for piece in self._inflated(packed)]
        whole = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return whole

    def finish(self) -> None:
        """Say that the provider closed; raises Truncated if its answer was not complete."""
        if self.status and self._ends_with_connection():
            self.complete = True
        if not self.complete or not self.whole:
            raise Truncated("The provider closed the connection in the middle of its answer.")

    @property
    def headers(self) -> Headers:
        """The answer's headers: names in lower case, of a repeated one the last value; no coding that is undone."""
        headers = read_headers(self.head)
        if self._inflate is not None:
            del headers["content-encoding"]
        return headers

    @property
    def whole(self) -> bool:
        """Did a packed body come to its own end?"""
        return self._inflate is None or self._inflate.eof

    @property
    def reusable(self) -> bool:
        """May another request follow on the connection?"""
        return self.complete and not self._extra and self._keeps

    def on_message_begin(self) -> None:
        if self.complete:
            raise BadUpstreamResponse("The provider sent a second answer.")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise BadUpstreamResponse("The provider sent interim answers without end.")
            return
        if not 200 <= status <= 599:
            raise BadUpstreamResponse(f"The provider answered with status {status}.")
        self.head = head = _last_head(self.head, self._interim)
        if not head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
            raise BadUpstreamResponse("The provider answered in another version of HTTP.")
        # No header has less than four bytes, so that few heads need to be counted.
        if len(head) > MAX_HEAD or (len(head) > 4 * MAX_HEADERS and head.count(b"\n") > MAX_HEADERS):
            raise BadUpstreamResponse("The provider sent a response head that is too large, or too many headers.")
        self.status = status
        if _CODED.search(head):
            self.unpack(read_headers(head)["content-encoding"].lower())

    def unpack(self, coding: str) -> None:
        """The body comes in this content coding; raises BadUpstreamResponse for one that cannot be undone."""
        if coding in {"gzip", "x-gzip", "deflate"}:
            self._inflate = zlib.decompressobj(47)
        elif coding != "identity":
            raise BadUpstreamResponse("The provider used a content coding that was not asked for.")

    def on_chunk_header(self) -> None:
        self._between = False

    def on_chunk_complete(self) -> None:
        self._between = self._inflate is None

    def on_message_complete(self) -> None:
        self._between = False
        if self.status:
            self.complete = True
            # llhttp forgets this with the next call.
            self._keeps = self._parser.should_keep_alive()

    def _ends_with_connection(self) -> bool:
        return self.status != 204 and not _SIZED.search(self.head)

    def _idle_bytes(self, size: int) -> None:
        """Bound what is neither head nor body: chunk extensions and trailers."""
        if self.status and not self.complete:
            self._silent += size
            if self._silent > MAX_HEAD:
                raise BadUpstreamResponse("The provider sent too many bytes around its answer's body.")

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


def start_of(chunk: bytes) -> int:
    """Where its content begins, if these bytes are one whole chunk in the usual form, and not the last; else 0."""
    start = chunk.find(b"\r\n") + 2
    size = len(chunk) - start - 2
    return start if size > 0 and chunk.startswith(b"%x\r\n" % size) and chunk.endswith(b"\r\n") else 0


def read_headers(head: bytes) -> Headers:
    """The headers of a checked head: names in lower case, of a repeated one the last value."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, _, value in lines}


def _last_head(raw: bytes, interim: int) -> bytes:
    """The final answer's head out of the first bytes of a connection, behind so many interim ones."""
    for _ in range(interim):
        raw = raw[raw.index(b"\r\n\r\n") + 4 :]
    return raw[: raw.find(b"\r\n\r\n")]


def _as_ours(error: httptools.HttpParserError) -> UpstreamError:
    cause = error.__context__
    return (
        cause if isinstance(cause, UpstreamError) else BadUpstreamResponse("The provider's answer is not valid HTTP.")
    )
