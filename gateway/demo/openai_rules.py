"""What the OpenAI-like providers accept, each with its own refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.demo.shapes import (
    Misfit,
    Shape,
    anything,
    either,
    filled,
    flag,
    integer,
    listing,
    mapping,
    number,
    one_of,
    record,
    tagged,
    text,
)
from gateway.demo.wire import Refused
from gateway.hub import Json

_nullable = one_of(None)


def _maybe(shape: Shape) -> Shape:
    return either(_nullable, shape)


_text_part = record({"type": text, "text": text}, {"prompt_cache_breakpoint": mapping, "cache_control": mapping})
_file = record({}, {"file_data": text, "file_id": text, "filename": text})
_audio = record({"data": filled, "format": one_of("wav", "mp3")})
_image = record({"url": filled}, {"detail": one_of("auto", "low", "high", "original")})
PARTS: dict[str, Shape] = {
    "text": _text_part,
    "image_url": record({"type": text, "image_url": _image}),
    "input_audio": record({"type": text, "input_audio": _audio}),
    "file": record({"type": text, "file": _file}),
}
TEXT_PARTS: dict[str, Shape] = {"text": _text_part}
_refusal = record({"type": text, "refusal": text})
_function = record({"name": filled}, {"arguments": text})
_call = tagged(
    "type",
    {
        "function": record(
            {"id": filled, "type": text, "function": _function}, {"extra_content": mapping, "index": integer(-1)}
        ),
        "custom": record({"id": filled, "type": text, "custom": record({"name": filled, "input": text})}),
    },
)


def _content(parts: Mapping[str, Shape]) -> Shape:
    return either(text, listing(tagged("type", parts), 1))


_system = record({"role": text, "content": _content(TEXT_PARTS)}, {"name": text})
_assistant = record(
    {"role": text},
    {
        "content": either(_content({**TEXT_PARTS, "refusal": _refusal}), listing(anything, 0, 0)),
        "refusal": text,
        "audio": record({"id": text}),
        "tool_calls": listing(_call, 1),
        "function_call": _function,
        "name": text,
        # What answers carried and clients send back.
        **dict.fromkeys(("annotations", "reasoning_content", "reasoning", "thinking_blocks"), anything),
    },
)
_tool_turn = record({"role": text, "content": _content(TEXT_PARTS), "tool_call_id": filled}, {"name": text})
ROLES: dict[str, Shape] = {
    "system": _system,
    "developer": _system,
    "user": record({"role": text, "content": _content(PARTS)}, {"name": text}),
    "assistant": _assistant,
    "tool": _tool_turn,
    "function": record({"role": text, "name": filled}, {"content": text}),
}
_tool = tagged(
    "type",
    {
        "function": record(
            {
                "type": text,
                "function": record(
                    {"name": filled}, {"description": text, "parameters": _maybe(mapping), "strict": _maybe(flag)}
                ),
            }
        ),
        "custom": record({"type": text, "custom": mapping}),
    },
)
_schema = record({"name": filled}, {"description": text, "schema": mapping, "strict": _maybe(flag)})
FORMAT = tagged(
    "type",
    {
        "text": record({"type": text}),
        "json_object": record({"type": text}),
        "json_schema": record({"type": text, "json_schema": _schema}),
    },
)
_named = tagged(
    "type",
    {
        "function": record({"type": text, "function": record({"name": filled})}),
        "custom": record({"type": text, "custom": record({"name": filled})}),
        "allowed_tools": record({"type": text, "allowed_tools": mapping}),
    },
)
_stop = either(text, listing(text, 1, 4))

FIELDS: dict[str, Shape] = {
    "model": filled,
    "messages": listing(tagged("role", ROLES), 1),
    "stream": flag,
    "stream_options": record({}, {"include_usage": flag, "include_obfuscation": flag}),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "max_completion_tokens": integer(1),
    "max_tokens": integer(1),
    "n": integer(1, 128),
    "stop": _stop,
    "seed": integer(-(2**63), 2**63),
    "logit_bias": mapping,
    "logprobs": flag,
    "top_logprobs": integer(0, 20),
    "response_format": FORMAT,
    "tools": listing(_tool),
    "tool_choice": either(one_of("none", "auto", "required"), _named),
    "parallel_tool_calls": flag,
    "functions": listing(mapping, 1),
    "function_call": anything,
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "verbosity": one_of("low", "medium", "high"),
    "service_tier": one_of("auto", "default", "flex", "scale", "priority", "fast"),
    "metadata": mapping,
    "store": flag,
    "prediction": mapping,
    "modalities": listing(text),
    "audio": mapping,
    "prompt_cache_key": text,
    "prompt_cache_options": mapping,
    "prompt_cache_retention": text,
    "safety_identifier": text,
    "user": text,
    "web_search_options": mapping,
    "moderation": mapping,
}

_OPENAI_ONLY = frozenset(
    (
        *("store", "verbosity", "modalities", "audio", "prompt_cache_options", "prompt_cache_retention"),
        *("safety_identifier", "web_search_options", "moderation"),
    )
)
REFUSED: dict[str, frozenset[str]] = {
    "openai": frozenset(),
    "azure": frozenset(("web_search_options", "prompt_cache_options", "moderation")),
    "generic": frozenset(),
    "together": _OPENAI_ONLY
    | {"max_completion_tokens", "top_logprobs", "parallel_tool_calls", "user", "metadata", "service_tier"}
    | {"prediction", "prompt_cache_key"},
    "fireworks": _OPENAI_ONLY,
    "xai": _OPENAI_ONLY | {"logit_bias", "metadata", "prediction", "prompt_cache_key"},
}
_CLOSED = frozenset(("openai", "azure"))  # the others accept extensions such as top_k
_O_SERIES = re.compile(r"(^|/)(o\d+|gpt-5(?!\.\d|-chat)|gpt-[6-9])")
_REASONING = re.compile(r"(^|/)(o\d+|gpt-([6-9]|5(?!-chat)))")
_GROK = re.compile(r"grok-([4-9]|code|3-mini)")


def check(body: Json, flavour: str) -> None:
    """Raise Refused where this provider would answer 400."""
    shapes = {**FIELDS, **_own_shapes(flavour)}
    for name, value in body.items():
        if name in REFUSED[flavour] or (name not in shapes and flavour in _CLOSED):
            raise _unknown(name, flavour)
        if value is not None and name in shapes:
            _fit(shapes[name], _without_nulls(value) if name == "messages" else value, name)
    for name in ("model", "messages"):
        if body.get(name) is None:
            raise Refused(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    _check_together_fit(body, flavour)
    _check_turns(body["messages"])
    _check_flavour(body, flavour)


def _without_nulls(messages: Any) -> Any:
    """A null member of a message is an absent one."""
    if not isinstance(messages, list):
        return messages
    return [
        {name: value for name, value in message.items() if value is not None} if isinstance(message, dict) else message
        for message in messages
    ]


def _own_shapes(flavour: str) -> dict[str, Shape]:
    if flavour == "together":
        return {"stop": listing(text, 1), "logprobs": integer(0, 20), "tool_choice": either(text, mapping)}
    if flavour == "fireworks":
        return {"logprobs": either(integer(0, 5), flag), "top_logprobs": integer(0, 5), "reasoning_effort": anything}
    if flavour == "xai":
        return {"tool_choice": either(text, mapping)}
    return {}


def _fit(shape: Shape, value: Any, name: str) -> None:
    try:
        shape(value, name)
    except Misfit as misfit:
        where = f"{misfit.path}.{misfit.name}" if misfit.name else misfit.path
        if misfit.kind == "extra":
            raise Refused(f"Unknown parameter: '{where}'.", param=where, code="unknown_parameter") from misfit
        if misfit.kind == "missing":
            message, code = f"Missing required parameter: '{where}'.", "missing_required_parameter"
        else:
            message, code = f"Invalid value for '{where}': {misfit.detail}.", f"invalid_{misfit.kind}"
        raise Refused(message, param=where, code=code) from misfit


def _unknown(name: str, flavour: str) -> Refused:
    if flavour == "fireworks":
        return Refused(f"Extra inputs are not permitted, field: '{name}'")
    if flavour == "xai":
        return Refused(f"Argument not supported on this model: {name}")
    return Refused(f"Unrecognized request argument supplied: {name}", param=name, code="unknown_parameter")


def _check_together_fit(body: Json, flavour: str) -> None:
    if body.get("stream_options") and not body.get("stream"):
        raise Refused(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if not body.get("tools") and flavour in _CLOSED:
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) is not None:
                raise Refused(f"'{name}' is only allowed when 'tools' are specified.", param=name)
    if body.get("top_logprobs") is not None and not body.get("logprobs") and flavour != "together":
        raise Refused("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    both = body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None
    if both and flavour == "fireworks":
        raise Refused("Only one of max_tokens and max_completion_tokens may be given.", param="max_tokens")


def _check_turns(messages: list[Json]) -> None:
    """Every call is answered, directly after it; nothing else is."""
    open_ids: list[str] = []
    for index, message in enumerate(messages):
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in open_ids:
                problem = "messages with role 'tool' must follow a message with the 'tool_calls' that they answer."
                raise Refused(problem, param=f"messages.[{index}].role")
            open_ids.remove(message["tool_call_id"])
            continue
        _all_answered(open_ids, index)
        open_ids = [call["id"] for call in message.get("tool_calls") or ()]
    _all_answered(open_ids, len(messages))


def _all_answered(open_ids: list[str], index: int) -> None:
    if open_ids:
        problem = "An assistant message with 'tool_calls' must be followed by tool messages for each 'tool_call_id'."
        raise Refused(f"{problem} Unanswered: {', '.join(open_ids)}", param=f"messages.[{index}].role")


def _check_flavour(body: Json, flavour: str) -> None:
    if flavour in _CLOSED:
        _check_reasoning_model(body)
    elif flavour != "generic":
        _check_messages_of_others(body, flavour)
    if flavour == "xai" and _GROK.search(body["model"]):
        for name in ("stop", "frequency_penalty", "presence_penalty"):
            if body.get(name) is not None:
                raise Refused(f"Argument not supported on this model: {name}")


def _check_reasoning_model(body: Json) -> None:
    model = body["model"]
    if _REASONING.search(model) and body.get("max_tokens") is not None:
        message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        raise Refused(message, param="max_tokens", code="unsupported_parameter")
    if not _O_SERIES.search(model):
        return
    for name in ("temperature", "top_p"):
        if body.get(name) not in (None, 1):
            message = f"Unsupported value: '{name}' does not support {body[name]} with this model."
            raise Refused(message, param=name, code="unsupported_value")
    for name in ("logprobs", "top_logprobs", "logit_bias"):
        if body.get(name):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise Refused(message, param=name, code="unsupported_parameter")


def _check_messages_of_others(body: Json, flavour: str) -> None:
    for index, message in enumerate(body["messages"]):
        if message["role"] == "developer":
            raise Refused(f"messages[{index}]: unknown role 'developer'")
        if flavour == "xai" and "name" in message and message["role"] != "tool":
            raise Refused(f"messages[{index}]: 'name' is not allowed")
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else ():
            if part["type"] in ("file", "input_audio") and flavour == "fireworks":
                raise Refused(f"messages[{index}]: content of type '{part['type']}' is not supported")
    for tool in body.get("tools") or ():
        if tool["type"] != "function":
            raise Refused(f"tools: type '{tool['type']}' is not supported")
        if "strict" in tool["function"] and flavour == "fireworks":
            raise _unknown("strict", flavour)
