"""What a hub conversation means to a provider with stricter rules: calls paired with results, ids, names, media."""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import orjson

from gateway.errors import InvalidRequest
from gateway.hub import Json

# What a tool call without an answer is answered with, where a provider insists on one.
NO_RESULT = "(no result)"

CARRIER = "__thought__"
# A longer id is not made: the client sends it back twice, on the call and on its result. A page of thinking fits.
MAX_CARRIED = 16 * 1024
_MAX_UNPACKED = 1024 * 1024

_CONCATENATED = msgspec.json.Decoder()


def content_parts(content: Any) -> list[Json]:
    """The parts of a message's content: none for null and "", one text part for a string, a list as it is."""
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise _malformed("'content' must be a string or a list of parts")
    parts: list[Json] = []
    for part in content:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
        elif isinstance(part, dict):
            parts.append(part)
        else:
            raise _malformed("a content part must be an object")
    return parts


def part_text(part: Mapping[str, Any]) -> str | None:
    """The text of a text or refusal part; None for any other part."""
    kind = part.get("type", "text")
    value = part.get("refusal") if kind == "refusal" else part.get("text") if kind == "text" else None
    return value if isinstance(value, str) else None


def content_text(content: Any) -> str:
    """All text of a message's content, joined."""
    return "".join(part_text(part) or "" for part in content_parts(content))


@dataclass(frozen=True, slots=True)
class Media:
    """An image, file or sound that a part brings: base64 `data`, or a `url`, or a provider's `file_id`.

    `kind` is image, file, audio or video; `media_type` is lower case and "" where nobody said.
    """

    kind: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    name: str = ""


def read_media(part: Mapping[str, Any]) -> Media | None:
    """The medium of an image_url, file, input_audio or video_url part; None for any other part."""
    kind = str(part.get("type"))
    body = part.get(kind)
    if kind in ("image_url", "video_url"):
        url = body.get("url") if isinstance(body, dict) else body
        if not isinstance(url, str) or not url:
            raise _malformed(f"an {kind} part needs a url")
        return _from_url(kind.removesuffix("_url"), url)
    if kind == "file" and isinstance(body, dict):
        name, data = str(body.get("filename") or ""), body.get("file_data")
        if isinstance(data, str) and data:
            found = _from_url("file", data if ":" in data[:16] else f"data:application/pdf;base64,{data}")
            return Media("file", found.media_type, found.data, found.url, "", name)
        return Media("file", file_id=str(body.get("file_id") or ""), name=name)
    if kind == "input_audio" and isinstance(body, dict):
        return Media("audio", f"audio/{body.get('format') or 'wav'}", str(body.get("data") or ""))
    return None


def _from_url(kind: str, url: str) -> Media:
    if (found := parse_data_url(url)) is not None:
        return Media(kind, found[0], found[1])
    return Media(kind, url=url)


def parse_data_url(url: str) -> tuple[str, str] | None:
    """The media type and the base64 text of a data URL; None for any other URL. `image/jpg` is read as image/jpeg."""
    if url[:5].lower() != "data:":
        return None
    head, comma, data = url[5:].partition(",")
    if not comma:
        raise _malformed("a data: URL has no comma")
    media_type, *marks = (mark.strip().lower() for mark in head.split(";"))
    if "base64" not in marks:
        data = b64encode(unquote_to_bytes(data)).decode()
    elif "%" in data:
        data = unquote_to_bytes(data).decode("latin-1")
    media_type = {"": "text/plain", "image/jpg": "image/jpeg"}.get(media_type, media_type)
    return media_type, "".join(data.split())


def tool_arguments(value: Any) -> Json:
    """A tool call's arguments as an object, whatever a history may hold.

    Nothing is {}; an object is itself. Several objects in a row of which one is not empty are that one (a
    known stutter of models: `{}{"a":1}`); any other text is kept whole under `_raw`.
    """
    if value is None or isinstance(value, dict):
        return value or {}
    if not isinstance(value, str):
        return {"_raw": value}
    if not value.strip():
        return {}
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        found = _only_object(value)
    return found if isinstance(found, dict) else {"_raw": value}


def _only_object(text: str) -> Any:
    try:
        objects = [_CONCATENATED.decode(piece) for piece in _pieces(text)]
    except (msgspec.DecodeError, RecursionError):
        return None
    filled = [found for found in objects if found]
    if len(objects) < 2 or len(filled) > 1 or not all(isinstance(found, dict) for found in objects):
        return None
    return filled[0] if filled else {}


