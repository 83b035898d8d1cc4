"""Where the OpenAI-like providers differ on the wire, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.demo.answers import Answer, Ask, sums, tokens
from gateway.demo.wire import Refused
from gateway.hub import Json

SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}


def usage(ask: Ask, answers: Sequence[Answer]) -> Json:
    """OpenAI's: completion includes reasoning."""
    said, thought = sums(answers)
    return {
        "prompt_tokens": ask.prompt,
        "completion_tokens": said + thought,
        "total_tokens": ask.prompt + said + thought,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": thought,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def plain_usage(ask: Ask, answers: Sequence[Answer]) -> Json:
    """Three counters, as Fireworks has them."""
    made = usage(ask, answers)
    return {name: made[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


def together_usage(ask: Ask, answers: Sequence[Answer]) -> Json:
    """Three counters, and the cached tokens beside them."""
    return {**plain_usage(ask, answers), "cached_tokens": 0}


def xai_usage(ask: Ask, answers: Sequence[Answer]) -> Json:
    """Completion without reasoning; the total has both."""
    said, _ = sums(answers)
    return {**usage(ask, answers), "completion_tokens": said, "num_sources_used": 0, "cost_in_usd_ticks": 1000}


def logprobs(ask: Ask, text: str, stream: bool) -> Any:
    """OpenAI's shape, or null where it was not asked for."""
    if not ask.options.get("logprobs"):
        return None
    return {
        "content": [_logprob(token, ask.options.get("top_logprobs") or 0) for token in tokens(text)],
        "refusal": None,
    }


def _logprob(token: str, top: int) -> Json:
    made: Json = {"token": token, "logprob": -0.1, "bytes": list(token.encode())}
    return {**made, "top_logprobs": [{**made, "logprob": -0.1 - rank} for rank in range(top)]}


def together_logprobs(ask: Ask, text: str, stream: bool) -> Any:
    """A number for each chunk, or parallel lists in a whole answer."""
    if not ask.options.get("logprobs"):
        return None
    if stream:
        return -0.1
    said = tokens(text)
    return {
        "token_ids": list(range(len(said))),
        "tokens": said,
        "token_logprobs": [-0.1] * len(said),
        "top_logprobs": [{token: -0.1} for token in said],
    }


def split_call(at: int, call: Json, arguments: Sequence[str]) -> list[Json]:
    """Id and name first, then the arguments in pieces."""
    start = {"index": at, **call, "function": {"name": call["function"]["name"], "arguments": ""}}
    rest = [{"index": at, "function": {"arguments": piece}} for piece in arguments]
    return [{"tool_calls": [each]} for each in (start, *rest)]


def repeated_call(at: int, call: Json, arguments: Sequence[str]) -> list[Json]:
    """The id before the name, and again with every piece."""
    known = {"index": at, "id": call["id"], "type": "function"}
    named = {**known, "function": {"name": call["function"]["name"]}}
    rest = [{**known, "function": {"arguments": piece}} for piece in arguments]
    return [{"tool_calls": [each]} for each in (known, named, *rest)]


def whole_call(at: int, call: Json, arguments: Sequence[str]) -> list[Json]:
    """Everything in one delta."""
    return [{"tool_calls": [{"index": at, **call}]}]


def error(refused: Refused) -> Json:
    """OpenAI's error object."""
    kind = refused.kind or "invalid_request_error"
    return {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code}}


def azure_error(refused: Refused) -> Json:
    """OpenAI's for what the model refuses, numbers in strings for what the service refuses."""
    if refused.status in (401, 429):
        return {"error": {"code": str(refused.status), "message": f"{refused.message} Please retry after 2 seconds."}}
    if refused.status == 404 and refused.code != "404":
        return {"error": {"code": "DeploymentNotFound", "message": refused.message}}
    return error(refused)


def fireworks_error(refused: Refused) -> Json:
    """An error object that says that it is one; two strings where the limit is reached."""
    if refused.status == 429:
        return {"error": "Too Many Requests", "message": refused.message}
    kind = refused.kind or "invalid_request_error"
    return {"error": {"object": "error", "type": kind, "message": refused.message}}


def together_error(refused: Refused) -> Json:
    """OpenAI's, with its own type for limits."""
    made = error(refused)
    if refused.status == 429:
        made["error"].update(type="credit_limit", code=None)
    return made


XAI_CODES = {
    400: "Client specified an invalid argument",
    401: "Unauthenticated",
    403: "The caller does not have permission to execute the specified operation",
    404: "Some requested entity was not found",
    429: "Some resource has been exhausted",
    503: "The service is currently unavailable",
}


def xai_error(refused: Refused) -> Json:
    """Two strings."""
    return {"code": XAI_CODES.get(refused.status, "Internal error"), "error": refused.message}


@dataclass(frozen=True, slots=True)
class Flavour:
    """One provider's habits. `thoughts` is the key that reasoning text stands under; empty where there is none."""

    name: str
    id_prefix: str = "chatcmpl-demo"
    thoughts: str = ""
    usage: Callable[[Ask, Sequence[Answer]], Json] = usage
    usage_at_end: bool = False
    usage_null: bool = True
    finishes: Mapping[str, str] = field(default_factory=dict)
    stream_finishes: Mapping[str, str] = field(default_factory=dict)
    finish_null: bool = True
    logprobs: Callable[[Ask, str, bool], Any] | None = logprobs
    role_everywhere: bool = False
    padded: bool = False
    first_delta: Mapping[str, Any] = field(default_factory=lambda: {"role": "assistant", "content": ""})
    call_deltas: Callable[[int, Json, Sequence[str]], list[Json]] = split_call
    error: Callable[[Refused], Json] = error
    extra: Mapping[str, Any] = field(default_factory=dict)
    whole_extra: Mapping[str, Any] = field(default_factory=dict)
    message_extra: Mapping[str, Any] = field(default_factory=dict)
    choice_extra: Mapping[str, Any] = field(default_factory=dict)
    chunk_choice_extra: Mapping[str, Any] = field(default_factory=dict)
    opening: Json | None = None
    closing: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_headers: Mapping[str, str] = field(default_factory=lambda: {"retry-after": "2"})


OPENAI = Flavour(
    "openai",
    padded=True,
    first_delta={"role": "assistant", "content": "", "refusal": None},
    extra={"service_tier": "default", "system_fingerprint": "fp_demo"},
    message_extra={"refusal": None, "annotations": []},
    headers={"openai-processing-ms": "20", "openai-version": "2020-10-01"},
    retry_headers={"retry-after": "2", "retry-after-ms": "2000"},
)
_BLANK: Json = {"id": "", "object": "", "created": 0, "model": ""}
_OFFSETS = {"check_offset": 0, "start_offset": 0, "end_offset": 16}
AZURE = replace(
    OPENAI,
    name="azure",
    choice_extra={"content_filter_results": SAFE},
    chunk_choice_extra={"content_filter_results": {}},
    whole_extra={"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]},
    opening={**_BLANK, "choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": SAFE}]},
    # The verdict of the asynchronous filter: no delta, and later than the end of the text.
    closing={
        **_BLANK,
        "choices": [
            {"index": 0, "finish_reason": None, "content_filter_results": SAFE, "content_filter_offsets": _OFFSETS}
        ],
    },
    error=azure_error,
    headers={"apim-request-id": "demo", "x-ms-region": "Demo Central"},
)
TOGETHER = Flavour(
    "together",
    id_prefix="oDemo-",
    thoughts="reasoning",
    usage=together_usage,
    usage_at_end=True,
    finishes={"stop": "eos"},
    logprobs=together_logprobs,
    role_everywhere=True,
    error=together_error,
    choice_extra={"seed": None},
    chunk_choice_extra={"seed": None},
    whole_extra={"prompt": []},
)
FIREWORKS = Flavour(
    "fireworks",
    id_prefix="demo-fw-",
    thoughts="reasoning_content",
    usage=plain_usage,
    usage_at_end=True,
    first_delta={"role": "assistant"},
    call_deltas=repeated_call,
    error=fireworks_error,
    headers={"fireworks-prompt-tokens": "1"},
)
XAI = Flavour(
    "xai",
    id_prefix="demo-xai-",
    thoughts="reasoning_content",
    usage=xai_usage,
    usage_null=False,
    stream_finishes={"tool_calls": ""},
    finish_null=False,
    logprobs=None,
    call_deltas=whole_call,
    error=xai_error,
    extra={"system_fingerprint": "fp_demo"},
    message_extra={"refusal": None},
    retry_headers={},
)
GENERIC = Flavour("generic", thoughts="reasoning_content")

FLAVOURS: dict[str, Flavour] = {each.name: each for each in (OPENAI, AZURE, TOGETHER, FIREWORKS, XAI, GENERIC)}
