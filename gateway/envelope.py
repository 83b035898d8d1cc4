"""A request body opened one level deep, so that a key can change while the rest stays byte for byte."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from gateway.errors import InvalidRequest
from gateway.hub import SAMPLING, Json

_OPEN = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SPACE = frozenset(b" \t\r\n")
_NUMBERS = frozenset((*SAMPLING, "seed", "n", "max_tokens", "max_completion_tokens", "top_logprobs"))
_QUOTE = ord('"')


class Envelope:
    """A client's JSON object: top-level keys are known, values stay raw until somebody asks.

    `headers` are the client's headers that a plugin may read. `overlay` holds top-level values that an
    adapter or the gateway set over the client's; they count as the client's own everywhere.
    """

    __slots__ = (
        "_decoded",
        "_found",
        "_overlay",
        "_parsed",
        "_raw",
        "fields",
        "headers",
        "model",
        "stream",
        "wants_usage",
    )

    def __init__(
        self,
        raw: bytes,
        fields: Mapping[str, msgspec.Raw],
        spans: Mapping[str, tuple[int, int]] | None,
        headers: Mapping[str, str],
        overlay: Mapping[str, Any],
    ) -> None:
        self._raw = raw
        self._found = spans
        self._overlay = overlay
        self._decoded: Json = dict(overlay)
        self._parsed: Json | None = None
        self.fields = fields
        self.headers = headers
        self.model: str = self.get("model")
        self.stream = self.wants_usage = False
        if "stream" in fields or overlay:
            self.stream = self.get("stream") is True
            options = self.get("stream_options") if self.stream else None
            self.wants_usage = isinstance(options, dict) and options.get("include_usage") is True

    @property
    def size(self) -> int:
        """Bytes of the body as the client sent it."""
        return len(self._raw)

    def names(self) -> Collection[str]:
        """The top-level keys in the client's order, then what was set over them."""
        if not self._overlay:
            return self.fields.keys()
        return [*self.fields, *(name for name in self._overlay if name not in self.fields)]

    def get(self, name: str) -> Any:
        """The decoded top-level value; None when absent or null."""
        if name in self._decoded:
            return self._decoded[name]
        if name not in self.fields:
            return None
        value = self._decoded[name] = _loaded(memoryview(self.fields[name]))
        return value

    def with_values(self, values: Mapping[str, Any]) -> Envelope:
        """The same request with top-level values set over the client's."""
        return Envelope(self._raw, self.fields, self._found, self.headers, {**self._overlay, **values})

    def with_headers(self, headers: Mapping[str, str]) -> Envelope:
        """The same request with other headers."""
        return Envelope(self._raw, self.fields, self._found, headers, self._overlay)

    @property
    def _spans(self) -> Mapping[str, tuple[int, int]]:
        """Where the members stand; looked for only when one of them is to change."""
        if self._found is None:
            self._found = _spans(self.fields)
        return self._found

    def edited(self, changes: Mapping[str, object], drop: Sequence[str] = ()) -> bytes:
        """The body with top-level keys replaced, added or removed; every other byte as the client sent it."""
        changes = {**self._overlay, **changes} if self._overlay else changes
        if not changes and not drop:
            return self._raw
        edits = []
        added = []
        for name, value in changes.items():
            if name in drop:
                continue
            if name in self._spans:
                _, end = self._spans[name]
                edits.append((end - len(self.fields[name]), end, orjson.dumps(value)))
            else:
                added.append(orjson.dumps(name) + b":" + orjson.dumps(value))
        if not drop and not added:
            return self._spliced(edits)
        return self._rebuilt(changes, frozenset(drop), added)

    def parsed(self) -> Json:
        """The whole request as a dict; cached, not to be mutated."""
        if self._parsed is None:
            self._parsed = {**_loaded(self._raw), **self._overlay}
        return self._parsed

    def _spliced(self, edits: list[tuple[int, int, bytes]]) -> bytes:
        raw = memoryview(self._raw)
        pieces: list[bytes | memoryview] = []
        position = 0
        for start, end, value in sorted(edits):
            pieces += (raw[position:start], value)
            position = end
        pieces.append(raw[position:])
        return b"".join(pieces)

    def _rebuilt(self, changes: Mapping[str, object], drop: frozenset[str], added: list[bytes]) -> bytes:
        raw = memoryview(self._raw)
        members: list[bytes | memoryview] = []
        for name, (start, end) in self._spans.items():
            if name in drop:
                continue
            if name in changes:
                members.append(bytes(raw[start : end - len(self.fields[name])]) + orjson.dumps(changes[name]))
            else:
                members.append(raw[start:end])
        return b"{" + b",".join((*members, *added)) + b"}"


