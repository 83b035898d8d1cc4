"""A streamed GenerateContent answer as chat completion chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.contract import ChatRequest, Stamp, Target
from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError
from gateway.hub import CHUNK, Json
from gateway.usage import write_usage
from plugins.google.answer import (
    MISSHAPEN,
    logprobs,
    native_finish,
    read_error,
    read_usage,
    service_tier,
)
from plugins.google.candidate import Candidate
from plugins.google.framing import Framing
from plugins.google.names import carries, names_of

MAX_CANDIDATES = 128
_NO_ANSWER = "The provider sent an event that is no GenerateContent answer."


class Stream:
    """Answers to hub chunks: each event is a whole answer with new parts only; its usage counts from the start.

    Gemini has no terminal event: usage, and even a second finish reason, may follow the first. So the stream is
    complete when the upstream closes after every candidate got its finish reason, and `done` stays false until
    `finish`, which returns the last chunks.
    """

    __slots__ = (
        *("_candidates", "_chat", "_count", "_framing", "_head", "_names", "_stamp", "_target", "_usage"),
        *("done", "failure"),
    )

    def __init__(self, chat: ChatRequest, target: Target, stamp: Stamp) -> None:
        self.done = False
        self.failure: UpstreamError | None = None
        self._chat = chat
        self._count = _wanted(chat)
        self._target = target
        self._stamp = stamp
        self._framing = Framing()
        self._names = names_of(chat)
        self._head: Json = {}
        self._candidates: list[Candidate] = []
        self._usage: Json = {}

    def feed(self, data: bytes) -> list[Json]:
        """Take bytes cut anywhere; return the chunks that they completed."""
        chunks: list[Json] = []
        if self.failure or self.done:
            return chunks
        try:
            for payload in self._framing.feed(data):
                self._read(orjson.loads(payload), chunks)
                if self.failure:
                    break
        except orjson.JSONDecodeError:
            self.failure = BadUpstreamResponse("The provider sent an event that is not JSON.")
        except BadUpstreamResponse as error:
            self.failure = error
        except MISSHAPEN:
            # Shapes are not checked one by one: this runs per chunk.
            self.failure = BadUpstreamResponse(_NO_ANSWER)
        return chunks

    def finish(self) -> list[Json]:
        """Say that the upstream closed; return the rest, or raise Truncated if a candidate was not finished."""
        if self.failure or self.done:
            return []
        chunks = self._read_rest()
        if self.failure:
            return chunks
        if not self._candidates or not self._framing.closed or any(not one.finish for one in self._candidates):
            raise Truncated("The provider's stream ended before it was complete.")
        try:
            for candidate in self._candidates:
                chunks += self._closing(candidate)
        except MISSHAPEN:
            self.failure = BadUpstreamResponse(_NO_ANSWER)
            return chunks
        if usage := read_usage(self._usage):
            tier = service_tier(self._usage)
            last: Json = {"choices": [], "usage": write_usage(usage)}
            chunks.append({**self._head, **({"service_tier": tier} if tier else {}), **last})
        self.done = True
        return chunks

    def _read_rest(self) -> list[Json]:
        """What the last event without a blank line says, or a body that was no stream."""
        chunks: list[Json] = []
        try:
            for payload in self._framing.finish():
                self._read(orjson.loads(payload), chunks)
        except orjson.JSONDecodeError as error:
            raise Truncated("The provider's stream ended in the middle of an event.") from error
        except BadUpstreamResponse as error:
            self.failure = error
        except MISSHAPEN:
            self.failure = BadUpstreamResponse(_NO_ANSWER)
        return chunks

    def _read(self, event: Any, chunks: list[Json]) -> None:
        if "error" in event:
            self.failure = read_error(200, {}, orjson.dumps(event))
            return
        if not self._head:
            self._start(event, chunks)
        if usage := event.get("usageMetadata"):
            self._usage.update(_reported(usage) if None in usage.values() else usage)
        for found in event.get("candidates") or ():
            self._read_candidate(found, chunks)
        if "promptFeedback" in event:
            self._read_feedback(event["promptFeedback"], chunks)

    def _start(self, event: Json, chunks: list[Json]) -> None:
        self._head = {
            "id": f"chatcmpl-{event.get('responseId') or self._stamp.id}",
            "object": CHUNK,
            "created": self._stamp.created,
            "model": event.get("modelVersion") or self._target.model,
        }
        self._open(self._count, chunks)

    def _open(self, count: int, chunks: list[Json]) -> None:
        """Introduce candidates up to a number, in order: official clients crash on any other."""
        if not 0 < count <= MAX_CANDIDATES:
            raise BadUpstreamResponse("The provider sent a candidate with an impossible index.")
        for index in range(len(self._candidates), count):
            request = self._chat.parsed()
            found = Candidate(index, self._stamp, self._names, request, carries=carries(self._target))
            self._candidates.append(found)
            chunks.append(self._chunk(index, {"role": "assistant", "content": ""}))

    def _read_candidate(self, found: Json, chunks: list[Json]) -> None:
        index = found.get("index") or 0
        if not 0 <= index < len(self._candidates):
            self._open(index + 1, chunks)
        candidate = self._candidates[index]
        first = len(chunks)
        if content := found.get("content"):
            for part in content.get("parts") or ():
                delta = candidate.read(part)
                if delta is not None:
                    choice = {"index": index, "delta": delta, "finish_reason": None}
                    chunks.append({**self._head, "choices": [choice]})
        if len(found) > ("content" in found) + ("index" in found):
            self._read_rare(found, candidate, first, chunks)

    def _read_rare(self, found: Json, candidate: Candidate, first: int, chunks: list[Json]) -> None:
        """What most events do not hold beside content and index."""
        if reason := found.get("finishReason"):
            candidate.finish = native_finish(reason)
            candidate.finish_message = found.get("finishMessage")
        if found.get("groundingMetadata"):
            candidate.grounding = found["groundingMetadata"]
        if found.get("logprobsResult"):
            if len(chunks) == first:
                chunks.append(self._chunk(candidate.index, {}))
            chunks[first]["choices"][0]["logprobs"] = logprobs(found["logprobsResult"])

    def _read_feedback(self, feedback: Mapping[str, Any], chunks: list[Json]) -> None:
        """A refused prompt: every candidate that has no reason of its own ends with it."""
        if not (reason := feedback.get("blockReason")):
            return
        for candidate in self._candidates:
            if not candidate.finish:
                candidate.finish = "SAFETY"
                candidate.refusal = str(reason)
                if message := feedback.get("blockReasonMessage"):
                    chunks.append(self._chunk(candidate.index, {"refusal": message}))

    def _closing(self, candidate: Candidate) -> list[Json]:
        """What is known only at the end, then the finish reason alone."""
        chunks = []
        if found := candidate.citations():
            numbered = [{"index": number, **citation} for number, citation in enumerate(found)]
            chunks.append(self._chunk(candidate.index, {"annotations": numbered}))
        if candidate.signature:
            extra = {"extra_content": {"google": {"thought_signature": candidate.signature}}}
            chunks.append(self._chunk(candidate.index, extra))
        native = candidate.finish or ""
        last = self._chunk(candidate.index, {})
        choice = last["choices"][0]
        choice["finish_reason"] = candidate.ending(native)
        choice["native_finish_reason"] = candidate.refusal or native
        if native != "STOP" and candidate.finish_message:
            choice["native_finish_message"] = candidate.finish_message
        return [*chunks, last]

    def _chunk(self, index: int, delta: Json) -> Json:
        return {**self._head, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}


def open_stream(chat: ChatRequest, target: Target, stamp: Stamp) -> Stream:
    """The decoder of one answer."""
    return Stream(chat, target, stamp)


def _wanted(chat: ChatRequest) -> int:
    count = chat.parsed().get("n")
    return count if isinstance(count, int) and 1 <= count <= MAX_CANDIDATES else 1


def _reported(usage: Json) -> Json:
    """The counts that were reported: null does not overwrite an earlier one."""
    return {name: count for name, count in usage.items() if count is not None}
