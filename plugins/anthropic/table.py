"""What happens to each parameter on its way to Claude: one row each, by model family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.contract import Row, Table, Target
from gateway.fields import Unfit, as_list, clamp, convert, drop, elsewhere, emulate, forward, reject
from gateway.hub import NEUTRAL, Json

CLASSIC = "2023-06-01"
WITHOUT_SAMPLING = "2026-10-21"

_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}

# Values that ask for nothing: leaving such a parameter out is what the client wants.
_NOTHING: dict[str, object] = {
    **NEUTRAL,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
}


def stop_sequences(value: Any) -> list[str]:
    """The sequences that are not blank: the provider refuses those."""
    sequences = [text for text in as_list(value) if isinstance(text, str) and text.strip()]
    if not sequences:
        raise Unfit("holds no sequence that this provider takes: they must not be blank")
    return sequences


def service_tier(value: Any) -> str:
    """The provider's name of a tier."""
    if not isinstance(value, str) or value not in _TIERS:
        raise Unfit("is not a tier of this provider")
    return _TIERS[value]


ROWS: dict[str, Row] = {
    "model": elsewhere("the deployment's model"),
    "messages": elsewhere("turns of content blocks"),
    "stream": elsewhere("sent when true"),
    "stream_options": elsewhere("the provider always reports usage; the gateway shows it when asked"),
    "n": reject("must be 1: this provider has no candidates"),
    "stop": convert("stop_sequences", stop_sequences),
    "seed": drop(),
    "user": elsewhere("metadata.user_id, unless it looks like an e-mail address or a phone number"),
    "safety_identifier": elsewhere("metadata.user_id, before `user`"),
    "metadata": elsewhere("only `user_id` is taken"),
    "temperature": convert("temperature", clamp(0, 1)),
    "top_p": forward(),
    "top_k": forward(),
    "min_p": drop(),
    "frequency_penalty": drop(),
    "presence_penalty": drop(),
    "repetition_penalty": drop(),
    "max_tokens": elsewhere("at most what the model can answer; required, so the model's maximum when absent"),
    "max_completion_tokens": elsewhere("max_tokens"),
    "response_format": elsewhere(
        "output_config.format; a JSON object without schema is asked for in the system prompt"
    ),
    "logprobs": drop(),
    "top_logprobs": drop(),
    "logit_bias": drop(),
    "tools": elsewhere("tools with input_schema"),
    "tool_choice": elsewhere("auto, any, tool or none; a forced tool becomes auto while thinking"),
    "parallel_tool_calls": elsewhere("tool_choice.disable_parallel_tool_use"),
    "functions": elsewhere("tools"),
    "function_call": elsewhere("tool_choice"),
    "reasoning_effort": elsewhere("thinking and output_config.effort"),
    "reasoning": elsewhere("thinking and output_config.effort"),
    "thinking": elsewhere("as it is where the model takes it"),
    "verbosity": drop(),
    "service_tier": convert("service_tier", service_tier),
    "store": drop(),
    "prediction": drop(),
    "modalities": reject("must be text: this provider answers in text only"),
    "audio": reject("is not possible: this provider answers in text only"),
    "moderation": drop(),
    "prompt_cache_key": drop("is not supported by this provider: mark with cache_control what to cache"),
    "prompt_cache_options": drop(),
    "prompt_cache_retention": drop(),
    "cache_control": forward("the provider's automatic breakpoint"),
    "safety_settings": drop(),
    "web_search_options": elsewhere("the provider's own web_search tool"),
    "chat_template": drop(),
    "chat_template_kwargs": drop(),
    "mm_processor_kwargs": drop(),
    "guided_json": elsewhere("as response_format with this schema"),
    "guided_regex": reject("has no equivalent, and leaving it out would change the answer's shape"),
    "guided_choice": reject("has no equivalent, and leaving it out would change the answer's shape"),
    "guided_grammar": reject("has no equivalent, and leaving it out would change the answer's shape"),
    "structural_tag": reject("has no equivalent, and leaving it out would change the answer's shape"),
    "ignore_eos": drop(),
    "anthropic": elsewhere("an object merged last into the provider's body"),
}


def table(target: Target) -> Table:
    """The rows for the target's model family."""
    rows = dict(ROWS)
    if without_sampling(target):
        taken = drop("is not taken by this model, which samples in its own way")
        rows |= {"temperature": taken, "top_p": taken, "top_k": taken}
    elif target.abilities.get("sampling") == "either":
        rows["top_p"] = forward("left out beside temperature")
    if target.abilities.get("thinking") == "none":
        rows |= {name: drop("is not supported: the model does not think") for name in THINKING}
    if not target.abilities.get("structured", True):
        note = "a tool that the model must call, whose input becomes the content"
        rows |= {"response_format": emulate(note), "guided_json": emulate(note)}
    if "n" in target.emulate:
        rows["n"] = emulate("as many calls side by side")
    return rows


THINKING = ("thinking", "reasoning", "reasoning_effort")


def without_sampling(target: Target) -> bool:
    """Does this target refuse temperature, top_p and top_k?"""
    newest = str(target.options.get("api_version", CLASSIC)) >= WITHOUT_SAMPLING
    return newest or bool(target.abilities.get("sampling", "none") == "none")


def meaningful(request: Mapping[str, Any], target: Target) -> Json:
    """The parameters that ask for something: absent values left out, and those that leaving out means anyway.

    `true` is no 1 here: a wrong type is left for its row to judge.
    """
    nothing = {**_NOTHING, "temperature": 1, "top_p": 1} if without_sampling(target) else _NOTHING
    return {
        name: value
        for name, value in request.items()
        if value is not None and not (name in nothing and value == nothing[name] and value is not True)
    }
