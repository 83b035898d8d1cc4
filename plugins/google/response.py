"""A whole GenerateContent answer as a chat completion."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.contract import ChatRequest, Stamp, Target
from gateway.errors import BadUpstreamResponse
from gateway.hub import COMPLETION, Json
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
from plugins.google.names import carries, names_of


def read_response(body: bytes, chat: ChatRequest, target: Target, stamp: Stamp) -> Json:
    """The chat completion that an answer makes; raises UpstreamError for an error inside a 200."""
    answer = _loaded(body)
    try:
        return _completion(answer, chat, target, stamp)
    except MISSHAPEN as error:
        raise BadUpstreamResponse("The provider answered with JSON that is no GenerateContent answer.") from error


def _completion(answer: Json, chat: ChatRequest, target: Target, stamp: Stamp) -> Json:
    names = names_of(chat)

    def opened(index: int) -> Candidate:
        return Candidate(index, stamp, names, chat.parsed(), carries=carries(target))

    choices = [_choice(found, opened(_index(found))) for found in answer.get("candidates") or ()]
    metadata = answer.get("usageMetadata") or {}
    completion: Json = {
        "id": f"chatcmpl-{answer.get('responseId') or stamp.id}",
        "object": COMPLETION,
        "created": stamp.created,
        "model": answer.get("modelVersion") or target.model,
        "choices": sorted(choices, key=lambda choice: int(choice["index"])) or [_blocked(answer)],
    }
    if tier := service_tier(metadata):
        completion["service_tier"] = tier
    if usage := read_usage(metadata):
        completion["usage"] = write_usage(usage)
    return completion


def _loaded(body: bytes) -> Json:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadUpstreamResponse("The provider answered with something that is not JSON.") from error
    first = answer[0] if isinstance(answer, list) and answer else answer
    if isinstance(first, dict) and first.get("error"):
        raise read_error(200, {}, body)
    if not isinstance(answer, dict):
        raise BadUpstreamResponse("The provider answered with JSON that is no GenerateContent answer.")
    return answer


def _index(found: Mapping[str, Any]) -> int:
    index = found.get("index")
    return index if isinstance(index, int) else 0


def _choice(found: Json, candidate: Candidate) -> Json:
    deltas = [delta for part in _parts(found) if (delta := candidate.read(part))]
    candidate.grounding = found.get("groundingMetadata")
    native = native_finish(found.get("finishReason"))
    choice: Json = {
        "index": candidate.index,
        "message": _message(deltas, candidate),
        "logprobs": logprobs(found["logprobsResult"]) if found.get("logprobsResult") else None,
        # An answer that is there as a whole is finished, whether it says so or not.
        "finish_reason": candidate.ending(native or "STOP"),
    }
    if native:
        choice["native_finish_reason"] = native
    if native != "STOP" and found.get("finishMessage"):
        choice["native_finish_message"] = found["finishMessage"]
    return choice


def _parts(found: Mapping[str, Any]) -> list[Json]:
    """The parts of a candidate; none where its content is missing (blocked, or all tokens went into thinking)."""
    return (found.get("content") or {}).get("parts") or []


def _message(deltas: list[Json], candidate: Candidate) -> Json:
    """The deltas of one candidate, put together as an official client would do it."""
    text = "".join(delta["content"] for delta in deltas if "content" in delta)
    message: Json = {"role": "assistant", "content": text or None, "refusal": None}
    if thoughts := "".join(delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta):
        message["reasoning_content"] = thoughts
    if calls := [call for delta in deltas for call in delta.get("tool_calls", ())]:
        message["tool_calls"] = [{name: call[name] for name in call if name != "index"} for call in calls]
    if old := next((delta["function_call"] for delta in deltas if "function_call" in delta), None):
        message["function_call"] = old
    if images := [image for delta in deltas for image in delta.get("images", ())]:
        message["images"] = images
    if sounds := [delta["audio"] for delta in deltas if "audio" in delta]:
        message["audio"] = {**sounds[0], "data": _joined([sound["data"] for sound in sounds])}
    if found := candidate.citations():
        message["annotations"] = found
    if candidate.signature:
        message["extra_content"] = {"google": {"thought_signature": candidate.signature}}
    return message


def _joined(pieces: list[str]) -> str:
    if len(pieces) == 1:
        return pieces[0]
    return b64encode(b"".join(b64decode(piece) for piece in pieces)).decode()


def _blocked(answer: Json) -> Json:
    """The one choice of a prompt that was refused before any candidate was made."""
    feedback = answer.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    if not reason:
        raise BadUpstreamResponse("The provider answered without any candidate.")
    refusal = feedback.get("blockReasonMessage") if isinstance(feedback, dict) else None
    return {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": refusal},
        "logprobs": None,
        "finish_reason": "content_filter",
        "native_finish_reason": str(reason),
    }
