"""What happens to response bytes on their way through: nothing, mending, or translation."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import orjson

from gateway.contract import Mender, StreamDecoder, StreamEncoder, Usage
from gateway.errors import BadUpstreamResponse, GatewayError, Truncated, UpstreamError
from gateway.hub import Json
from gateway.sse import CR, MAX_EVENT, event
from gateway.usage import Counts, normal, read_usage

_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_BOUNDARY = re.compile(rb"\n\n|\r\n\r\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')
_BOM = b"\xef\xbb\xbf"
_DONE_EVENT = b"data: [DONE]\n\n"

ReadError = Callable[[bytes], UpstreamError]
FromWhole = Callable[[bytes], list[Json]]


class _Said(msgspec.Struct):
    """The parts of a chat completion or chunk that say how it went."""

    error: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()

    @property
    def failed(self) -> bool:
        """Is there an error that says anything?"""
        return bytes(self.error) not in _NOTHING


class _Ends(_Said):
    usage: msgspec.Raw = msgspec.Raw()


class _Counted(_Said):
    """With the usage read along: for usage that is as it should be."""

    usage: Counts | None = None


_UNREADABLE = _Ends()
_ends = msgspec.json.Decoder(_Ends).decode
_counted = msgspec.json.Decoder(_Counted).decode
_NOTHING = (b"", b"null", b"false", b'""', b"{}")
# An event that bills is kept until the end, and no event with usage has more to say than this.
_BILL = 16 * 1024
_BLANK = b" \t\r\n\xef\xbb\xbf"


class Passthrough:
    """A stream in the client's own dialect: whole events pass as they are, the same object wherever that is possible.

    An event is held until it is complete, so that an error can always be told at a boundary. `withhold_usage`
    takes out the usage chunk that the client did not ask for. Where the provider answers a stream request with a whole
    JSON body, `read_error` makes our error of an error object, and `from_whole` chunks of a completion.
    """

    verbatim = True
    __slots__ = (
        *(
            "_blank",
            "_clear",
            "_encode_whole",
            "_finished",
            "_held",
            "_limit",
            "_mender",
            "_read_error",
            "_size",
            "_tail",
            "_used",
            "_whole",
            "_withhold",
        ),
        *("done", "events", "failure", "started"),
    )

    def __init__(
        self,
        read_error: ReadError,
        from_whole: FromWhole,
        mender: Mender | None = None,
        *,
        withhold_usage: bool = False,
        max_event: int = MAX_EVENT,
    ) -> None:
        self.done = False
        self.started = False
        self.failure: UpstreamError | None = None
        self.events = 0
        self._mender = mender
        self._withhold = withhold_usage
        self._limit = max_event
        self._read_error = read_error
        self._encode_whole = from_whole
        self._held: list[bytes] = []
        self._size = 0
        self._tail = b""
        self._blank = True
        self._whole = False
        self._finished = False
        self._used = b""
        # Will the next events be whole, and pass unless they say more than content?
        self._clear = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes cut anywhere; return the whole events that they completed."""
        if self.done or self.failure:
            return b""
        if self._held or not self.started or not data.endswith(_ENDS):
            data = self._completed(data)
        if data and (not self.started or self._mender is not None or self._says_more(data)):
            data = self._looked_through(data)
        elif data.find(b"data:") >= 0:
            self.events += 1
        self._clear = self.started and self._mender is None and not (self._held or self.done or self.failure)
        return data

    def lets_pass(self, chunk: bytes) -> bool:
        """Does this chunk hold whole events with nothing but content? Then they are counted."""
        if not self._clear or not chunk.endswith(b"\n\n\r\n") or chunk.find(b"data:") < 0 or self._says_more(chunk):
            return False
        self.events += 1
        return True

    def finish(self) -> bytes:
        """Say that the upstream ended its answer well; supply what it left out, or raise what it hides."""
        if self.done:
            return b""
        if self._whole:
            return self._finish_whole()
        out = b""
        if self._held:
            rest = b"".join(self._held).rstrip(b"\r\n")
            self._held = []
            out = self._looked_through(rest + b"\n\n") if _is_event(rest) else b""
        if self.failure:
            raise self.failure
        if self.done:
            return out
        if not self._finished:
            raise Truncated("The provider's stream ended before it was complete.")
        self.done = True
        return out + b"".join(event(payload) for payload in self._added()) + _DONE_EVENT

    def fail(self, error: GatewayError) -> bytes:
        """The error as the stream's last event."""
        return event(orjson.dumps(error.body()))

    def usage(self) -> Usage | None:
        """What the provider reported; of a stream that ended early, the events that passed, marked as partial."""
        if self._used and (found := read_usage(bytes(_decoded(self._used).usage))):
            return found
        return None if self.done or not self.events else Usage(completion=self.events, source="partial")

    def _says_more(self, events: bytes) -> bool:
        """Might there be more in them than content: an error, usage, the first reason of an end, or the end?"""
        # `find` takes half the time of `in`: see `gateway.sse.CR`.
        if events.find(b'"error"') >= 0 or events.find(b"[DONE]") >= 0:
            return True
        if not self._finished and _FINISH.search(events):
            return True
        return events.find(b'"usage"') >= 0 and _USAGE.search(events) is not None

    def _completed(self, data: bytes) -> bytes:
        """Hold what is not yet a whole event; return what is."""
        if self._blank and (text := data.lstrip(_BLANK)):
            self._blank = False
            self._whole = text[:1] == b"{"
        seen = self._tail + data
        self._size += len(data)
        if self._whole or not _BOUNDARY.search(seen):
            self._tail = seen[-3:]
            self._held.append(data)
            if self._size > self._limit:
                self.failure = BadUpstreamResponse(f"The provider sent an event larger than {self._limit} bytes.")
            return b""
        whole = b"".join((*self._held, data)) if self._held else data
        end = max(whole.rfind(boundary) + len(boundary) for boundary in _ENDS if boundary in whole)
        rest = whole[end:]
        self._held = [rest] if rest else []
        self._tail = rest[-3:]
        self._size = len(rest)
        return whole[:end]

    def _looked_through(self, block: bytes) -> bytes:
        """Take whole events one by one: mend, withhold, notice the end and errors."""
        if not self.started:
            block = block.removeprefix(_BOM)  # allowed before a stream, but unknown to most clients
        kept: list[bytes] = []
        same = True
        for text in _split(block):
            payload = _payload(text)
            if payload is None:
                kept.append(text)
                continue
            if payload == b"[DONE]":
                self.done = True
                added = self._added()
                kept += [*(event(more) for more in added), text]
                same = same and not added
                break
            if (payload := self._passed(payload, text)) is None:
                same = False
                if self.failure:
                    break
                continue
            self.started = True
            self.events += 1
            same = same and not payload
            kept.append(event(payload) if payload else text)
        return block if same and sum(map(len, kept)) == len(block) else b"".join(kept)

    def _passed(self, payload: bytes, text: bytes) -> bytes | None:
        """None: not for the client. Empty: as it stands. Else the payload to send instead."""
        if payload.find(b'"error"') >= 0 and _decoded(payload).failed:
            self.failure = self._read_error(payload)
            return None
        mended = payload
        if self._mender is not None:
            sound = self._mender.chunk(payload)
            if sound is None:
                return None
            mended = sound
        if not self._finished and _FINISH.search(mended):
            self._finished = True
        if self._bills(mended) and self._withhold and _is_usage_chunk(mended):
            return None
        return b"" if mended is payload else mended

    def _bills(self, payload: bytes) -> bool:
        """Does it say what was used? Then it is kept."""
        if not _USAGE.search(payload):
            return False
        if len(payload) <= _BILL:
            self._used = payload
        return True

    def _added(self) -> list[bytes]:
        added = self._mender.finish() if self._mender is not None else []
        for payload in added:
            self._bills(payload)
        return added

    def _finish_whole(self) -> bytes:
        body = b"".join(self._held).lstrip(_BLANK)
        if read_whole(body)[0]:
            self.failure = self._read_error(body)
            raise self.failure
        chunks = self._encode_whole(self._mender.body(body) if self._mender is not None else body)
        self.done = self.started = True
        payloads = [orjson.dumps(chunk) for chunk in chunks]
        kept = [
            payload
            for payload in payloads
            if not (self._bills(payload) and self._withhold and _is_usage_chunk(payload))
        ]
        return b"".join(map(event, kept)) + _DONE_EVENT


