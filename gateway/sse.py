"""Server-sent events, read from bytes that may be cut anywhere (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from gateway.errors import BadUpstreamResponse

MAX_EVENT = 16 * 1024 * 1024
DONE = b"[DONE]"
# Numbers, since `bytes in bytes` first takes the left for one, and raises and forgets an error before it looks.
CR, LF = b"\r\n"


class EventReader:
    """Bytes to the `data` of each complete event; comments and other fields are passed over.

    Lines may end in LF, CRLF or CR; several data lines are joined by LF; a leading byte order mark is
    ignored. An event larger than `limit` bytes raises BadUpstreamResponse. Work is linear in the bytes
    however small the pieces are: pieces are joined only when an event completes.
    """

    __slots__ = ("_after_cr", "_held", "_limit", "_size", "_started")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._held: list[bytes] = []
        self._size = 0
        self._started = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the data of the events that they completed."""
        if not self._started:
            data = self._start(data)
        if self._after_cr or CR in data:
            data = self._normalise(data)
        if not self._held:
            if data.endswith(b"\n\n"):
                return _payloads(data)
        elif data.find(b"\n\n") < 0 and not (data[:1] == b"\n" and self._held[-1].endswith(b"\n")):
            self._hold(data)
            return []
        whole = b"".join((*self._held, data)) if self._held else data
        end = whole.rfind(b"\n\n")
        self._held, self._size = [], 0
        if end < 0:
            self._hold(whole)
            return []
        self._hold(whole[end + 2 :])
        return _payloads(whole[: end + 2])

    def finish(self) -> list[bytes]:
        """Say that no more bytes come; return the data of a last event that no blank line ended."""
        rest = b"".join(self._held)
        self._held, self._size = [], 0
        return _payloads(rest)

    @property
    def rest(self) -> bytes:
        """The bytes that no event has claimed yet."""
        return b"".join(self._held)

    @property
    def pending(self) -> bool:
        """Is a part of an event held back?"""
        return self._size > 0

    def _start(self, data: bytes) -> bytes:
        self._held.append(data)
        head = b"".join(self._held)
        self._held = []
        if len(head) < 3 and b"\xef\xbb\xbf".startswith(head):
            self._held.append(head)
            return b""
        self._started = True
        return head.removeprefix(b"\xef\xbb\xbf")

    def _normalise(self, data: bytes) -> bytes:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if data.endswith(b"\r"):
            self._after_cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, data: bytes) -> None:
        if data:
            self._held.append(data)
            self._size += len(data)
            if self._size > self._limit:
                raise BadUpstreamResponse(f"The provider sent an event larger than {self._limit} bytes.")


def _payloads(block: bytes) -> list[bytes]:
    payloads = []
    for event in block.split(b"\n\n"):
        if event.startswith(b"data: ") and LF not in event:
            payloads.append(event[6:])
        elif event:
            lines = [_value(line) for line in event.split(b"\n") if line.startswith(b"data:") or line == b"data"]
            if lines:
                payloads.append(b"\n".join(lines))
    return payloads


def _value(line: bytes) -> bytes:
    return line[6:] if line.startswith(b"data: ") else line[5:]


def event(payload: bytes) -> bytes:
    """One event as bytes."""
    return b"data: " + payload + b"\n\n"