def _pieces(text: str) -> Iterator[str]:
    """Cut between `}` and `{` at depth 0, outside strings."""
    depth, start, quoted, escaped = 0, 0, False, False
    for position, sign in enumerate(text):
        if quoted:
            quoted, escaped = sign != '"' or escaped, sign == "\\" and not escaped
        elif sign == '"':
            quoted = True
        elif sign in "{}":
            depth += 1 if sign == "{" else -1
            if not depth:
                yield text[start : position + 1]
                start = position + 1
    if text[start:].strip():
        yield text[start:]


def fitting_id(value: str, allowed: re.Pattern[str]) -> str:
    """A tool-call id as it is where it matches the target's pattern, else one made from its hash, always the same."""
    if allowed.fullmatch(value):
        return value
    return f"call_{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


@dataclass(frozen=True, slots=True)
class NameRule:
    """How a provider spells tool names: characters from `allowed`, the first not from `not_first`, `limit` long."""

    allowed: re.Pattern[str] = field(default_factory=lambda: re.compile("[a-zA-Z0-9_-]"))
    limit: int = 64
    not_first: re.Pattern[str] | None = None

    def fitted(self, name: str) -> str:
        """The name with `_` for every character that is not allowed."""
        fit = "".join(sign if self.allowed.fullmatch(sign) else "_" for sign in name[: self.limit])
        if not fit or (self.not_first and self.not_first.match(fit)):
            fit = f"_{fit}"
        return fit[: self.limit]


class ToolNames:
    """A client's tool names and the provider's, both ways; made for one request and never kept."""

    __slots__ = ("_clients", "_natives", "_rule", "_taken")

    def __init__(self, names: Iterable[str], rule: NameRule) -> None:
        self._rule = rule
        self._natives: dict[str, str] = {}
        self._clients: dict[str, str] = {}
        known = list(dict.fromkeys(names))
        # Names that fit keep themselves; only then do the others look for room.
        self._taken = {name for name in known if rule.fitted(name) == name}
        for name in known:
            self.native(name)

    def native(self, name: str) -> str:
        """The provider's name for the client's; a clash gets `_2`, `_3`, ..."""
        if name in self._natives:
            return self._natives[name]
        fit = stem = self._rule.fitted(name)
        count = 1
        while fit != name and fit in self._taken:
            count += 1
            fit = f"{stem[: self._rule.limit - len(str(count)) - 1]}_{count}"
        self._taken.add(fit)
        self._natives[name] = fit
        self._clients[fit] = name
        return fit

    def client(self, native: str) -> str:
        """The client's name for the provider's."""
        return self._clients.get(native, native)


def tool_names(request: Json) -> Iterator[str]:
    """The name of every tool that a request defines, then of those that its history called."""
    for tool in _items(request.get("tools")):
        if isinstance(tool, dict) and isinstance(body := tool.get(str(tool.get("type"))), dict):
            yield str(body.get("name") or "")
    for message in _items(request.get("messages")):
        for call in _items(message.get("tool_calls") if isinstance(message, dict) else None):
            yield read_call(call)[1]


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def read_call(call: Any) -> tuple[str, str, Any]:
    """Id, tool name and arguments of one item of `tool_calls`; a custom call's input is put under `input`."""
    if not isinstance(call, dict):
        raise _malformed("an item of 'tool_calls' must be an object")
    custom, function = call.get("custom"), call.get("function")
    if isinstance(custom, dict):
        return str(call.get("id") or ""), str(custom.get("name") or ""), {"input": custom.get("input") or ""}
    if not isinstance(function, dict):
        raise _malformed("an item of 'tool_calls' needs a 'function'")
    return str(call.get("id") or ""), str(function.get("name") or ""), function.get("arguments")


def carry(call_id: str, payload: Json) -> str:
    """The id with a payload inside, for clients that drop unknown fields; the plain id if it would be too long."""
    packed = urlsafe_b64encode(zlib.compress(orjson.dumps(payload), 9)).decode().rstrip("=")
    carrier = f"{call_id}{CARRIER}{packed}"
    return carrier if len(carrier) <= MAX_CARRIED else call_id


def uncarry(call_id: str) -> tuple[str, Json | None]:
    """The plain id, and what `carry` put into it; what was damaged on its way counts as nothing."""
    plain, mark, packed = call_id.partition(CARRIER)
    if not mark:
        return call_id, None
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(urlsafe_b64decode(packed + "=" * (-len(packed) % 4)), _MAX_UNPACKED)
        payload = orjson.loads(data)
    except (ValueError, zlib.error):
        return plain, None
    return plain, payload if isinstance(payload, dict) and unpacker.eof else None


@dataclass(slots=True)
class _Slot:
    call: Json
    result: Json | None = None