class Translated:
    """A stream in the provider's dialect: decoded to hub chunks, encoded in the client's dialect.

    What one read completed leaves in one piece.
    """

    verbatim = False
    __slots__ = ("_decoder", "_encoder", "_seen", "done", "events", "failure", "started")

    def __init__(self, decoder: StreamDecoder, encoder: StreamEncoder) -> None:
        self.done = False
        self.started = False
        self.failure: UpstreamError | None = None
        self.events = 0
        self._decoder = decoder
        self._encoder = encoder
        self._seen: Json | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes cut anywhere; return the client's events that they completed."""
        if self.done or self.failure:
            return b""
        out = self._encoded(self._decoder.feed(data))
        if self._decoder.failure is not None:
            self.failure = self._decoder.failure
        elif self._decoder.done:
            self.done = True
            out += self._encoder.finish()
        return out

    def lets_pass(self, chunk: bytes) -> bool:
        """Every event becomes another."""
        return False

    def finish(self) -> bytes:
        """Say that the upstream ended; raises Truncated if that was too early."""
        if self.done:
            return b""
        out = self._encoded(self._decoder.finish())
        if self._decoder.failure is not None:
            raise self._decoder.failure
        self.done = True
        return out + self._encoder.finish()

    def fail(self, error: GatewayError) -> bytes:
        """The error as the stream's last event."""
        return self._encoder.fail(error)

    def usage(self) -> Usage | None:
        """What the provider reported; of a stream that ended early, the events that passed, marked as partial."""
        if self._seen is not None:
            return read_usage(self._seen)
        return None if self.done or not self.events else Usage(completion=self.events, source="partial")

    def _encoded(self, chunks: list[Json]) -> bytes:
        if not chunks:
            return b""
        self.started = True
        self.events += len(chunks)
        if usage := chunks[-1].get("usage"):
            self._seen = usage
        encode = self._encoder.feed
        return encode(chunks[0]) if len(chunks) == 1 else b"".join([encode(chunk) for chunk in chunks])


