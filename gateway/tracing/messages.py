"""What was said, in the form that the semantic conventions have for it; only where `content: true` asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.contract import ChatRequest
from gateway.hub import Json
from gateway.tracing import names
from gateway.tracing.heard import Heard

# A text that is longer is cut; messages that are longer in all are left out.
TEXT_MOST = 32 * 1024
ALL_MOST = 256 * 1024
REASONS = {"tool_calls": "tool_call", "function_call": "tool_call"}


def content(chat: ChatRequest, heard: Heard) -> Mapping[str, str]:
    """The attributes that hold messages and tools, as JSON."""
    found: dict[str, Any] = {names.INPUT: [_message(each) for each in _dicts(chat.get("messages"))]}
    if tools := _dicts(chat.get("tools")):
        found[names.TOOLS] = [{"type": "function", **_dict(tool.get("function"))} for tool in tools]
    if heard.whole and heard.choices:
        found[names.OUTPUT] = [
            {**_message(choice.message()), "finish_reason": REASONS.get(choice.reason, choice.reason)}
            for _, choice in sorted(heard.choices.items())
        ]
    texts = {name: orjson.dumps(value, default=str) for name, value in found.items()}
    return {name: text.decode() for name, text in texts.items() if len(text) <= ALL_MOST}


def _message(said: Json) -> Json:
    if said.get("role") == "tool":
        response = {"type": "tool_call_response", "id": said.get("tool_call_id"), "response": _plain(said)}
        return {"role": "tool", "parts": [response]}
    parts = [{"type": "reasoning", "content": _cut(said["thought"])}] if said.get("thought") else []
    told = said.get("content")
    if isinstance(told, str):
        parts += [_text(told)] if told else []
    else:
        parts += [_part(each) for each in _dicts(told)]
    parts += [_call(each) for each in _dicts(said.get("tool_calls"))]
    return {"role": said.get("role"), "parts": parts}


def _plain(said: Json) -> str:
    told = said.get("content")
    return _cut(told if isinstance(told, str) else "".join(str(each.get("text", "")) for each in _dicts(told)))


def _part(part: Json) -> Json:
    """One block of a message; of pictures, sounds and files only what they are, not their data."""
    kind = str(part.get("type"))
    if kind == "text":
        return _text(str(part.get("text", "")))
    if kind != "image_url":
        return {"type": kind}
    said = part.get("image_url")
    url = said if isinstance(said, str) else str(_dict(said).get("url", ""))
    if url.startswith("data:"):
        return {"type": "blob", "modality": "image", "mime_type": url[5:].partition(";")[0][:100]}
    return {"type": "uri", "modality": "image", "uri": url.partition("?")[0][:2048]}


def _call(call: Json) -> Json:
    function = _dict(call.get("function"))
    given = str(function.get("arguments", ""))
    return {"type": "tool_call", "id": call.get("id"), "name": function.get("name"), "arguments": _cut(given)}


def _text(text: str) -> Json:
    return {"type": "text", "content": _cut(text)}


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MOST else f"{text[:TEXT_MOST]}…"


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
