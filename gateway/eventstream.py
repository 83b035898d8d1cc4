"""Frames of `application/vnd.amazon.eventstream`, read from bytes that may be cut anywhere, and written."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from zlib import crc32

from msgspec import Struct

from gateway.errors import BadUpstreamResponse

MAX_FRAME = 16 * 1024 * 1024
MAX_HEADERS = 128 * 1024

_PRELUDE = struct.Struct(">III")  # length of the frame, length of its headers, CRC of these eight bytes
_OVERHEAD = _PRELUDE.size + 4  # a CRC over all that precedes ends the frame
_CRC = struct.Struct(">I")
_SHORT = struct.Struct(">H")
_BYTES, _STRING = 6, 7
_SIZED = (_BYTES, _STRING)
# Bytes of a value by its type: true, false, int8, int16, int32, int64; timestamp (milliseconds), uuid.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_KINDS_KEPT = 64  # a stream has about eight kinds of header blocks; a hostile one must not fill memory

Header = bool | int | str | bytes


class Frame(Struct, frozen=True):
    """One message: its headers by name (shared between frames: read only) and its payload."""

    headers: Mapping[str, Header]
    payload: bytes


class FrameReader:
    """Bytes to frames, both checksums verified.

    Broken framing sets `failure`; frames before it are still returned and bytes after it ignored. A frame
    that claims more than `limit` bytes is refused from its first twelve. Work is linear in the bytes
    however small the pieces are: pieces are joined when the prelude and when the frame is complete.
    """

    __slots__ = ("_held", "_known", "_limit", "_need", "_size", "failure")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._held: list[bytes] = []
        self._size = 0
        self._need = 0
        self._known: dict[bytes, Mapping[str, Header]] = {}
        self.failure: BadUpstreamResponse | None = None

    @property
    def pending(self) -> bool:
        """Is a part of a frame held back?"""
        return self._size > 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the frames that they completed."""
        if self.failure is not None:
            return []
        if self._held:
            self._held.append(data)
            self._size += len(data)
            if self._size < self._need:
                return []
            data = b"".join(self._held)
            self._held, self._size = [], 0
        frames: list[Frame] = []
        try:
            self._cut(data, frames)
        except BadUpstreamResponse as failure:
            self.failure = failure
        return frames

    def _cut(self, data: bytes, frames: list[Frame]) -> None:
        at, end = 0, len(data)
        need = _PRELUDE.size
        while end - at >= _PRELUDE.size:
            total, length, check = _PRELUDE.unpack_from(data, at)
            prelude = crc32(data[at : at + 8])
            if prelude != check:
                raise BadUpstreamResponse("The provider sent an event stream frame with a wrong prelude checksum.")
            if total - _OVERHEAD < length or total > self._limit or length > MAX_HEADERS:
                raise BadUpstreamResponse(
                    f"The provider sent an event stream frame of impossible size ({total} bytes)."
                )
            if end - at < total:
                need = total
                break
            stop = at + total
            if crc32(data[at + 8 : stop - 4], prelude) != _CRC.unpack_from(data, stop - 4)[0]:
                raise BadUpstreamResponse("The provider sent an event stream frame with a wrong checksum.")
            body = at + 12 + length
            frames.append(Frame(self._headers(data[at + 12 : body]), data[body : stop - 4]))
            at = stop
            need = _PRELUDE.size
        if at < end:
            self._held, self._size, self._need = [data[at:]], end - at, need

    def _headers(self, block: bytes) -> Mapping[str, Header]:
        headers = self._known.get(block)
        if headers is None:
            headers = read_headers(block)
            if len(self._known) < _KINDS_KEPT:
                self._known[block] = headers
        return headers


def read_headers(block: bytes) -> dict[str, Header]:
    """A frame's header block as a dict; raises BadUpstreamResponse for what is no header block."""
    headers: dict[str, Header] = {}
    at = 0
    try:
        while at < len(block):
            end = at + 1 + block[at]
            name = block[at + 1 : end].decode()
            kind, at = block[end], end + 1
            if kind in _SIZED:
                size = _SHORT.unpack_from(block, at)[0]
                at += 2
            else:
                size = _SIZES[kind]
            if at + size > len(block) or name in headers:
                raise ValueError
            headers[name] = _value(kind, block[at : at + size])
            at += size
    except (ValueError, LookupError, struct.error) as error:
        raise BadUpstreamResponse("The provider sent an event stream frame with unreadable headers.") from error
    return headers


def encode(headers: Mapping[str, Header], payload: bytes) -> bytes:
    """One frame as bytes; an int header becomes an int64."""
    block = b"".join(_write_header(name, value) for name, value in headers.items())
    prelude = _PRELUDE.pack(len(block) + len(payload) + _OVERHEAD, len(block), 0)[:8]
    message = b"".join((prelude, _CRC.pack(crc32(prelude)), block, payload))
    return message + _CRC.pack(crc32(message))


def _value(kind: int, raw: bytes) -> Header:
    if kind == _STRING:
        return raw.decode()
    if kind <= 1:
        return kind == 0
    return raw if kind in (_BYTES, 9) else int.from_bytes(raw, "big", signed=True)


def _write_header(name: str, value: Header) -> bytes:
    key = name.encode()
    head = bytes((len(key),)) + key
    if isinstance(value, bool):
        return head + (b"\x00" if value else b"\x01")
    if isinstance(value, int):
        return head + b"\x05" + value.to_bytes(8, "big", signed=True)
    raw = value.encode() if isinstance(value, str) else value
    return head + bytes((_STRING if isinstance(value, str) else _BYTES,)) + _SHORT.pack(len(raw)) + raw
