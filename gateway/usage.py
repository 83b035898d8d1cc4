"""Token counts as OpenAI's usage object spells them, to and from the gateway's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from gateway.contract import Usage
from gateway.hub import Json


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Counts(msgspec.Struct):
    """What of an OpenAI-like usage object counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_NO_DETAILS = _Details()
_counts = msgspec.json.Decoder(Counts).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)


def read_usage(usage: Mapping[str, Any] | bytes | None) -> Usage | None:
    """Normalise an OpenAI-like usage object, or its JSON text; None when it holds no count that can be read.

    Some providers leave reasoning out of `completion_tokens` while `total_tokens` has it (xAI): then it is added.
    """
    if not usage:
        return None
    try:
        counts = _counts(usage) if isinstance(usage, bytes) else msgspec.convert(usage, Counts, strict=False)
    except _UNREADABLE:
        counts = msgspec.convert(_countable(usage), Counts)
    return normal(counts)


def normal(counts: Counts) -> Usage | None:
    """The counts as the gateway's own usage; None where there is nothing to count."""
    prompt, completion = counts.prompt_tokens, counts.completion_tokens
    if prompt is None and completion is None:
        return None
    before = counts.prompt_tokens_details or _NO_DETAILS
    reasoning = (counts.completion_tokens_details or _NO_DETAILS).reasoning_tokens
    if reasoning and completion is not None and counts.total_tokens == (prompt or 0) + completion + reasoning:
        completion += reasoning
    cached = before.cached_tokens if before.cached_tokens is not None else counts.cached_tokens
    if cached is not None and prompt is not None:
        prompt = max(prompt, cached)
    return Usage(prompt, completion, cached, before.cache_write_tokens, reasoning)


def _countable(usage: object) -> Json:
    """What of an odd usage object are counts, details included."""
    if isinstance(usage, bytes):
        try:
            usage = orjson.loads(usage)
        except orjson.JSONDecodeError:
            return {}
    found: Json = {}
    for name, value in usage.items() if isinstance(usage, Mapping) else ():
        if name.endswith("_details"):
            found[name] = _countable(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = int(value)
    return found


def write_usage(usage: Usage) -> Json:
    """The usage object of a translated answer; details that nobody reported are left out."""
    prompt, completion = usage.prompt or 0, usage.completion or 0
    answer: Json = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    before = {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_written}
    if known := {name: count for name, count in before.items() if count is not None}:
        answer["prompt_tokens_details"] = known
    if usage.reasoning is not None:
        answer["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return answer
