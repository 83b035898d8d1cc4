"""A conversation as Gemini wants it: the system instruction apart, turns alternating, each call answered at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.contract import Target
from gateway.conversation import ToolNames, content_parts, pair_calls, part_text, read_call, tool_arguments
from gateway.errors import InvalidRequest
from gateway.hub import Json
from plugins.google.media import RESOLUTIONS, detail_of, media_part

# Base64 of "skip_thought_signature_validator": Google's own word for a call that another model made.
SENTINEL = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
# An empty text is refused, a blank one is not.
_BLANK = {"text": " "}
_SYSTEM = ("system", "developer")


@dataclass(slots=True)
class Conversation:
    """The system instruction's parts, the turns, and the finest resolution that older models take for all images."""

    system: list[Json] = field(default_factory=list)
    turns: list[Json] = field(default_factory=list)
    resolution: str | None = None

    def add(self, role: str, parts: list[Json]) -> None:
        """Say something; the same role twice in a row is one turn."""
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["parts"] += parts
        elif parts:
            self.turns.append({"role": role, "parts": parts})


def conversation(messages: Any, names: ToolNames, target: Target) -> Conversation:
    """The messages of a hub request. Raises InvalidRequest for what is no conversation."""
    if not isinstance(messages, list):
        raise InvalidRequest("'messages' must be a list.", param="messages")
    return _Writer(names, target).written(pair_calls(messages, lambda name: name or "call"))


class _Writer:
    """Writes one conversation; knows the names of the calls, which the results only know by their ids."""

    def __init__(self, names: ToolNames, target: Target) -> None:
        self._names = names
        self._target = target
        self._abilities = target.abilities
        self._called: dict[str, str] = {}
        self._said = Conversation()

    def written(self, messages: list[Json]) -> Conversation:
        said = self._said
        start = next((i for i, message in enumerate(messages) if message.get("role") not in _SYSTEM), len(messages))
        said.system = [part for message in messages[:start] for part in _texts(message.get("content"))]
        results: list[Json] = []
        for message in messages[start:]:
            if message.get("role") == "tool":
                results.append(message)
                continue
            if results:
                self._answer(results)
                results = []
            self._speak(message)
        self._answer(results)
        self._settle()
        return said

    def _settle(self) -> None:
        """The first turn is the user's, there is at least one; a model without system instruction reads it there."""
        said = self._said
        if not said.turns and said.system:
            said.turns, said.system = [{"role": "user", "parts": said.system}], []
        if not said.turns:
            raise InvalidRequest("'messages' must not be empty.", param="messages")
        if said.turns[0]["role"] != "user":
            said.turns.insert(0, {"role": "user", "parts": [_BLANK]})
        if said.system and not self._abilities.get("system"):
            said.turns[0]["parts"] = said.system + said.turns[0]["parts"]
            said.system = []

    def _speak(self, message: Json) -> None:
        role = message.get("role")
        if role == "assistant":
            self._said.add("model", self._model_parts(message))
        elif role == "user":
            self._said.add("user", self._user_parts(message.get("content")))
        elif role in _SYSTEM:
            # In its place: hoisted to the top it would change the order, and the prefix that is cached.
            self._said.add("user", _texts(message.get("content")))
        else:
            raise InvalidRequest(f"Invalid messages: there is no role {role!r}.", param="messages")

    def _user_parts(self, content: Any) -> list[Json]:
        if isinstance(content, str) and content:
            return [{"text": content}]
        parts = []
        for part in content_parts(content):
            text = part_text(part)
            if text is None:
                parts.append(self._medium(part))
            elif text:
                parts.append({"text": text})
        return parts or [_BLANK]

    def _medium(self, part: Json) -> Json:
        found = media_part(part, self._target)
        if resolution := detail_of(part):
            if self._abilities.get("part_detail"):
                return {**found, "mediaResolution": {"level": resolution}}
            if self._said.resolution != RESOLUTIONS["high"]:
                self._said.resolution = resolution
        return found

    def _model_parts(self, message: Json) -> list[Json]:
        """Text, then calls. Thoughts are not sent back: without their signature they are worth nothing."""
        content = message.get("content") or message.get("refusal")
        parts: list[Json] = []
        for part in content_parts(content):
            text = part_text(part)
            if text is None:
                parts.append(media_part(part, self._target))
            elif text:
                parts.append({"text": text})
        parts += (media_part(image, self._target) for image in _images(message))
        texts = [place for place, part in enumerate(parts) if "text" in part]
        if texts and (signature := _signature(message)):
            parts[texts[-1]] = {**parts[texts[-1]], "thoughtSignature": signature}
        return parts + [self._call(call, first=not place) for place, call in enumerate(message.get("tool_calls") or ())]

    def _call(self, call: Json, *, first: bool) -> Json:
        name, tool, arguments = read_call(call)
        self._called[name] = native = self._names.native(tool)
        ident = {"id": name} if self._abilities.get("call_ids") else {}
        part: Json = {"functionCall": {**ident, "name": native, "args": tool_arguments(arguments)}}
        signature = _signature(call)
        if not signature and first and self._abilities.get("signatures"):
            signature = SENTINEL
        return {**part, "thoughtSignature": signature} if signature else part

    def _answer(self, results: list[Json]) -> None:
        """All results of one model turn stand in one turn; media that a result cannot hold come behind them."""
        parts: list[Json] = []
        behind: list[Json] = []
        for result in results:
            shown = content_parts(result.get("content"))
            media = [media_part(part, self._target) for part in shown if part_text(part) is None]
            inside = bool(media) and bool(self._abilities.get("result_media"))
            behind += () if inside else media
            name = str(result["tool_call_id"])
            response: Json = {"id": name} if self._abilities.get("call_ids") else {}
            response["name"] = self._called[name]
            response["response"] = _outcome("".join(part_text(part) or "" for part in shown), result)
            parts.append({"functionResponse": {**response, "parts": media} if inside else response})
        self._said.add("user", parts + behind)


def _images(message: Json) -> list[Json]:
    """The images that an earlier answer of ours brought."""
    images = message.get("images")
    return [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []


def _texts(content: Any) -> list[Json]:
    texts = (part_text(part) for part in content_parts(content))
    return [{"text": text} for text in texts if text]


def _outcome(text: str, result: Json) -> Json:
    """A result must be an object: JSON that is one, else the text under the key that Google's own clients use."""
    if result.get("is_error"):
        return {"error": text}
    if text.lstrip().startswith("{"):
        try:
            found: Json = orjson.loads(text)
        except orjson.JSONDecodeError:
            return {"output": text}
        return found
    return {"output": text}


def _signature(holder: Json) -> str | None:
    """The thought signature of a message or call, from where clients keep it."""
    return next((found for found in _kept(holder) if isinstance(found, str) and found), None)


def _kept(holder: Json) -> Iterable[Any]:
    for key in ("extra_content", "carried"):
        extra = holder.get(key)
        google = extra.get("google") if isinstance(extra, dict) else None
        yield google.get("thought_signature") if isinstance(google, dict) else None
    fields = holder.get("provider_specific_fields")
    yield fields.get("thought_signature") if isinstance(fields, dict) else None
