"""Parts of a message's content as Converse blocks."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from gateway.conversation import Media, content_parts, part_text, read_media
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.hub import Json
from plugins.bedrock.tools import cache_point

# The key under which signed thinking travels in an id: direct Claude and Claude on Bedrock take each other's.
CARRIED = "anthropic"
EMPTY = {"text": "."}  # Converse refuses a turn without blocks and a blank text
NO_OUTPUT = {"text": "(empty)"}

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_AUDIO = frozenset(
    ("mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "mka", "m4a", "mpeg", "mpga", "pcm", "webm")
)
_VIDEOS = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_EXTENSION = re.compile(r"\.([a-z]{2,4})$", re.I)


class Blocks:
    """Makes the blocks of one request: documents are numbered, because a name twice is refused."""

    def __init__(self, abilities: Mapping[str, Any]) -> None:
        self.abilities = abilities
        self._documents = 0

    def content(self, message: Mapping[str, Any]) -> list[Json]:
        """The blocks of a message's content; blank texts are left out, cache marks stand behind their block."""
        blocks: list[Json] = []
        for part in content_parts(message.get("content")):
            block = self.part(part)
            if block is not None:
                blocks.append(block)
                blocks += self.mark(part)
        if blocks and "cachePoint" not in blocks[-1]:
            blocks += self.mark(message)
        return blocks

    def part(self, part: Mapping[str, Any]) -> Json | None:
        """One part as a block; None for blank text and for thinking, which stands elsewhere."""
        text = part_text(part)
        if text is not None:
            return {"text": text} if text.strip() else None
        if part.get("type") in ("thinking", "redacted_thinking"):
            return None
        media = read_media(part)
        if media is None:
            raise InvalidRequest(f"Unknown content part type '{str(part.get('type'))[:64]}'.", param="messages")
        return self._media(media)

    def mark(self, marked: Mapping[str, Any]) -> list[Json]:
        """The cachePoint that an element's `cache_control` asks for, if the model caches."""
        control = marked.get("cache_control")
        return [cache_point(control, self.abilities)] if control and self.abilities.get("cache") else []

    def _media(self, media: Media) -> Json:
        if media.kind == "audio":
            return {"audio": {"format": self._audio_format(media), "source": {"bytes": media.data}}}
        if media.kind == "video" or media.media_type in _VIDEOS:
            return {"video": {"format": self._video_format(media), "source": _source(media)}}
        if media.media_type in _IMAGES or (media.kind == "image" and media.url):
            return {"image": {"format": self._image_format(media), "source": _source(media)}}
        return self._document(media)

    def _image_format(self, media: Media) -> str:
        if self.abilities.get("images") is False:
            raise UnsupportedParameter("messages", "holds an image, which this model cannot read")
        return _IMAGES.get(media.media_type) or {"jpg": "jpeg"}.get(
            _extension(media.url), _extension(media.url) or "png"
        )

    def _video_format(self, media: Media) -> str:
        if not self.abilities.get("video"):
            raise UnsupportedParameter("messages", "holds a video, which this model cannot read")
        return _VIDEOS.get(media.media_type) or _extension(media.url) or "mp4"

    def _audio_format(self, media: Media) -> str:
        name = media.media_type.removeprefix("audio/").removeprefix("x-")
        if not self.abilities.get("audio") or name not in _AUDIO:
            raise UnsupportedParameter("messages", "holds audio, which this model cannot read")
        return name

    def _document(self, media: Media) -> Json:
        extension = _extension(media.name or media.url)
        kind = extension if extension in _DOCUMENTS.values() else _DOCUMENTS.get(media.media_type)
        if media.file_id or kind is None:
            what = "a file by id" if media.file_id else f"a file of type '{media.media_type or extension}'"
            raise UnsupportedParameter("messages", f"holds {what}, which Converse cannot read")
        if self.abilities.get("documents") is False:
            raise UnsupportedParameter("messages", "holds a document, which this model cannot read")
        self._documents += 1
        # The model reads names, and a client's may be refused: so a neutral one.
        return {"document": {"format": kind, "name": f"document-{self._documents}", "source": _source(media)}}


def _source(media: Media) -> Json:
    if media.url.startswith("s3://"):
        return {"s3Location": {"uri": media.url}}
    if media.url:
        raise UnsupportedParameter("messages", "holds a medium by URL, and this deployment fetches none; send its data")
    return {"bytes": media.data}


def _extension(name: str) -> str:
    found = _EXTENSION.search(name)
    return found[1].lower() if found else ""


def reasoning_blocks(message: Mapping[str, Any], carried: Mapping[str, Any] | None) -> list[Json]:
    """The signed thinking that an assistant message brings back, unchanged and in order; unsigned cannot go back."""
    given = message.get("thinking_blocks") or [
        part for part in content_parts(message.get("content")) if part.get("type") in ("thinking", "redacted_thinking")
    ]
    if not given and carried:
        given = carried.get(CARRIED)
    blocks: list[Json] = []
    for block in given if isinstance(given, list) else ():
        if not isinstance(block, dict):
            continue
        if block.get("type") == "redacted_thinking" and isinstance(data := block.get("data"), str):
            blocks.append({"reasoningContent": {"redactedContent": b64encode(data.encode()).decode()}})
        elif isinstance(signature := block.get("signature"), str) and signature:
            text = {"text": str(block.get("thinking") or ""), "signature": signature}
            blocks.append({"reasoningContent": {"reasoningText": text}})
    return blocks


def thinking_block(reasoning: Mapping[str, Any]) -> Json | None:
    """A reasoningContent block as a hub thinking block; None where it has no signature and so cannot come back."""
    text = reasoning.get("reasoningText")
    if isinstance(text, dict) and text.get("signature"):
        return {"type": "thinking", "thinking": str(text.get("text") or ""), "signature": text["signature"]}
    redacted = reasoning.get("redactedContent")
    if isinstance(redacted, str) and redacted:
        try:
            return {"type": "redacted_thinking", "data": b64decode(redacted).decode()}
        except ValueError:
            return None
    return None
