"""Together AI: OpenAI's dialect for open models, with integer `logprobs` and a stop list."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from gateway.contract import Row, Target
from gateway.fields import as_list, convert, drop, elsewhere, reject, rename
from gateway.hub import Json
from plugins.openai_like import (
    Edit,
    Rules,
    Step,
    developer_as_system,
    efforts,
    function_tools,
    never,
    one_limit,
    provider,
    rows,
    without_cache_control,
)
from plugins.openai_mender import ChunkMender


class Family(NamedTuple):
    """What `together_models.yaml` says about a model, as a key."""

    efforts: tuple[str, ...]
    other: tuple[tuple[str, str], ...]
    switch: bool


def rules(target: Target) -> Rules:
    """How requests for a model are edited."""
    known = target.abilities
    levels = tuple(known.get("efforts", ("low", "medium", "high")))
    return _rules(Family(levels, tuple(known.get("effort", {}).items()), known.get("switch") is True))


@lru_cache(maxsize=64)
def _rules(kind: Family) -> Rules:
    steps: dict[str, Step] = {
        **one_limit("max_tokens"),
        "logprobs": _logprobs,
        "top_logprobs": _logprobs,
        "tools": function_tools(strict=True),
        "reasoning_effort": _effort(kind),
    }
    found = _ROWS | {"reasoning_effort": efforts(kind.efforts)}
    return Rules.of(found, steps, message=_message, hints=(b'"developer"', b'"cache_control"'))


def _message(edit: Edit, message: Json) -> Json:
    return without_cache_control(edit, developer_as_system(edit, message))


def _logprobs(edit: Edit) -> None:
    """`logprobs` is the number of alternatives here: 1 where only the chosen token is asked for."""
    wanted, count = edit.chat.get("logprobs"), edit.chat.get("top_logprobs")
    edit.remove("top_logprobs")
    if isinstance(wanted, bool):
        edit.remove("logprobs")
        if wanted:
            number = count if isinstance(count, int) and count > 0 else 1
            if count is not None and (not isinstance(count, int) or count < 0):
                edit.applied.drop("top_logprobs", "is no number of alternatives")
            edit.set("logprobs", min(number, 20), tell="logprobs")
    elif wanted is None and count is not None:
        edit.drop("top_logprobs", "needs logprobs")


def _effort(kind: Family) -> Step:
    row = efforts(kind.efforts)
    other = dict(kind.other)

    def step(edit: Edit) -> None:
        value = edit.chat.get("reasoning_effort")
        if value == "none" and kind.switch:
            edit.remove("reasoning_effort")
            edit.set("reasoning", {"enabled": False}, tell="reasoning_effort")
            return
        level = other.get(value) if isinstance(value, str) else None
        level = level or (row.convert(value) if row.convert else value)
        if level != value:
            edit.set("reasoning_effort", level, tell="reasoning_effort")

    return step


_ROWS: dict[str, Row] = {
    "max_completion_tokens": rename("max_tokens", "the only limit that is known here"),
    "stop": convert("stop", as_list, "always a list"),
    "logprobs": elsewhere("an integer here: the number of alternatives"),
    "top_logprobs": elsewhere("becomes the integer logprobs"),
    "messages": elsewhere("role developer becomes system; cache marks are left out"),
    "tools": elsewhere("function tools only"),
    **rows(reject("is audio output, which this provider does not have"), "modalities", "audio"),
    **rows(
        reject("would constrain the answer and is unknown to this provider; use response_format"),
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag"),
    ),
    **rows(
        drop("unknown to this provider"),
        *("parallel_tool_calls", "user", "metadata", "store", "service_tier", "prediction", "verbosity"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier"),
        *("web_search_options", "moderation", "thinking", "cache_control", "safety_settings"),
        *("chat_template", "mm_processor_kwargs", "ignore_eos"),
    ),
}

# Streams carry their usage unasked (all recorded ones do), so nothing is added to the request for it.
PROVIDER = provider(
    "together",
    rules,
    base_url="https://api.together.ai/v1",
    env="TOGETHER_API_KEY",
    usage_on_request=never,
    open_mender=ChunkMender,
    models="plugins/together_models.yaml",
)
