"""What GenerateContent answers say: finish reasons, usage, log probabilities, citations, errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from gateway.contract import Usage
from gateway.errors import UpstreamError
from gateway.hub import Json
from gateway.refusals import plain_text, refusal

FINISH: Mapping[str, str] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    **dict.fromkeys(
        (
            *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
            *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION", "PUP_LIMITED_DISABLED"),
        ),
        "content_filter",
    ),
}
# `enum-encoding=int` gives numbers. From 6 on the Developer API and Vertex count differently; 6 to 8 filter on both.
_NUMBERED: Mapping[int, str] = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
_FILTER_NUMBERS = range(6, 9)

# What code that trusts the shape of an answer raises on another shape.
MISSHAPEN = (AttributeError, KeyError, TypeError, ValueError)

_SERVICE_TIERS: Mapping[str, str] = {"standard": "default", "flex": "flex", "priority": "priority"}

# The status that each of google.rpc's codes stands for; an error object may carry the name only.
_STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def native_finish(reason: object) -> str | None:
    """The name of a finish reason; None where the candidate goes on."""
    if isinstance(reason, str):
        return reason or None
    if isinstance(reason, int) and reason > 0:
        return _NUMBERED.get(reason, str(reason))
    return None


def finish_reason(native: str, called: bool) -> str:
    """OpenAI's finish reason; STOP after a function call is `tool_calls` (106 of 106 recorded streams end so)."""
    if native == "STOP":
        return "tool_calls" if called else "stop"
    if native.isdecimal():
        return "content_filter" if int(native) in _FILTER_NUMBERS else "stop"
    return FINISH.get(native, "stop")


def read_usage(metadata: Mapping[str, Any]) -> Usage | None:
    """Normalise `usageMetadata`; None when it holds no count.

    Thoughts are added to the answer's tokens, unless the total shows that they are already inside.
    """
    prompt, tool_use = _count(metadata, "promptTokenCount"), _count(metadata, "toolUsePromptTokenCount")
    answer, thoughts = _count(metadata, "candidatesTokenCount"), _count(metadata, "thoughtsTokenCount")
    if prompt is None and answer is None and thoughts is None:
        return None
    before = None if prompt is None and tool_use is None else (prompt or 0) + (tool_use or 0)
    completion = answer
    if thoughts is not None and (before or 0) + (answer or 0) != _count(metadata, "totalTokenCount"):
        completion = (answer or 0) + thoughts
    return Usage(
        prompt=before, completion=completion, cached=_count(metadata, "cachedContentTokenCount"), reasoning=thoughts
    )


def _count(metadata: Mapping[str, Any], name: str) -> int | None:
    value = metadata.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def service_tier(metadata: Mapping[str, Any]) -> str | None:
    """The tier that served the request, in OpenAI's words."""
    return _SERVICE_TIERS.get(str(metadata.get("serviceTier")).lower())


def logprobs(result: Mapping[str, Any]) -> Json:
    """`logprobsResult` as a choice's `logprobs`."""
    tops = result.get("topCandidates") or []
    content = []
    for place, chosen in enumerate(result.get("chosenCandidates") or []):
        top = tops[place].get("candidates") or [] if place < len(tops) else []
        content.append({**_token(chosen), "top_logprobs": [_token(other) for other in top]})
    return {"content": content, "refusal": None}


def _token(chosen: Mapping[str, Any]) -> Json:
    token = str(chosen.get("token") or "")
    # proto3 leaves a zero out: no logProbability means log 1.
    return {"token": token, "logprob": chosen.get("logProbability") or 0.0, "bytes": list(token.encode())}


def citations(grounding: Mapping[str, Any], text: str) -> list[Json]:
    """The sources that parts of the text rest on; Google counts in bytes, OpenAI in characters."""
    sources = [
        chunk.get("web") or chunk.get("retrievedContext") or {} for chunk in grounding.get("groundingChunks") or []
    ]
    spans = []
    for support in grounding.get("groundingSupports") or []:
        segment = support.get("segment") or {}
        span = (segment.get("startIndex") or 0, segment.get("endIndex") or 0)
        cited = (sources[place] for place in support.get("groundingChunkIndices") or [] if 0 <= place < len(sources))
        spans += [(*span, source) for source in cited if source.get("uri")]
    places = _characters(text, {place for start, end, _ in spans for place in (start, end)})
    return [_citation(places[start], places[end], source) for start, end, source in spans]


def _citation(start: int, end: int, source: Mapping[str, Any]) -> Json:
    url = source["uri"]
    citation = {"start_index": start, "end_index": end, "url": url, "title": source.get("title") or url}
    return {"type": "url_citation", "url_citation": citation}


def _characters(text: str, offsets: Iterable[int]) -> dict[int, int]:
    """Byte offsets to character offsets, in one pass over the text."""
    if text.isascii():
        return {offset: min(offset, len(text)) for offset in offsets}
    data = text.encode()
    found: dict[int, int] = {}
    last = count = 0
    for offset in sorted(offsets):
        end = min(max(offset, 0), len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end += 1  # inside a character
        count += len(data[last:end].decode())
        found[offset] = count
        last = end
    return found


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Google's error object, bare or in an array, as our error.

    A refused key comes as 400 with the reason API_KEY_INVALID; the wait of a 429 stands in RetryInfo, not in a header.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return refusal(status, plain_text(body), provider="google", headers=headers)
    if isinstance(answer, list):
        answer = answer[0] if answer else {}
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return refusal(status, error if isinstance(error, str) else "", provider="google", headers=headers)
    return _error(status, headers, error)


def _error(status: int, headers: Mapping[str, str], error: Mapping[str, Any]) -> UpstreamError:
    if 200 <= status < 300:
        code = error.get("code")
        known = isinstance(code, int) and 400 <= code < 600
        status = code if known and isinstance(code, int) else _STATUSES.get(str(error.get("status")), 502)
    details = error.get("details")
    found = [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
    reasons = [detail.get("reason") for detail in found]
    if status == 400 and any(str(reason).startswith("API_KEY_") for reason in reasons):
        status = 401
    if wait := _retry_delay(found):
        headers = {**headers, "retry-after": wait}
    message, kind = str(error.get("message") or ""), error.get("status")
    shown = refusal(status, message, provider="google", headers=headers, kind=kind)
    if shown.code == "insufficient_quota" and not _for_today(found):
        # Google says "exceeded your current quota" of the tokens of one minute as well.
        shown.code, shown.kind = "rate_limit_exceeded", "rate_limit_error"
    return shown


def _for_today(details: Sequence[Mapping[str, Any]]) -> bool:
    """Is it the day's quota that is used up?"""
    violations = [found for detail in details for found in detail.get("violations") or () if isinstance(found, dict)]
    return any("PerDay" in str(violation.get("quotaId")) for violation in violations)


def _retry_delay(details: Sequence[Mapping[str, Any]]) -> str:
    """The seconds of RetryInfo ("34.07s") as a header's value; "" without one."""
    for detail in details:
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            return delay[:-1]
    return ""
