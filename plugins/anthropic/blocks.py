"""Parts of a hub message as Claude's content blocks."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

from gateway.conversation import Media, content_parts, part_text, read_media
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.hub import Json

IMAGES = frozenset(("image/jpeg", "image/png", "image/gif", "image/webp"))
THOUGHTS = ("thinking", "redacted_thinking")
# Under which a tool-call id carries signed thoughts; Claude on Bedrock reads and writes the same.
THOUGHTS_KEY = "anthropic"

# Blocks of the provider's own that travel on unchanged.
_NATIVE = re.compile(
    r"image|document|search_result|container_upload|tool_reference|compaction|server_tool_use|mcp_tool_use|\w+_tool_result"
)


def to_blocks(content: Any, urls: bool) -> list[Json]:
    """The blocks of a content; blank texts are left out, as the provider refuses them."""
    return [block for part in content_parts(content) if (block := _block(part, urls)) is not None]


def _block(part: Json, urls: bool) -> Json | None:
    text = part_text(part)
    if text is not None:
        return marked({"type": "text", "text": text}, part) if text.strip() else None
    kind = str(part.get("type"))
    if kind in THOUGHTS:
        return None
    medium = read_media(part)
    if medium is not None:
        return marked(_medium(medium, urls), part)
    if _NATIVE.fullmatch(kind):
        return {key: value for key, value in part.items() if value is not None}
    raise InvalidRequest(
        f"Invalid messages: this provider knows no content part of type '{kind[:64]}'.", param="messages"
    )


def marked(block: Json, source: Json) -> Json:
    """The block with the cache mark of what it was made from."""
    mark = source.get("cache_control")
    return {**block, "cache_control": mark} if isinstance(mark, dict) else block


def _medium(medium: Media, urls: bool) -> Json:
    if medium.kind in ("audio", "video"):
        raise UnsupportedParameter("messages", f"hold {medium.kind}, which this provider cannot read")
    if medium.file_id:
        return _document({"type": "file", "file_id": medium.file_id}, medium.name)
    if medium.url:
        return _by_url(medium, urls)
    kind = _media_type(medium)
    if kind in IMAGES:
        return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": medium.data}}
    if kind == "application/pdf":
        return _document({"type": "base64", "media_type": kind, "data": medium.data}, medium.name)
    if kind.startswith("text/"):
        return _document({"type": "text", "media_type": "text/plain", "data": _text(medium.data)}, medium.name)
    raise UnsupportedParameter("messages", f"hold a file of type '{kind[:64]}', which this provider cannot read")


def _media_type(medium: Media) -> str:
    if medium.media_type in ("", "application/octet-stream") and medium.name.lower().endswith(".pdf"):
        return "application/pdf"
    return medium.media_type


def _by_url(medium: Media, urls: bool) -> Json:
    if not urls or not medium.url.lower().startswith("https://"):
        raise UnsupportedParameter("messages", f"name an {medium.kind} by a URL that this provider cannot fetch")
    source = {"type": "url", "url": medium.url}
    return {"type": "image", "source": source} if medium.kind == "image" else _document(source, medium.name)


def _document(source: Json, name: str) -> Json:
    document: Json = {"type": "document", "source": source}
    return {**document, "title": name} if name else document


def _text(data: str) -> str:
    try:
        return b64decode(data, validate=True).decode()
    except ValueError as error:
        raise InvalidRequest("Invalid messages: a text file is not base64 of UTF-8.", param="messages") from error


def thought_blocks(message: Json) -> list[Json]:
    """The signed thoughts of an assistant message, as the provider gave them.

    `thinking_blocks` win, then thinking parts of the content, `reasoning_details`, and what the tool-call ids carried.
    What has no signature cannot be sent back and is left out.
    """
    content = message.get("content")
    sources = (
        message.get("thinking_blocks"),
        content,
        [_detail(item) for item in _items(message.get("reasoning_details")) if isinstance(item, dict)],
        _carried(message),
    )
    found = ([thought for item in _items(source) if (thought := _thought(item))] for source in sources)
    return next((thoughts for thoughts in found if thoughts), [])


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _carried(message: Json) -> list[Any]:
    for call in message.get("tool_calls") or ():
        payload = call.get("carried")
        if isinstance(payload, dict) and isinstance(payload.get(THOUGHTS_KEY), list):
            return list(payload[THOUGHTS_KEY])
    return []


def _detail(item: Json) -> Json:
    if item.get("type") == "reasoning.encrypted":
        return {"type": "redacted_thinking", "data": item.get("data")}
    return {"type": "thinking", "thinking": item.get("text") or "", "signature": item.get("signature")}


def _thought(item: Any) -> Json | None:
    if not isinstance(item, dict):
        return None
    kind, text, signature = item.get("type"), item.get("thinking"), item.get("signature")
    if kind == "thinking" and isinstance(text, str) and isinstance(signature, str) and signature:
        return {"type": "thinking", "thinking": text, "signature": signature}
    if kind == "redacted_thinking" and isinstance(data := item.get("data"), str) and data:
        return {"type": "redacted_thinking", "data": data}
    return None