def open_envelope(raw: bytes, headers: Mapping[str, str] = {}) -> Envelope:
    """Open a JSON object; raises InvalidRequest for anything that two parsers could read in two ways.

    Refused: what is not one JSON object, duplicate keys, invalid UTF-8, numeric parameters that overflow
    a double, nesting beyond the parser's limit, a `model` that is no string, a `stream` that is no boolean.
    """
    try:
        fields = _OPEN.decode(raw)
        if not raw.isascii():
            raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not valid JSON: {_reason(error)}.", code="invalid_json") from error
    spans = None if _is_compact(raw, fields) else _walk(raw, fields)
    _check_values(fields)
    return Envelope(raw, fields, spans, headers, {})


def _loaded(raw: bytes | memoryview) -> Any:
    """A value of the body; raises InvalidRequest for a number in it that overflows a double."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("The request body holds a number that cannot be kept.", code="invalid_json") from error


def _reason(error: Exception) -> str:
    if isinstance(error, msgspec.ValidationError):
        return "the top level must be an object"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error).removeprefix("JSON is malformed: ")


def _spans(fields: Mapping[str, msgspec.Raw]) -> dict[str, tuple[int, int]]:
    """Where each member (key and value) of a compact text stands: from its key's quote to the end of its value."""
    spans = {}
    position = 1
    for name, value in fields.items():
        end = position + len(name) + 3 + len(value)
        spans[name] = (position, end)
        position = end + 1
    return spans


def _is_compact(raw: bytes, fields: Mapping[str, msgspec.Raw]) -> bool:
    """Is the text as short as its members allow? Then it has no white space, no escape in a key and no key twice."""
    # Four bytes a member are punctuation.
    return 1 + 4 * len(fields) + sum(map(len, fields)) + sum(map(len, fields.values())) == len(raw)


def _walk(raw: bytes, fields: Mapping[str, msgspec.Raw]) -> dict[str, tuple[int, int]]:
    """The same for any other text: keys and values are compared in order with the bytes.

    A walk that reaches the closing brace proves that no key stands twice: else the dict would have fewer members.
    """
    spans: dict[str, tuple[int, int]] = {}
    position = _after(raw, 0, b"{")
    for count, (name, value) in enumerate(fields.items()):
        if count:
            position = _after(raw, position, b",")
        position = _skip(raw, position)
        start = position
        key = b'"' + name.encode() + b'"'
        if not raw.startswith(key, position):
            key = _escaped_key(raw, position, name)
        position = _skip(raw, _after(raw, position + len(key), b":"))
        if not raw.startswith(memoryview(value), position):
            raise _ambiguous(name)
        position += len(value)
        spans[name] = (start, position)
    _after(raw, position, b"}")
    return spans


def _skip(raw: bytes, position: int) -> int:
    while position < len(raw) and raw[position] in _SPACE:
        position += 1
    return position


def _after(raw: bytes, position: int, token: bytes) -> int:
    position = _skip(raw, position)
    if raw[position : position + 1] != token:
        raise _ambiguous("")
    return position + 1


def _escaped_key(raw: bytes, position: int, name: str) -> bytes:
    """The key as it stands when it is written with escapes."""
    end = position + 1
    while raw[end : end + 1] not in (b'"', b""):
        end += 2 if raw[end : end + 1] == b"\\" else 1
    key = raw[position : end + 1]
    if _loaded(key) != name:
        raise _ambiguous(name)
    return key


def _ambiguous(name: str) -> InvalidRequest:
    return InvalidRequest("The request body holds the same key twice.", code="invalid_json", param=name or None)


def _check_values(fields: Mapping[str, msgspec.Raw]) -> None:
    for name in _NUMBERS.intersection(fields):
        # No shorter text overflows.
        if len(fields[name]) > 3:
            try:
                orjson.loads(memoryview(fields[name]))
            except orjson.JSONDecodeError as error:
                message = f"'{name}' is not a number that can be kept."
                raise InvalidRequest(message, code="invalid_json", param=name) from error
    model = fields.get("model")
    if model is None or memoryview(model)[0] != _QUOTE:
        raise InvalidRequest("you must provide a model parameter", param="model")
    if len(model) == 2:
        raise InvalidRequest("'model' is empty.", param="model")
    stream = fields.get("stream")
    if stream is not None and memoryview(stream)[0] not in b"tfn":
        raise InvalidRequest("'stream' must be true or false.", param="stream")