class _Pairing:
    """Finds for each result the call that it belongs to."""

    def __init__(self, fit: Callable[[str], str]) -> None:
        self._fit = fit
        self._used: dict[str, int] = {}
        self._waiting: dict[str, deque[_Slot]] = {}
        self._last: dict[str, _Slot] = {}

    def open(self, calls: Sequence[Any]) -> list[_Slot]:
        """Slots for one assistant message's calls; an older call of the same id waits no longer."""
        slots: list[_Slot] = []
        fresh: dict[str, deque[_Slot]] = {}
        for call in calls:
            name, payload = uncarry(read_call(call)[0])
            extra = {} if payload is None else {"carried": payload}
            slot = _Slot({**call, "id": self._unique(self._fit(name)), **extra})
            fresh.setdefault(name, deque()).append(slot)
            self._last[name] = slot
            slots.append(slot)
        self._waiting.update(fresh)
        return slots

    def fill(self, message: Json) -> bool:
        """Give a result to its call: the first that waits, else it replaces the last. False: there is no such call."""
        name, _ = uncarry(str(message.get("tool_call_id") or ""))
        if name not in self._last:
            return False
        waiting = self._waiting[name]
        slot = waiting.popleft() if waiting else self._last[name]
        slot.result = {**message, "tool_call_id": slot.call["id"]}
        return True

    def _unique(self, name: str) -> str:
        unique = name
        while unique in self._used:
            self._used[name] += 1
            unique = f"{name[:56]}_{self._used[name]}"
        self._used[unique] = 1
        return unique


def pair_calls(messages: Sequence[Any], fit: Callable[[str], str]) -> list[Json]:
    """The same conversation with every call's result right behind the calls, in their order.

    Ids pass through `fit` and are unique over the request; a call without a result gets an error result
    (`is_error` set); of several results the last counts; a result without a call becomes a user message.
    What an id carried stands under `carried` on its call. Appending whole turns leaves the earlier ones as they were.
    """
    pairing = _Pairing(fit)
    groups: list[Json | list[_Slot]] = []
    for message in messages:
        if not isinstance(message, dict):
            raise _malformed("a message must be an object")
        if message.get("role") == "assistant" and message.get("tool_calls"):
            if not isinstance(message["tool_calls"], list):
                raise _malformed("'tool_calls' must be a list")
            slots = pairing.open(message["tool_calls"])
            groups += ({**message, "tool_calls": [slot.call for slot in slots]}, slots)
        elif message.get("role") != "tool":
            groups.append(message)
        elif not pairing.fill(message):
            groups.append(_orphan(message))
    paired: list[Json] = []
    for group in groups:
        if isinstance(group, list):
            paired += (slot.result or _no_result(slot.call) for slot in group)
        else:
            paired.append(group)
    return paired


def _no_result(call: Json) -> Json:
    return {"role": "tool", "tool_call_id": call["id"], "content": NO_RESULT, "is_error": True}


def _orphan(message: Json) -> Json:
    head = {"type": "text", "text": "Result of an earlier tool call:"}
    return {"role": "user", "content": [head, *content_parts(message.get("content"))]}


def modern(request: Json) -> Json:
    """The request with `functions`, `function_call` and function messages as tools; the same object without them."""
    messages = request.get("messages") or ()
    if not isinstance(messages, list | tuple):
        raise _malformed("'messages' must be a list")
    old = any(isinstance(m, dict) and (m.get("role") == "function" or m.get("function_call")) for m in messages)
    if not old and request.get("functions") is None and request.get("function_call") is None:
        return request
    new = {name: value for name, value in request.items() if name not in ("functions", "function_call")}
    if request.get("functions") and not request.get("tools"):
        if not isinstance(request["functions"], list):
            raise InvalidRequest("'functions' must be a list.", param="functions")
        new["tools"] = [{"type": "function", "function": function} for function in request["functions"]]
    choice = request.get("function_call")
    if choice is not None and request.get("tool_choice") is None:
        new["tool_choice"] = {"type": "function", "function": choice} if isinstance(choice, dict) else choice
    if old:
        new["messages"] = _modern_messages(messages)
    return new


def _modern_messages(messages: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    ids: dict[str, str] = {}
    for place, message in enumerate(messages):
        if isinstance(message, dict) and isinstance(call := message.get("function_call"), dict):
            ids[str(call.get("name"))] = name = f"call_fn_{place}"
            rest = {key: value for key, value in message.items() if key != "function_call"}
            message = {**rest, "tool_calls": [{"id": name, "type": "function", "function": call}]}
        elif isinstance(message, dict) and message.get("role") == "function":
            rest = {key: value for key, value in message.items() if key != "name"}
            message = {**rest, "role": "tool", "tool_call_id": ids.get(str(message.get("name")), "")}
        found.append(message)
    return found


def _malformed(what: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid messages: {what}.", param="messages")
