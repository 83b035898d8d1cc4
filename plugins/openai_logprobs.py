"""Log probabilities in the shapes of older APIs, as OpenAI's chat answers spell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.hub import Json

UNLIKELY = -9999.0  # OpenAI's own stand-in for a probability that nobody computed


def mend_logprobs(choice: Json, content: object) -> None:
    """Put OpenAI's `content` list in place of a bare number (Together's streams) or of parallel lists (legacy)."""
    found = choice.get("logprobs")
    if isinstance(found, int | float) and not isinstance(found, bool):
        token = content if isinstance(content, str) else ""
        choice["logprobs"] = {"content": [_entry(token, found, choice.pop("top_logprobs", None))], "refusal": None}
    elif isinstance(found, dict) and isinstance(found.get("tokens"), list) and "content" not in found:
        choice["logprobs"] = {"content": _entries(found), "refusal": None}


def _entries(legacy: Mapping[str, Any]) -> list[Json]:
    tokens = legacy["tokens"]
    values = _padded(legacy.get("token_logprobs"), len(tokens))
    tops = legacy.get("top_logprobs")
    each = [tops] * len(tokens) if isinstance(tops, dict) and len(tokens) == 1 else _padded(tops, len(tokens))
    return [_entry(str(token), value, top) for token, value, top in zip(tokens, values, each, strict=True)]


def _padded(values: Any, length: int) -> list[Any]:
    known = list(values) if isinstance(values, list) else []
    return (known + [None] * length)[:length]


def _entry(token: str, logprob: Any, top: Any) -> Json:
    others = top.items() if isinstance(top, Mapping) else ()
    return {**_scored(token, logprob), "top_logprobs": [_scored(str(other), value) for other, value in others]}


def _scored(token: str, logprob: Any) -> Json:
    number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
    value = float(logprob) if number else UNLIKELY
    return {"token": token, "logprob": value, "bytes": list(token.encode("utf-8", "replace"))}
