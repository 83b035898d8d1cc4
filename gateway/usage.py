"""Token counts as OpenAI's usage object spells them, to and from the gateway's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.contract import Usage
from gateway.hub import Json


def read_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """Normalise an OpenAI-like usage object; None when it holds no count.

    Some providers leave reasoning out of `completion_tokens` while `total_tokens` has it (xAI): then it is added.
    """
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None and completion is None:
        return None
    before = _mapping(usage, "prompt_tokens_details")
    after = _mapping(usage, "completion_tokens_details")
    reasoning = _count(after, "reasoning_tokens")
    total = _count(usage, "total_tokens")
    if reasoning and completion is not None and total == (prompt or 0) + completion + reasoning:
        completion += reasoning
    cached = _count(before, "cached_tokens")
    if cached is None:
        cached = _count(usage, "cached_tokens")
    return Usage(
        prompt=prompt if cached is None or prompt is None else max(prompt, cached),
        completion=completion,
        cached=cached,
        cache_written=_count(before, "cache_write_tokens"),
        reasoning=reasoning,
    )


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


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mapping(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    return value if isinstance(value, Mapping) else {}
