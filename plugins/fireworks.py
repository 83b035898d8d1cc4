"""Fireworks AI: OpenAI's dialect for open models; strict about unknown fields, lenient about too long prompts."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from gateway.contract import ChatRequest, Native, Row, Target, UpstreamRequest
from gateway.fields import drop, elsewhere, reject
from gateway.hub import Json
from plugins.openai_errors import error_reader
from plugins.openai_like import (
    Edit,
    Rules,
    Step,
    clamp_top_logprobs,
    completions_url,
    developer_as_system,
    edited,
    efforts,
    function_tools,
    never,
    one_limit,
    provider,
    refuse_parts,
    rows,
    without_cache_control,
)
from plugins.openai_mender import ChunkMender

_CATALOGUE = "accounts/fireworks/models/"
_OVERFLOW = "context_length_exceeded_behavior"


def rules(target: Target) -> Rules:
    """How requests for a model are edited."""
    return _rules(tuple(target.abilities.get("efforts", ("none", "low", "medium", "high"))))


@lru_cache(maxsize=64)
def _rules(levels: tuple[str, ...]) -> Rules:
    steps: dict[str, Step] = {
        **one_limit(),
        "thinking": _thinking,
        "tools": function_tools(strict=False),
    }
    found = _ROWS | {"reasoning_effort": efforts(levels)}
    return Rules.of(found, steps, always=(_fail_on_overflow,), message=_message, hints=_HINTS)


_HINTS = (b'"developer"', b'"cache_control"', b'"file"', b'"input_audio"')
_readable = refuse_parts("file", "input_audio")


def _message(edit: Edit, message: Json) -> Json:
    return without_cache_control(edit, developer_as_system(edit, _readable(edit, message)))


def _thinking(edit: Edit) -> None:
    if edit.chat.get("reasoning_effort") is not None:
        edit.drop("thinking", "cannot stand beside 'reasoning_effort'")


def _fail_on_overflow(edit: Edit) -> None:
    """A prompt that is too long is an error, as at OpenAI; Fireworks' own default shortens the answer unsaid."""
    if _OVERFLOW not in edit.target.without and edit.chat.get(_OVERFLOW) is None:
        edit.set(_OVERFLOW, "error", tell=_OVERFLOW)


_ROWS: dict[str, Row] = {
    "max_tokens": elsewhere("left out beside max_completion_tokens"),
    "max_completion_tokens": elsewhere("wins over max_tokens"),
    "top_logprobs": clamp_top_logprobs(5),
    "messages": elsewhere("role developer becomes system; cache marks are left out; files and sound are refused"),
    "tools": elsewhere("function tools only, without strict"),
    "thinking": elsewhere("left out beside reasoning_effort"),
    **rows(reject("is audio output, which this provider does not have"), "modalities", "audio"),
    **rows(
        reject("would constrain the answer and is unknown to this provider; use response_format"),
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag"),
    ),
    **rows(
        drop("unknown to this provider"),
        *("store", "verbosity", "web_search_options", "safety_identifier", "moderation", "reasoning"),
        *("prompt_cache_options", "prompt_cache_retention", "cache_control", "safety_settings"),
        *("chat_template", "chat_template_kwargs", "mm_processor_kwargs"),
    ),
}


def build_request(chat: ChatRequest, target: Target) -> UpstreamRequest:
    """The request; a bare model name is one of the public catalogue. Streams carry their usage unasked."""
    if "/" not in target.model:
        target = replace(target, model=_CATALOGUE + target.model)
    return edited(chat, target, rules(target), completions_url(target), ask_usage=False)


# 412: the account is suspended or over its spending limit.
PROVIDER = replace(
    provider(
        "fireworks",
        rules,
        base_url="https://api.fireworks.ai/inference/v1",
        env="FIREWORKS_API_KEY",
        usage_on_request=never,
        models="plugins/fireworks_models.yaml",
    ),
    native={"openai.chat": Native(build_request, ChunkMender)},
    read_error=error_reader("fireworks", account=frozenset((412,))),
)
