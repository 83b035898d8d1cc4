"""What the Messages API accepts, and what it says to the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.demo.answers import seal
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
    matching,
    number,
    one_of,
    record,
    spoken,
    tagged,
    text,
)
from gateway.demo.wire import Refused
from gateway.hub import Json

_PATTERN = "String should match pattern '^{}$'"
_said = spoken("text content blocks must be non-empty")
_cache = either(one_of(None), record({"type": one_of("ephemeral")}, {"ttl": one_of("5m", "1h")}))
_https = matching("https://.+", _PATTERN)
_media = one_of("image/jpeg", "image/png", "image/gif", "image/webp")
_image_source = tagged(
    "type",
    {
        "base64": record({"type": text, "media_type": _media, "data": filled}),
        "url": record({"type": text, "url": _https}),
        "file": record({"type": text, "file_id": filled}),
    },
)
_document_source = tagged(
    "type",
    {
        "base64": record({"type": text, "media_type": one_of("application/pdf"), "data": filled}),
        "text": record({"type": text, "media_type": one_of("text/plain"), "data": text}),
        "url": record({"type": text, "url": _https}),
        "content": record({"type": text, "content": anything}),
        "file": record({"type": text, "file_id": filled}),
    },
)
_marked = {"cache_control": _cache}
_block_text = record({"type": text, "text": _said}, {**_marked, "citations": anything})
_block_image = record({"type": text, "source": _image_source}, _marked)
_block_document = record(
    {"type": text, "source": _document_source},
    {**_marked, "title": either(one_of(None), text), "context": either(one_of(None), text), "citations": anything},
)
_result_blocks = {"text": _block_text, "image": _block_image, "document": _block_document}
_identifier = matching("[a-zA-Z0-9_-]+", _PATTERN)
_block_result = record(
    {"type": text, "tool_use_id": _identifier},
    {**_marked, "content": either(text, listing(tagged("type", _result_blocks))), "is_error": flag},
)
_name = matching("[a-zA-Z0-9_-]{1,128}", _PATTERN)
USER_BLOCKS: dict[str, Shape] = {
    **_result_blocks,
    "tool_result": _block_result,
    "search_result": mapping,
    "container_upload": mapping,
}
ASSISTANT_BLOCKS: dict[str, Shape] = {
    "text": _block_text,
    "tool_use": record(
        {"type": text, "id": _identifier, "name": _name, "input": mapping}, {**_marked, "caller": mapping}
    ),
    "thinking": record({"type": text, "thinking": text, "signature": filled}),
    "redacted_thinking": record({"type": text, "data": filled}),
    # What the API's own tools did is handed back as it came.
    **dict.fromkeys(("server_tool_use", "mcp_tool_use", "mcp_tool_result", "compaction", "container_upload"), mapping),
    **{
        f"{tool}_tool_result": mapping
        for tool in ("web_search", "web_fetch", "code_execution", "bash_code_execution", "tool_search")
    },
}
_turn = tagged(
    "role",
    {
        "user": record({"role": text, "content": either(_said, listing(tagged("type", USER_BLOCKS), 1))}),
        "assistant": record({"role": text, "content": either(_said, listing(tagged("type", ASSISTANT_BLOCKS)))}),
        "system": record({"role": text, "content": either(_said, listing(_block_text, 1))}),
    },
)


def _input_schema(value: Any, path: str) -> None:
    mapping(value, path)
    if "type" not in value:
        raise Misfit("missing", path, "type")
    one_of("object")(value["type"], f"{path}.type")
    for name in ("anyOf", "oneOf", "allOf"):
        if name in value:
            raise Misfit("value", path, detail=f"input_schema does not support {name} at the top level")


_tool_options = {
    **_marked,
    **dict.fromkeys(("strict", "defer_loading", "eager_input_streaming"), flag),
    **dict.fromkeys(("input_examples", "allowed_callers"), anything),
    "description": text,
    "type": one_of("custom"),
}
_own_tool = record({"name": _name, "input_schema": _input_schema}, _tool_options)
_SERVER_TOOL = re.compile(r"[a-z0-9_]+_\d{8}")


def _tool(value: Any, path: str) -> None:
    mapping(value, path)
    if not _SERVER_TOOL.fullmatch(str(value.get("type", "custom"))):
        _own_tool(value, path)


_choice_options = {"disable_parallel_tool_use": flag}
_choice = tagged(
    "type",
    {
        "auto": record({"type": text}, _choice_options),
        "any": record({"type": text}, _choice_options),
        "tool": record({"type": text, "name": filled}, _choice_options),
        "none": record({"type": text}),
    },
)
_display = {"display": one_of("summarized", "omitted")}
_thinking = tagged(
    "type",
    {
        "enabled": record({"type": text, "budget_tokens": integer(1024)}, _display),
        "adaptive": record({"type": text}, _display),
        "disabled": record({"type": text}),
        "between_tools": record({"type": text}),
    },
)
_format = record({"type": one_of("json_schema"), "schema": mapping})
SAMPLING: dict[str, Shape] = {"temperature": number(0, 1), "top_p": number(0, 1), "top_k": integer(0)}
REQUIRED: dict[str, Shape] = {"model": filled, "max_tokens": integer(0), "messages": listing(_turn, 1)}
OPTIONAL: dict[str, Shape] = {
    "system": either(text, listing(_block_text)),
    "stop_sequences": listing(_said),
    "stream": flag,
    "tools": listing(_tool),
    "tool_choice": _choice,
    "thinking": _thinking,
    "output_config": record({}, {"effort": one_of("low", "medium", "high", "xhigh", "max"), "format": _format}),
    "metadata": record({}, {"user_id": either(one_of(None), text)}),
    "service_tier": one_of("auto", "standard_only"),
    **dict.fromkeys(("inference_geo", "container", "context_management", "mcp_servers", "speed"), anything),
    **_marked,
}
_CLASSIC = record(REQUIRED, {**OPTIONAL, **SAMPLING})
_NEWEST = record(REQUIRED, OPTIONAL)

# Since Opus 4.7 there is no sampling and no budget, since 4.6 no prefill; the 4.5 generation takes only one of two.
_FIFTH = "(opus|sonnet|haiku|fable|mythos)-5"
_NO_SAMPLING = _NO_BUDGET = re.compile(f"opus-4-[78]|{_FIFTH}|mythos-preview")
_NO_PREFILL = re.compile(f"(opus|sonnet)-4-[678]|{_FIFTH}|mythos-preview")
_NOT_BOTH = re.compile(r"(opus|sonnet|haiku)-4-5")
_NO_FORCE = re.compile(r"(fable|mythos)-5-[12]|(opus|sonnet)-5-5")
_MID_SYSTEM = re.compile(f"opus-4-8|{_FIFTH}")
_UNSUPPORTED = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("pattern", "maxItems", "uniqueItems", "minProperties", "maxProperties", "oneOf", "not", "if"),
    )
)


def check(body: Json, version: str) -> None:
    """Raise Refused where the API would answer 400."""
    try:
        (_NEWEST if version >= "2026-10-21" else _CLASSIC)(body, "")
    except Misfit as misfit:
        raise Refused(_words(misfit)) from misfit
    check_model(body)
    _check_choice(body)
    check_format((body.get("output_config") or {}).get("format"))
    turns = [(turn["role"], _blocks(turn["content"])) for turn in body["messages"]]
    _check_order(turns, body["model"])
    check_pairs(turns)
    check_thoughts(turns, thinks(body), "anthropic")
    _check_cache(body)


def _words(misfit: Misfit) -> str:
    if misfit.kind == "extra":
        return f"{misfit.path}.{misfit.name}: Extra inputs are not permitted".removeprefix(".")
    if misfit.kind == "missing":
        return f"{misfit.path}.{misfit.name}: Field required".removeprefix(".")
    if misfit.kind == "type":
        return f"{misfit.path}: Input should be {misfit.detail}"
    return f"{misfit.path}: {misfit.detail}"


def thinks(body: Mapping[str, Any]) -> bool:
    """Is thinking asked for?"""
    return (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")


def check_model(body: Json) -> None:
    """Raise Refused where the model does not take these settings."""
    model = body["model"]
    sampling = [name for name in SAMPLING if name in body]
    if _NO_SAMPLING.search(model) and any(body[name] != 1 for name in sampling):
        raise Refused(f"`{sampling[0]}` is not supported on this model.")
    if _NOT_BOTH.search(model) and "temperature" in body and "top_p" in body:
        raise Refused("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    budget = (body.get("thinking") or {}).get("budget_tokens")
    if budget is not None and budget >= body["max_tokens"]:
        raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if budget is not None and _NO_BUDGET.search(model):
        raise Refused("thinking.type.enabled is not supported on this model. Use adaptive thinking.")
    if thinks(body):
        if body.get("temperature", 1) != 1:
            raise Refused("`temperature` may only be set to 1 when thinking is enabled.")
        if "top_k" in body or body.get("top_p", 1) < 0.95:
            raise Refused("`top_k` and `top_p` below 0.95 must be unset when thinking is enabled.")


def _check_choice(body: Json) -> None:
    choice = body.get("tool_choice")
    names = [tool.get("name") for tool in body.get("tools") or ()]
    if len(set(names)) != len(names):
        raise Refused("tools: Tool names must be unique.")
    if choice is None:
        return
    if not names and choice["type"] != "none":
        raise Refused("tool_choice may only be specified while providing tools.")
    if choice["type"] in ("any", "tool"):
        if thinks(body):
            raise Refused("Thinking may not be enabled when tool_choice forces tool use.")
        if _NO_FORCE.search(body["model"]):
            raise Refused("tool_choice forces tool use, which this model does not support.")
    if choice["type"] == "tool" and choice["name"] not in names:
        raise Refused(f"tool_choice.name: tool '{choice['name']}' not found in provided tools.")


def check_format(wanted: Mapping[str, Any] | None) -> None:
    """Refuse a schema that constrained decoding does not support."""
    if wanted is not None:
        _check_node(wanted["schema"])


def _check_node(node: Any) -> None:
    if isinstance(node, list):
        for each in node:
            _check_node(each)
    if not isinstance(node, dict):
        return
    kind = node.get("type", "")
    if found := _UNSUPPORTED & node.keys():
        raise Refused(f"output_config.format.schema: For '{kind}' type, property '{min(found)}' is not supported")
    if kind == "object" and node.get("additionalProperties") is not False:
        message = "For 'object' type, 'additionalProperties' must be explicitly set to false"
        raise Refused(f"output_config.format.schema: {message}")
    for name, value in node.items():
        if name in ("properties", "$defs", "definitions"):
            for each in value.values():
                _check_node(each)
        elif name not in ("enum", "const", "default", "required", "examples"):
            _check_node(value)


def _blocks(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _check_order(turns: Sequence[tuple[str, list[Json]]], model: str) -> None:
    if turns[0][0] != "user":
        raise Refused('messages: first message must use the "user" role')
    for index, (role, blocks) in enumerate(turns):
        if not blocks and index < len(turns) - 1:
            raise Refused(f"messages.{index}: all messages must have non-empty content except for the final one")
        if role == "system":
            _check_system(turns, index, model)
    role, blocks = turns[-1]
    if role == "assistant":
        if _NO_PREFILL.search(model):
            raise Refused("This model does not support assistant message prefill.")
        if blocks and str(blocks[-1].get("text", "")).endswith((" ", "\n", "\t")):
            raise Refused("messages: final assistant content cannot end with trailing whitespace")


def _check_system(turns: Sequence[tuple[str, list[Json]]], index: int, model: str) -> None:
    if not _MID_SYSTEM.search(model):
        raise Refused(f"messages.{index}.role: Input should be 'user' or 'assistant'")
    follows = turns[index + 1][0] if index + 1 < len(turns) else "assistant"
    if turns[index - 1][0] != "user" or follows != "assistant":
        raise Refused(f"messages.{index}: a system message must follow a user turn and precede an assistant turn")


def check_pairs(turns: Sequence[tuple[str, list[Json]]]) -> None:
    """Every tool_use is answered first thing in the next turn; no tool_result stands alone."""
    merged = _merged(turns)
    calls: list[str] = []
    for index, (role, blocks) in enumerate(merged):
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if lost := [call for call in calls if call not in results]:
            message = f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(lost)}"
            raise Refused(f"messages.{index - 1}: {message}")
        if strange := [result for result in results if result not in calls]:
            message = f"unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(strange)}"
            raise Refused(f"messages.{index}: {message}")
        _check_within(role, blocks, index)
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    if calls:
        message = f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(calls)}"
        raise Refused(f"messages.{len(merged) - 1}: {message}")


def _check_within(role: str, blocks: Sequence[Json], index: int) -> None:
    kinds = [block["type"] for block in blocks]
    ids = [
        block.get("id") or block.get("tool_use_id") for block in blocks if block["type"] in ("tool_use", "tool_result")
    ]
    if len(set(ids)) != len(ids):
        raise Refused(f"messages.{index}: `tool_use` ids must be unique")
    if "tool_result" in kinds and any(kind != "tool_result" for kind in kinds[: kinds.count("tool_result")]):
        raise Refused(f"messages.{index}: `tool_result` blocks must come first in a user message")
    # Recorded: an assistant turn with text after a tool_use is refused.
    if "tool_use" in kinds and "text" in kinds[kinds.index("tool_use") :]:
        raise Refused(f"messages.{index}: `tool_use` must be followed by its `tool_result`, not by text")


def _merged(turns: Sequence[tuple[str, list[Json]]]) -> list[tuple[str, list[Json]]]:
    """The API merges neighbours of the same role."""
    merged: list[tuple[str, list[Json]]] = []
    for role, blocks in turns:
        if merged and merged[-1][0] == role:
            merged[-1] = (role, [*merged[-1][1], *blocks])
        else:
            merged.append((role, list(blocks)))
    return merged


def check_thoughts(turns: Sequence[tuple[str, list[Json]]], thinking: bool, provider: str) -> None:
    """Thoughts that come back must be as they were signed, and in a tool loop they must come back."""
    merged = _merged(turns)
    for index, (_, blocks) in enumerate(merged):
        for at, block in enumerate(blocks):
            altered = block["type"] == "thinking" and block["signature"] != seal(provider, block["thinking"])
            if altered or (block["type"] == "redacted_thinking" and block["data"] != seal(provider, "redacted")):
                raise Refused(f"messages.{index}.content.{at}: Invalid `signature` in `thinking` block")
    looping = len(merged) > 1 and merged[-1][1] and merged[-1][1][0]["type"] == "tool_result"
    if not (thinking and looping):
        return
    first = merged[-2][1][0]["type"]
    if first not in ("thinking", "redacted_thinking"):
        message = f"Expected `thinking` or `redacted_thinking`, but found `{first}`"
        raise Refused(f"messages.{len(merged) - 2}.content.0.type: {message}")


def _check_cache(body: Json) -> None:
    blocks = [*(body.get("tools") or ()), *_blocks(body.get("system") or [])]
    for turn in body["messages"]:
        blocks += _blocks(turn["content"])
    marks = sum(bool(block.get("cache_control")) for block in blocks)
    if marks > 4:
        raise Refused(f"A maximum of 4 blocks with cache_control may be provided. Found {marks}.")
