"""The hub: OpenAI Chat Completions as plain dicts, which every dialect and every provider meets at."""

from __future__ import annotations

from typing import Any

# Wire JSON. What is only carried is not modelled: an unknown key travels on.
Json = dict[str, Any]

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")

# Every request parameter of the front door. A provider's table has a row for each.
PARAMS: frozenset[str] = frozenset(
    (
        *("model", "messages", "stream", "stream_options", "n", "stop", "seed", "user"),
        *SAMPLING,
        *("max_tokens", "max_completion_tokens", "response_format"),
        *("logprobs", "top_logprobs", "logit_bias"),
        *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
        *("reasoning_effort", "reasoning", "thinking", "verbosity"),
        *("service_tier", "metadata", "store", "prediction", "modalities", "audio", "moderation"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_control"),
        *("safety_identifier", "safety_settings", "web_search_options"),
        *("chat_template", "chat_template_kwargs", "mm_processor_kwargs"),
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag", "ignore_eos"),
    )
)

# What a parameter means when it is left out: a provider without it honours this value by doing nothing.
NEUTRAL: dict[str, object] = {
    "n": 1,
    "modalities": ["text"],
    "response_format": {"type": "text"},
    "logprobs": False,
    "tools": [],
    "tool_choice": "auto",
}

CHUNK = "chat.completion.chunk"
COMPLETION = "chat.completion"
FINISH_REASONS = frozenset(("stop", "length", "tool_calls", "content_filter", "function_call"))
