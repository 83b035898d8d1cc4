"""xAI (Grok): OpenAI's dialect at another address, without what reasoning models refuse."""

from __future__ import annotations

from functools import lru_cache

from gateway.contract import Row, Target
from gateway.fields import drop, elsewhere, reject
from gateway.hub import Json
from plugins.openai_like import (
    Edit,
    Rules,
    Step,
    clamp_top_logprobs,
    developer_as_system,
    efforts,
    function_tools,
    no_open_model_extras,
    one_limit,
    provider,
    refuse_parts,
    rows,
    without,
    without_cache_control,
)
from plugins.openai_mender import ChunkMender


def rules(target: Target) -> Rules:
    """How requests for a model are edited."""
    levels = target.abilities.get("efforts")
    return _rules(tuple(target.abilities.get("refuses", ())), None if levels is None else tuple(levels))


@lru_cache(maxsize=64)
def _rules(refused: tuple[str, ...], levels: tuple[str, ...] | None) -> Rules:
    found = _ROWS | rows(drop("refused by this model"), *refused)
    if levels is not None:
        found["reasoning_effort"] = efforts(levels)
    steps: dict[str, Step] = {
        **one_limit(),
        "tools": function_tools(strict=False),
    }
    return Rules.of(found, steps, message=_message, hints=_HINTS)


_HINTS = (b'"name"', b'"developer"', b'"cache_control"', b'"input_audio"')
_readable = refuse_parts("input_audio")


def _message(edit: Edit, message: Json) -> Json:
    message = without_cache_control(edit, developer_as_system(edit, _readable(edit, message)))
    if "name" not in message:
        return message
    edit.applied.drop("messages.name", "is refused by this provider")
    return without(message, "name")


_ROWS: dict[str, Row] = {
    **no_open_model_extras(),
    "max_tokens": elsewhere("left out beside max_completion_tokens"),
    "max_completion_tokens": elsewhere("wins over max_tokens"),
    "top_logprobs": clamp_top_logprobs(8),
    "messages": elsewhere("without name; role developer becomes system; cache marks are left out; sound is refused"),
    "tools": elsewhere("function tools only, without strict"),
    **rows(reject("is audio output, which this provider does not have"), "modalities", "audio"),
    **rows(reject("is not known here; use tools and tool_choice"), "functions", "function_call"),
    **rows(
        drop("unknown to this provider"),
        *("logit_bias", "store", "metadata", "prediction", "verbosity", "web_search_options", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "moderation"),
    ),
    "search_parameters": drop("live search is gone from chat completions"),
}

PROVIDER = provider(
    "xai",
    rules,
    base_url="https://api.x.ai/v1",
    env="XAI_API_KEY",
    open_mender=ChunkMender,
    models="plugins/xai_models.yaml",
)