def read_whole(body: bytes) -> tuple[bool, Usage | None]:
    """Is this answer an error object, whatever its status says; and what it reports to have used.

    Raises BadUpstreamResponse for what is no JSON object, or neither an error nor a chat completion.
    """
    if body[:1] != b"{" and body.lstrip()[:1] != b"{":
        raise BadUpstreamResponse("The provider answered with something that is not JSON.")
    ends: _Counted | _Ends
    try:
        ends = _counted(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        ends = _decoded(body)
    if ends.failed:
        return True, None
    if not len(ends.choices):
        raise BadUpstreamResponse("The provider answered with JSON that is no chat completion.")
    if isinstance(ends, _Ends):
        return False, read_usage(bytes(ends.usage))
    return False, None if ends.usage is None else normal(ends.usage)


def _decoded(payload: bytes) -> _Ends:
    try:
        return _ends(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _UNREADABLE


def _is_usage_chunk(payload: bytes) -> bool:
    return bytes(_decoded(payload).choices).translate(None, b" \t\r\n") == b"[]"


def _is_event(rest: bytes) -> bool:
    payload = _payload(rest)
    if payload is None or payload == b"[DONE]":
        return payload is not None
    try:
        return isinstance(orjson.loads(payload), dict)
    except orjson.JSONDecodeError:
        return False


def _split(block: bytes) -> list[bytes]:
    """The events of a block, each with the blank line that ends it."""
    if CR not in block:
        return [text + b"\n\n" for text in block[:-2].split(b"\n\n")] if block.endswith(b"\n\n") else [block]
    events = []
    start = 0
    for match in _BOUNDARY.finditer(block):
        events.append(block[start : match.end()])
        start = match.end()
    return [*events, block[start:]] if start < len(block) else events


def _payload(text: bytes) -> bytes | None:
    """The data of one event; None for a comment or an event without data."""
    if text.startswith(b"data: ") and text.count(b"\n") == 2 and text.endswith(b"\n\n") and CR not in text:
        return text[6:-2]
    data = [line[5:].removeprefix(b" ") for line in _LINE.split(text.removeprefix(_BOM)) if line.startswith(b"data:")]
    return b"\n".join(data) if data else None
