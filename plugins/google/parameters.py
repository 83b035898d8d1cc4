"""What becomes of each parameter: one table for each kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from gateway.contract import Row, Table, Target
from gateway.fields import Unfit, clamp, convert, drop, elsewhere, reject, rename

_NO_CACHE = drop("Gemini caches by itself; name a cache of your own with cached_content")
_NO_TEMPLATE = drop("Google applies its own chat template")
_SHAPE = "is not supported: Gemini can be held to a JSON schema only"

_TIERS: Mapping[str, str] = {"default": "standard", "flex": "flex", "priority": "priority"}
_FEATURES = ("sampling", "penalties", "thinking", "speech")


def table(target: Target) -> Table:
    """The decision for every parameter, for one model."""
    return _table(*(target.abilities.get(feature) for feature in _FEATURES))


@cache
def _table(sampling: object, penalties: object, thinking: object, speech: object) -> Table:
    """One table for all models that have the same features; never written to."""
    rows = dict(_ROWS)
    if not sampling:
        rows.update(dict.fromkeys(("temperature", "top_p", "top_k"), drop("does not change what this model says")))
    if not penalties:
        rows.update(dict.fromkeys(("frequency_penalty", "presence_penalty"), drop("is refused by this model")))
    if thinking not in ("level", "budget"):
        rows.update(dict.fromkeys(("reasoning_effort", "reasoning", "thinking"), _NO_THINKING))
    if not speech:
        rows["audio"] = reject("is not supported: this model does not speak")
    return rows


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit("is not a whole number")
    return value % 2**31


def _service_tier(value: Any) -> str:
    if not isinstance(value, str) or value not in _TIERS:
        raise Unfit("names a tier that this provider has not")
    return _TIERS[value]


_NO_THINKING = elsewhere("this model does not think: `none` is what it does anyway, any other value is dropped")
_MODEL = "generationConfig."
_ROWS: Mapping[str, Row] = {
    "model": elsewhere("in the URL"),
    "messages": elsewhere("contents and systemInstruction"),
    "stream": elsewhere("in the URL"),
    "stream_options": elsewhere("usage is always reported; the gateway passes it on where it was asked for"),
    "n": rename(f"{_MODEL}candidateCount"),
    "stop": elsewhere("generationConfig.stopSequences, the first five"),
    "seed": convert(f"{_MODEL}seed", _seed, "modulo 2^31"),
    "user": drop("Gemini has no field for it"),
    "temperature": convert(f"{_MODEL}temperature", clamp(0, 2), "0 to 2"),
    "top_p": rename(f"{_MODEL}topP"),
    "top_k": rename(f"{_MODEL}topK"),
    "min_p": drop(),
    "frequency_penalty": rename(f"{_MODEL}frequencyPenalty"),
    "presence_penalty": rename(f"{_MODEL}presencePenalty"),
    "repetition_penalty": drop(),
    "max_tokens": elsewhere("generationConfig.maxOutputTokens, unless max_completion_tokens is given; thoughts count"),
    "max_completion_tokens": rename(f"{_MODEL}maxOutputTokens", "thoughts count"),
    "response_format": elsewhere("generationConfig.responseMimeType and responseJsonSchema"),
    "logprobs": elsewhere("generationConfig.responseLogprobs"),
    "top_logprobs": elsewhere("generationConfig.logprobs, with logprobs: true"),
    "logit_bias": drop(),
    "tools": elsewhere("functionDeclarations; Google's own tools by their own names"),
    "tool_choice": elsewhere("toolConfig.functionCallingConfig"),
    "parallel_tool_calls": elsewhere("true is what Gemini does; false is dropped"),
    "functions": elsewhere("as tools"),
    "function_call": elsewhere("as tool_choice"),
    "reasoning_effort": elsewhere("generationConfig.thinkingConfig"),
    "reasoning": elsewhere("generationConfig.thinkingConfig"),
    "thinking": elsewhere("generationConfig.thinkingConfig"),
    "verbosity": drop(),
    "service_tier": convert("serviceTier", _service_tier, "default is standard"),
    "metadata": drop("labels exist on Vertex AI only: google.labels"),
    "store": drop(),
    "prediction": drop(),
    "modalities": elsewhere("generationConfig.responseModalities"),
    "audio": elsewhere("generationConfig.speechConfig; the format must be pcm16"),
    "moderation": drop("Gemini filters by safety_settings"),
    "prompt_cache_key": _NO_CACHE,
    "prompt_cache_options": _NO_CACHE,
    "prompt_cache_retention": _NO_CACHE,
    "cache_control": _NO_CACHE,
    "safety_identifier": drop(),
    "safety_settings": rename("safetySettings"),
    "web_search_options": elsewhere("the googleSearch tool"),
    "chat_template": _NO_TEMPLATE,
    "chat_template_kwargs": _NO_TEMPLATE,
    "mm_processor_kwargs": drop(),
    "guided_json": elsewhere("as response_format: json_schema"),
    "guided_regex": reject(_SHAPE),
    "guided_choice": reject(_SHAPE),
    "guided_grammar": reject(_SHAPE),
    "structural_tag": reject(_SHAPE),
    "ignore_eos": drop(),
    # Google's own, under the names of its OpenAI-compatible endpoint.
    "cached_content": rename("cachedContent"),
    "extra_body": elsewhere("extra_body.google: thinking_config and cached_content"),
    "google": elsewhere("merged into the body last, in Google's own words"),
}
