"""What Bedrock's Converse accepts, as its service model says and as Claude behind it says."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import orjson

from gateway.demo import anthropic_rules
from gateway.demo.shapes import (
    Misfit,
    Shape,
    anything,
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
    text,
    union,
)
from gateway.demo.wire import Refused
from gateway.hub import Json


def _blob(value: Any, path: str) -> None:
    text(value, path)
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise Misfit("value", path, detail="not valid base64") from error


def _source(*others: str) -> Shape:
    known: dict[str, Shape] = {"bytes": _blob, "s3Location": record({"uri": filled}, {"bucketOwner": text})}
    return union({**known, **dict.fromkeys(others, anything)})


_PATTERN = "failed to satisfy regular expression pattern: {}"
_said = spoken("The text field in the ContentBlock object is blank")
_id = matching(r"[a-zA-Z0-9_.:-]{1,64}", _PATTERN)
_name = matching(r"[a-zA-Z0-9_-]{1,64}", _PATTERN)
_image = record({"format": one_of("png", "jpeg", "gif", "webp"), "source": _source()})
_document = record(
    {
        "name": matching(r"[A-Za-z0-9\-\(\)\[\]]+( [A-Za-z0-9\-\(\)\[\]]+)*", _PATTERN),
        "source": _source("text", "content"),
    },
    {
        "format": one_of("pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md"),
        "context": text,
        "citations": mapping,
    },
)
_result = record(
    {
        "toolUseId": _id,
        "content": listing(
            union({"json": anything, "text": text, "image": _image, "document": _document, "video": mapping})
        ),
    },
    {"status": one_of("success", "error"), "type": text},
)
_cache = record({"type": one_of("default")}, {"ttl": one_of("5m", "1h")})
_reasoning = union({"reasoningText": record({"text": text}, {"signature": text}), "redactedContent": _blob})
_block = union(
    {
        "text": _said,
        "image": _image,
        "document": _document,
        "audio": record({"format": filled, "source": _source()}),
        "video": mapping,
        "toolUse": record({"toolUseId": _id, "name": _name, "input": mapping}, {"type": text}),
        "toolResult": _result,
        "cachePoint": _cache,
        "reasoningContent": _reasoning,
        **dict.fromkeys(("guardContent", "citationsContent", "searchResult"), mapping),
    }
)
_turn = record({"role": one_of("user", "assistant", "system"), "content": listing(_block, 1)})
_spec = record({"name": _name, "inputSchema": record({"json": mapping})}, {"description": filled, "strict": flag})
_tool_config = record(
    {"tools": listing(union({"toolSpec": _spec, "cachePoint": _cache, "systemTool": record({"name": filled})}), 1)},
    {"toolChoice": union({"auto": record({}), "any": record({}), "tool": record({"name": _name})})},
)
_structure = record({"jsonSchema": record({"schema": filled}, {"name": text, "description": text})})
_BODY = record(
    {},
    {
        "messages": listing(_turn),
        "system": listing(union({"text": _said, "guardContent": mapping, "cachePoint": _cache})),
        "inferenceConfig": record(
            {},
            {
                "maxTokens": integer(1),
                "temperature": number(0, 1),
                "topP": number(0, 1),
                "stopSequences": listing(filled, 0, 2500),
            },
        ),
        "toolConfig": _tool_config,
        "outputConfig": record(
            {}, {"textFormat": record({"type": one_of("json_schema"), "structure": _structure}), "effort": text}
        ),
        "additionalModelRequestFields": mapping,
        "additionalModelResponseFieldPaths": listing(filled, 0, 10),
        "guardrailConfig": mapping,
        "requestMetadata": mapping,
        "performanceConfig": record({}, {"latency": one_of("standard", "optimized")}),
        "serviceTier": record({"type": one_of("default", "flex", "priority", "reserved")}),
        "promptVariables": mapping,
    },
)
_TYPES = {"toolUse": "tool_use", "toolResult": "tool_result", "reasoningContent": "thinking"}


def check(body: Json, model: str) -> None:
    """Raise Refused where the service would answer 400."""
    try:
        _BODY(body, "")
    except Misfit as misfit:
        raise Refused(_words(misfit)) from misfit
    if not body.get("messages"):
        raise Refused("A conversation must start with a user message. Try again with a conversation of messages.")
    turns = [(turn["role"], [_as_claude(block) for block in turn["content"]]) for turn in body["messages"]]
    _check_order(turns, model)
    _check_tools(body, turns)
    anthropic_rules.check_pairs([(role, _without_marks(blocks)) for role, blocks in turns])
    for _, blocks in turns:
        _check_documents(blocks)
    _check_claude(body, model, turns)


def thinks(body: Json) -> bool:
    """Is thinking asked for?"""
    return anthropic_rules.thinks(body.get("additionalModelRequestFields") or {})


def _words(misfit: Misfit) -> str:
    pointer = "#/" + misfit.path.replace(".", "/") if misfit.path else "#"
    if misfit.kind == "extra":
        problem = f"extraneous key [{misfit.name}] is not permitted"
    elif misfit.kind == "missing":
        problem = f"required key [{misfit.name}] not found"
    elif misfit.kind == "type":
        problem = f"expected type: {misfit.detail}"
    else:
        return f"The value at {misfit.path} is invalid: {misfit.detail}."
    return f"Malformed input request: {pointer}: {problem}, please reformat your input and try again."


def _as_claude(block: Json) -> Json:
    """A block with its kind under `type`, as the rules that Claude shares expect it."""
    name, value = next(iter(block.items()))
    made: Json = {"type": _TYPES.get(name, name), "block": value}
    if name == "toolUse":
        made["id"] = value["toolUseId"]
    elif name == "toolResult":
        made["tool_use_id"] = value["toolUseId"]
    elif name == "reasoningContent":
        said = value.get("reasoningText")
        if said is None:
            return {"type": "redacted_thinking", "data": value["redactedContent"]}
        made.update(thinking=said["text"], signature=said.get("signature", ""))
    return made


def _without_marks(blocks: Sequence[Json]) -> list[Json]:
    return [block for block in blocks if block["type"] != "cachePoint"]


def _check_order(turns: Sequence[tuple[str, list[Json]]], model: str) -> None:
    if turns[0][0] != "user":
        raise Refused("A conversation must start with a user message.")
    for (before, _), (role, _) in pairwise(turns):
        # Titan was seen to take neighbours of one role; Claude refuses them.
        if before == role and "titan" not in model:
            raise Refused("Roles must alternate between 'user' and 'assistant' in a conversation.")


def _check_tools(body: Json, turns: Sequence[tuple[str, list[Json]]]) -> None:
    used = any(block["type"] in ("tool_use", "tool_result") for _, blocks in turns for block in blocks)
    config = body.get("toolConfig")
    if used and config is None:
        raise Refused("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
    if config is None:
        return
    specs = [tool["toolSpec"] for tool in config["tools"] if "toolSpec" in tool]
    for spec in specs:
        if spec["inputSchema"]["json"].get("type") != "object":
            where = f"toolConfig.tools.{spec['name']}.inputSchema.json.type"
            raise Refused(f"The value at {where} must be one of the following: object.")
    names = [spec["name"] for spec in specs]
    if len(set(names)) != len(names):
        raise Refused("The toolConfig field has duplicate tool names.")
    chosen = (config.get("toolChoice") or {}).get("tool")
    if chosen and chosen["name"] not in names:
        raise Refused(f"The tool {chosen['name']} named in toolChoice is not in toolConfig.")


def _check_documents(blocks: Sequence[Json]) -> None:
    documents = [block["block"]["name"] for block in blocks if block["type"] == "document"]
    if documents and not any(block["type"] == "text" for block in blocks):
        raise Refused("A text block is required when a document is in the message.")
    if len(set(documents)) != len(documents):
        raise Refused("Document names must be unique.")


def _check_claude(body: Json, model: str, turns: Sequence[tuple[str, list[Json]]]) -> None:
    thoughts = any(block["type"] in ("thinking", "redacted_thinking") for _, blocks in turns for block in blocks)
    if "claude" not in model:
        if thoughts:
            raise Refused("User messages cannot contain reasoning content, which this model does not support.")
        return
    anthropic_rules.check_thoughts([(role, _without_marks(blocks)) for role, blocks in turns], thinks(body), "bedrock")
    messages = _as_messages(body, model)
    anthropic_rules.check_model(messages)
    if "tool_choice" in messages and anthropic_rules.thinks(messages):
        raise Refused("Thinking may not be enabled when tool_choice forces tool use.")
    anthropic_rules.check_format(_format(body))


def _format(body: Json) -> Json | None:
    schema = schema_of(body)
    return None if schema is None else {"schema": schema}


def schema_of(body: Json) -> Json | None:
    """The schema asked for; it stands in the body as a string."""
    wanted = (body.get("outputConfig") or {}).get("textFormat")
    if wanted is None:
        return None
    try:
        schema: Json = orjson.loads(wanted["structure"]["jsonSchema"]["schema"])
    except orjson.JSONDecodeError as error:
        raise Refused("outputConfig.textFormat.structure.jsonSchema.schema is not valid JSON.") from error
    return schema


def _as_messages(body: Json, model: str) -> Json:
    """What Claude gets of the inference settings."""
    given = body.get("inferenceConfig") or {}
    names = {"temperature": "temperature", "topP": "top_p", "maxTokens": "max_tokens"}
    made = {names[name]: value for name, value in given.items() if name in names}
    choice = (body.get("toolConfig") or {}).get("toolChoice") or {}
    extra = {**(body.get("additionalModelRequestFields") or {})}
    extra.pop("tool_choice", None)
    forced = {"tool_choice": choice} if {"any", "tool"} & choice.keys() else {}
    return {"max_tokens": 4096, **extra, **made, **forced, "model": model}
