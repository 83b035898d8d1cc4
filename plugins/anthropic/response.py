"""A whole Messages answer as a chat completion."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.contract import ChatRequest, Stamp, Target
from gateway.errors import BadUpstreamResponse
from gateway.hub import COMPLETION, Json
from gateway.usage import write_usage
from plugins.anthropic.blocks import THOUGHTS
from plugins.anthropic.reading import (
    DECLINED,
    FINISH,
    Reading,
    compact,
    custom_input,
    error_of,
    reading_of,
    url_citation,
    usage_of,
)

_TIERS = {"standard": "default", "priority": "priority", "batch": "default"}


def read_response(body: bytes, chat: ChatRequest, target: Target, stamp: Stamp) -> Json:
    """The chat completion for a 2xx answer; raises UpstreamError for an error object or another shape."""
    answer = _decoded(body)
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    completion: Json = {
        "id": f"chatcmpl-{stamp.id}",
        "object": COMPLETION,
        "created": stamp.created,
        "model": answer.get("model") or target.model,
        "choices": [_choice(answer, reading_of(chat, target))],
    }
    if (counts := usage_of(usage)) is not None:
        completion["usage"] = write_usage(counts)
    if tier := _TIERS.get(str(usage.get("service_tier"))):
        completion["service_tier"] = tier
    return completion


def _decoded(body: bytes) -> Json:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadUpstreamResponse("The provider's answer is not JSON.") from error
    if isinstance(answer, dict) and (answer.get("type") == "error" or "error" in answer):
        raise error_of(200, {}, answer)
    content = answer.get("content") if isinstance(answer, dict) else None
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise BadUpstreamResponse("The provider's answer is no message.")
    found: Json = answer
    return found


def _choice(answer: Json, reading: Reading) -> Json:
    blocks = answer["content"]
    native = answer.get("stop_reason")
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    calls = [block for block in uses if block.get("name") != reading.json]
    message = _message(blocks, calls, reading)
    finish = FINISH.get(str(native), "stop")
    if finish == "tool_calls" and not calls:
        finish = "stop"
    if finish == "tool_calls" and reading.legacy:
        finish = "function_call"
    choice: Json = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    choice["native_finish_reason"] = native
    if native == "refusal":
        details = answer.get("stop_details") or {}
        message["refusal"] = details.get("explanation") or DECLINED
        if details.get("category"):
            choice["refusal_category"] = details["category"]
    return choice


def _message(blocks: list[Json], calls: list[Json], reading: Reading) -> Json:
    text, annotations = _text(blocks)
    shaped = [block for block in blocks if reading.json and block.get("name") == reading.json]
    content: str | None = reading.content(compact(shaped[0].get("input"))) if shaped else text
    message: Json = {"role": "assistant", "content": None if calls and not content else content, "refusal": None}
    thoughts = [block for block in blocks if block.get("type") in THOUGHTS]
    if reasoning := "".join(str(block.get("thinking") or "") for block in thoughts):
        message["reasoning_content"] = reasoning
    if thoughts:
        message["thinking_blocks"] = thoughts
    if annotations and not shaped:
        message["annotations"] = annotations
    if calls and reading.legacy:
        message["function_call"] = _call(calls[0], reading, [])["function"]
    elif calls:
        message["tool_calls"] = [_call(call, reading, [] if at else thoughts) for at, call in enumerate(calls)]
    return message


def _text(blocks: list[Json]) -> tuple[str, list[Json]]:
    """The text of all blocks, and the pages that it cites, by their places in it."""
    pieces: list[str] = []
    annotations: list[Json] = []
    length = 0
    for block in blocks:
        if block.get("type") != "text":
            continue
        piece = str(block.get("text") or "")
        end = length + len(piece)
        cited = (url_citation(one, length, end) for one in block.get("citations") or ())
        annotations += (one for one in cited if one)
        pieces.append(piece)
        length = end
    return "".join(pieces), annotations


def _call(block: Json, reading: Reading, thoughts: list[Json]) -> Json:
    call_id = reading.call_id(str(block.get("id")), thoughts)
    name = reading.name(str(block.get("name")))
    arguments = compact(_arguments(block.get("input")))
    if name in reading.custom:
        return {"id": call_id, "type": "custom", "custom": {"name": name, "input": custom_input(arguments)}}
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments(value: Any) -> Any:
    return {} if value is None else value
