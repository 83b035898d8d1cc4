"""One candidate of an answer: its parts as deltas of OpenAI's message, in the order in which they came."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.contract import Stamp
from gateway.conversation import ToolNames, carry
from gateway.hub import Json
from plugins.google.answer import citations, finish_reason
from plugins.google.names import cites, legacy

# Text kept for citations only; an answer of more has its citations left out.
MAX_CITED = 4 * 1024 * 1024


class Candidate:
    """What is known of one candidate so far. `read` turns each part into a delta, None for one that says nothing.

    `carries`: each thought signature also travels inside its call's id, for clients that drop unknown fields.
    `text` is kept only where `cites`. A `legacy` client gets the first call alone, as `function_call`.
    """

    __slots__ = (
        *("_carries", "_kept", "_legacy", "_names", "_sounds", "_stamp", "_text", "calls", "cites"),
        *("finish", "finish_message", "grounding", "images", "index", "refusal", "signature"),
    )

    def __init__(self, index: int, stamp: Stamp, names: ToolNames, request: Json, *, carries: bool) -> None:
        self.index = index
        self.calls = 0
        self.images = 0
        self.cites = cites(request)
        self.finish: str | None = None
        self.finish_message: str | None = None
        self.grounding: Mapping[str, Any] | None = None
        self.refusal: str | None = None
        self.signature: str | None = None
        self._carries = carries
        self._names = names
        self._sounds = 0
        self._stamp = stamp
        self._text: list[str] = []
        self._kept = 0
        self._legacy = legacy(request)

    def read(self, part: Json) -> Json | None:
        """The delta that a part makes."""
        text = part.get("text")
        if text is None:
            return self._read_other(part)
        if "thoughtSignature" in part and not part.get("thought"):
            self.signature = part["thoughtSignature"]
        if text.__class__ is not str:
            raise TypeError("text is no text")
        if not text:
            return None
        if part.get("thought"):
            return {"reasoning_content": text}
        return self._said(text) if self.cites else {"content": text}

    def ending(self, native: str) -> str:
        """The finish reason that Gemini's own one means here."""
        reason = finish_reason(native, self.calls > 0)
        return "function_call" if self._legacy and reason == "tool_calls" else reason

    def citations(self) -> list[Json]:
        """The annotations of the whole text; none where it was not kept."""
        if not self.grounding or self._kept > MAX_CITED:
            return []
        return citations(self.grounding, "".join(self._text))

    def _said(self, text: str) -> Json:
        if self.cites:
            self._kept += len(text)
            if self._kept <= MAX_CITED:
                self._text.append(text)
        return {"content": text}

    def _read_other(self, part: Json) -> Json | None:
        if call := part.get("functionCall"):
            found = self._call(call, part.get("thoughtSignature"))
            if self._legacy:
                return {"function_call": found["function"]} if self.calls == 1 else None
            return {"tool_calls": [found]}
        if part.get("thought"):
            return None
        if blob := part.get("inlineData"):
            return self._blob(str(blob.get("mimeType") or ""), str(blob.get("data") or ""))
        if code := part.get("executableCode"):
            return self._said(_fenced(str(code.get("language") or "").lower(), code.get("code")))
        if result := part.get("codeExecutionResult"):
            return self._said(_fenced("", result.get("output")))
        # toolCall and toolResponse are Google's own tools at work: no call for the client.
        return None

    def _call(self, call: Mapping[str, Any], signature: str | None) -> Json:
        name = call.get("id") or _made_id(self._stamp, self.index, self.calls)
        extra: Json = {}
        if signature:
            google = {"google": {"thought_signature": signature}}
            extra = {"extra_content": google}
            name = carry(name, google) if self._carries else name
        arguments = orjson.dumps(call.get("args") or {}).decode()
        function = {"name": self._names.client(str(call.get("name") or "")), "arguments": arguments}
        found = {"index": self.calls, "id": name, "type": "function", "function": function, **extra}
        self.calls += 1
        return found

    def _blob(self, media_type: str, data: str) -> Json:
        if media_type.startswith("audio/"):
            self._sounds += 1
            if self._sounds > 1:
                return {"audio": {"data": data}}
            name = f"audio_{_made_id(self._stamp, self.index, -1)[5:]}"
            return {"audio": {"id": name, "data": data, "transcript": "", "expires_at": self._stamp.created}}
        image = {"type": "image_url", "index": self.images, "image_url": {"url": f"data:{media_type};base64,{data}"}}
        self.images += 1
        return {"images": [image]}


def _made_id(stamp: Stamp, index: int, number: int) -> str:
    """An id for what the provider gave none: the same for the same answer, different within it."""
    return f"call_{hashlib.sha256(f'{stamp.id}.{index}.{number}'.encode()).hexdigest()[:24]}"


def _fenced(language: str, text: object) -> str:
    return f"\n```{language}\n{str(text or '').rstrip()}\n```\n"
