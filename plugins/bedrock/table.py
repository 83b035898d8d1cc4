"""The decision for every parameter, by what the model can do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.contract import Row, Table, Target
from gateway.fields import Unfit, as_list, clamp, convert, drop, elsewhere, emulate, reject, rename
from gateway.hub import NEUTRAL

# The object of a request whose members are Converse fields, laid over the body last.
NATIVE = "bedrock"

MAX_METADATA = 16
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")
_TIERS = frozenset(("default", "flex", "priority", "reserved"))


# Values that ask for nothing: leaving such a parameter out is what the client wants.
_NEUTRAL: dict[str, object] = {
    **NEUTRAL,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "metadata": {},
    "stop": [],
    "parallel_tool_calls": True,
}
_OWN_DEFAULT: dict[str, object] = {"temperature": 1, "top_p": 1}


def meaningful(given: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The parameters that ask for something: null and neutral values left out.

    `true` is no 1 here: a wrong type is left for its row to judge.
    """
    neutral = {**_NEUTRAL, **_OWN_DEFAULT} if target.abilities.get("sampling") == "none" else _NEUTRAL
    return {name: value for name, value in given.items() if not _is_nothing(value, neutral.get(name))}


def _is_nothing(value: Any, neutral: object) -> bool:
    return value is None or (value == neutral and (value is True) == (neutral is True))


def stop_list(value: Any) -> list[Any]:
    """One or many stop sequences as many, without blank ones, which models refuse."""
    return [text for text in as_list(value) if isinstance(text, str) and text.strip()]


def metadata(value: Any) -> Any:
    """Pairs that Converse takes as requestMetadata."""
    fits = isinstance(value, dict) and len(value) <= MAX_METADATA
    if not fits or not all(name and _fits(name) and _fits(text) for name, text in value.items()):
        raise Unfit("is not at most 16 pairs of plain text")
    return value


def _fits(text: Any) -> bool:
    return isinstance(text, str) and bool(_METADATA.fullmatch(text))


def service_tier(value: Any) -> dict[str, str]:
    """OpenAI's tier as Converse's."""
    tier = "default" if value == "auto" else value
    if not isinstance(tier, str) or tier not in _TIERS:
        raise Unfit("is not a tier of this provider")
    return {"type": tier}


_NOTHING = drop()
_SHAPE = reject("shapes the answer in a way that Bedrock does not know")
_ROWS: dict[str, Row] = {
    "model": elsewhere("a segment of the URL"),
    "messages": elsewhere("messages and system; turns merged, tool results paired"),
    "stream": elsewhere("/converse-stream"),
    "stream_options": elsewhere("usage always comes; it is shown when asked for"),
    "n": reject("must be 1: Converse gives one answer"),
    "stop": convert("inferenceConfig.stopSequences", stop_list, "blank sequences are left out"),
    "temperature": convert("inferenceConfig.temperature", clamp(0, 1), "at most 1"),
    "top_p": convert("inferenceConfig.topP", clamp(0, 1), "at most 1"),
    "max_tokens": elsewhere("inferenceConfig.maxTokens"),
    "max_completion_tokens": elsewhere("inferenceConfig.maxTokens"),
    "tools": elsewhere("toolConfig.tools"),
    "tool_choice": elsewhere("toolConfig.toolChoice; none leaves the tools out"),
    "parallel_tool_calls": elsewhere("Claude: tool_choice.disable_parallel_tool_use; others: dropped when false"),
    "functions": elsewhere("taken as tools"),
    "function_call": elsewhere("taken as tool_choice"),
    "service_tier": convert("serviceTier", service_tier, "auto is default"),
    "metadata": convert("requestMetadata", metadata, "at most 16 pairs"),
    "modalities": reject("must be text: Converse answers in text"),
    "audio": reject("asks for a spoken answer, which Converse does not give"),
    "guided_json": elsewhere("as response_format with this schema"),
    NATIVE: elsewhere("an object of Converse fields, laid over the body last"),
    **dict.fromkeys(("guided_regex", "guided_choice", "guided_grammar", "structural_tag"), _SHAPE),
    **dict.fromkeys(
        ("seed", "logprobs", "top_logprobs", "logit_bias", "frequency_penalty", "presence_penalty"), _NOTHING
    ),
    **dict.fromkeys(("repetition_penalty", "min_p", "user", "safety_identifier", "safety_settings"), _NOTHING),
    **dict.fromkeys(("verbosity", "store", "prediction", "moderation", "ignore_eos"), _NOTHING),
    **dict.fromkeys(("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"), _NOTHING),
    **dict.fromkeys(("chat_template", "chat_template_kwargs", "mm_processor_kwargs"), _NOTHING),
}
_REASONING = ("reasoning_effort", "reasoning", "thinking")


def table(target: Target) -> Table:
    """The rows for one target; total over the parameters of the front door."""
    can = target.abilities
    rows = {**_ROWS, "response_format": _response_format(can)}
    if not can.get("structured"):
        rows["guided_json"] = emulate("as response_format with this schema")
    thinks = elsewhere("additionalModelRequestFields, in the model's own words")
    rows |= dict.fromkeys(
        _REASONING, thinks if can.get("thinking", "none") != "none" else drop("is not for this model")
    )
    rows["top_k"] = rename(f"additionalModelRequestFields.{can['top_k']}") if can.get("top_k") else drop()
    rows["cache_control"] = elsewhere("a cachePoint behind the last message") if can.get("cache") else drop()
    search = elsewhere("Nova's grounding tool") if can.get("grounding") else drop()
    rows["web_search_options"] = search
    if can.get("sampling") == "none":
        rows |= dict.fromkeys(("temperature", "top_p", "top_k"), drop("is not supported by this model"))
    if can.get("stop") is False:
        rows["stop"] = drop("is not supported by this model")
    if can.get("tools") is False:
        rows |= dict.fromkeys(("tools", "functions"), reject("is not supported by this model"))
    if "n" in target.emulate:
        rows["n"] = emulate("as many calls as answers are wanted")
    return rows


def _response_format(can: Mapping[str, Any]) -> Row:
    if can.get("structured"):
        return elsewhere("outputConfig.textFormat; json_object by instruction")
    return emulate("json_schema by a forced tool, json_object by instruction")
