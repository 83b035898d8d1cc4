"""A ConverseStream answer as chat completion chunks."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import orjson

from gateway.contract import ChatRequest, Stamp, Target
from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError
from gateway.eventstream import Frame, FrameReader
from gateway.hub import CHUNK, Json
from gateway.usage import write_usage
from plugins.bedrock.blocks import thinking_block
from plugins.bedrock.refusals import read_exception
from plugins.bedrock.response import SERVICE_TIERS, carried_id, carries, citations, finish_reason, read_usage, unwrapped
from plugins.bedrock.tools import ToolPlan, plan_tools, understood


def open_stream(chat: ChatRequest, target: Target, stamp: Stamp) -> Stream:
    """A decoder for one answer."""
    return Stream(plan_tools(understood(chat.parsed()), target), target, stamp)


class _Block:
    """One content block under way: a client's call, the emulated answer, thinking, or something to pass over."""

    __slots__ = ("index", "kind", "pieces", "redacted", "signature")

    def __init__(self, kind: str, index: int = 0) -> None:
        self.kind = kind
        self.index = index
        self.pieces: list[str] = []
        self.signature = ""
        self.redacted: list[bytes] = []


class Stream:
    """Converse's events to hub chunks. The answer is complete with `metadata`, or with the end behind `messageStop`."""

    def __init__(self, plan: ToolPlan, target: Target, stamp: Stamp) -> None:
        self.done = False
        self.failure: UpstreamError | None = None
        self._frames = FrameReader()
        self._plan = plan
        self._carrying = carries(target)
        self._head: Json = {"id": f"chatcmpl-{stamp.id}", "object": CHUNK, "created": stamp.created}
        self._head["model"] = target.model
        self._blocks: dict[int, _Block] = {}
        self._thinking: list[Json] = []
        self._calls = 0
        self._citations = 0
        self._length = 0
        self._begun = False
        self._answered = False
        self._held: list[str] | None = [] if plan.answer else None
        self._stop: str | None = None
        self._extra: Any = None

    def feed(self, data: bytes) -> list[Json]:
        """Take bytes cut anywhere; return the chunks that they completed."""
        chunks: list[Json] = []
        if self.done or self.failure is not None:
            return chunks
        for frame in self._frames.feed(data):
            self._take(frame, chunks)
            if self.done or self.failure is not None:
                return chunks
        self.failure = self._frames.failure
        return chunks

    def finish(self) -> list[Json]:
        """Say that the upstream closed; raise Truncated if that was before messageStop or inside a frame."""
        if self.failure is None and not self.done:
            if self._stop is None or self._frames.pending:
                raise Truncated("The provider closed the stream before its last event.")
            self.done = True
        return []

    def _take(self, frame: Frame, chunks: list[Json]) -> None:
        kind = frame.headers.get(":event-type")
        handler = _HANDLERS.get(kind)
        if handler is None:
            if kind is None and frame.headers.get(":message-type") in ("exception", "error"):
                self.failure = read_exception(frame)
            return  # an unknown event is news, not an error
        try:
            handler(self, orjson.loads(frame.payload), chunks)
        except (LookupError, TypeError, AttributeError, ValueError):
            self.failure = BadUpstreamResponse("The provider sent an event that cannot be read.")

    def _chunk(self, delta: Json) -> Json:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    def _begin(self, event: Json, chunks: list[Json]) -> None:
        if not self._begun:
            self._begun = True
            chunks.append(self._chunk({"role": "assistant", "content": ""}))

    def _delta(self, event: Json, chunks: list[Json]) -> None:
        delta = event["delta"]
        text = delta.get("text")
        if text is None:
            self._other_delta(event["contentBlockIndex"], delta, chunks)
        elif text:
            if not self._begun:
                self._begin(event, chunks)
            self._text(text, chunks)

    def _text(self, text: str, chunks: list[Json]) -> None:
        self._length += len(text)
        if self._held is None:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            chunks.append({**self._head, "choices": [choice]})
        else:
            self._held.append(text)  # said beside an emulated answer it would break the JSON

    def _start(self, event: Json, chunks: list[Json]) -> None:
        self._begin(event, chunks)
        place = event["contentBlockIndex"]
        self._close(place, chunks)  # a place may be used again: what begins here is a new block
        use = event["start"].get("toolUse")
        if use is None or use.get("type") == "server_tool_use":
            self._blocks[place] = _Block("passed over")
        elif use["name"] == self._plan.answer:
            self._blocks[place] = _Block("passed over" if self._answered else "answer")
            self._answered, self._held = True, []
        else:
            self._call(place, use, chunks)

    def _call(self, place: int, use: Json, chunks: list[Json]) -> None:
        thinking = self._thinking if self._carrying and not self._calls else []
        function = {"name": self._plan.names.client(use["name"]), "arguments": ""}
        if self._plan.legacy:
            self._legacy(place, function, chunks)
            return
        call = {"index": self._calls, "id": carried_id(use["toolUseId"], thinking), "type": "function"}
        chunks.append(self._chunk({"tool_calls": [{**call, "function": function}]}))
        self._blocks[place] = _Block("call", self._calls)
        self._calls += 1

    def _legacy(self, place: int, function: Json, chunks: list[Json]) -> None:
        """A client of `functions` gets one call, the first."""
        self._blocks[place] = _Block("passed over" if self._calls else "call")
        if not self._calls:
            chunks.append(self._chunk({"function_call": function}))
        self._calls += 1

    def _other_delta(self, place: int, delta: Json, chunks: list[Json]) -> None:
        self._begin({}, chunks)
        if (use := delta.get("toolUse")) is not None:
            self._input(self._blocks[place], use.get("input") or "", chunks)
        elif (reasoning := delta.get("reasoningContent")) is not None:
            self._reason(place, reasoning, chunks)
        elif (citation := delta.get("citation")) is not None:
            for found in citations(citation, self._length):
                chunks.append(self._chunk({"annotations": [{"index": self._citations, **found}]}))
                self._citations += 1

    def _input(self, block: _Block, text: str, chunks: list[Json]) -> None:
        if not text or block.kind == "passed over":
            return
        first = not block.pieces
        if first or block.kind == "answer":
            block.pieces.append(text)
        if block.kind == "call":
            chunks.append(self._arguments(block, text))
        elif not self._plan.wrapped:
            chunks.append(self._chunk({"content": text}))

    def _arguments(self, block: _Block, text: str) -> Json:
        if self._plan.legacy:
            return self._chunk({"function_call": {"arguments": text}})
        return self._chunk({"tool_calls": [{"index": block.index, "function": {"arguments": text}}]})

    def _reason(self, place: int, reasoning: Json, chunks: list[Json]) -> None:
        block = self._blocks.get(place)
        if block is None or block.kind != "thinking":
            block = self._blocks[place] = _Block("thinking")
        if text := reasoning.get("text"):
            block.pieces.append(text)
            chunks.append(self._chunk({"reasoning_content": text}))
        block.signature += reasoning.get("signature") or ""
        if redacted := reasoning.get("redactedContent"):
            block.redacted.append(b64decode(redacted))

    def _ended(self, event: Json, chunks: list[Json]) -> None:
        self._close(event["contentBlockIndex"], chunks)

    def _close(self, place: int, chunks: list[Json]) -> None:
        block = self._blocks.pop(place, None)
        if block is None:
            return
        if block.kind == "thinking":
            self._think(block, chunks)
        elif block.kind == "call" and not block.pieces:
            chunks.append(self._arguments(block, "{}"))
        elif block.kind == "answer" and (self._plan.wrapped or not block.pieces):
            chunks.append(self._chunk({"content": self._answer("".join(block.pieces) or "{}")}))

    def _answer(self, text: str) -> str:
        """The emulated answer; as it is where the token limit cut it."""
        try:
            return unwrapped(orjson.loads(text), self._plan)
        except orjson.JSONDecodeError:
            return text

    def _think(self, block: _Block, chunks: list[Json]) -> None:
        """The signed block whole, once: the client's accumulator would mangle pieces."""
        redacted = {"redactedContent": b64encode(b"".join(block.redacted)).decode()}
        signed = {"reasoningText": {"text": "".join(block.pieces), "signature": block.signature}}
        if found := thinking_block(redacted if block.redacted else signed):
            chunks.append(self._chunk({"thinking_blocks": [{"index": len(self._thinking), **found}]}))
            self._thinking.append(found)

    def _stopped(self, event: Json, chunks: list[Json]) -> None:
        if self._stop is not None:
            return
        self._begin(event, chunks)
        for place in list(self._blocks):
            self._close(place, chunks)
        if self._held and not self._answered:
            chunks.append(self._chunk({"content": "".join(self._held)}))
        self._stop = str(event["stopReason"])
        self._extra = event.get("additionalModelResponseFields")
        reason = finish_reason(self._stop, self._plan, calls=self._calls > 0)
        choice = {"index": 0, "delta": {}, "finish_reason": reason, "native_finish_reason": self._stop}
        chunks.append({**self._head, "choices": [choice]})

    def _metadata(self, event: Json, chunks: list[Json]) -> None:
        if self._stop is None:
            raise ValueError
        usage = read_usage(event.get("usage"), self._extra)
        if usage is not None:
            last: Json = {**self._head, "choices": [], "usage": write_usage(usage)}
            tier = event.get("serviceTier")
            if isinstance(tier, dict) and tier.get("type") in SERVICE_TIERS:
                last["service_tier"] = tier["type"]
            chunks.append(last)
        self.done = True


_HANDLERS: dict[Any, Callable[[Stream, Json, list[Json]], None]] = {
    "messageStart": Stream._begin,
    "contentBlockStart": Stream._start,
    "contentBlockDelta": Stream._delta,
    "contentBlockStop": Stream._ended,
    "messageStop": Stream._stopped,
    "metadata": Stream._metadata,
}
