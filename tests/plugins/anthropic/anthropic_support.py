"""What the tests of the anthropic plugin share: targets, requests, streams from start to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import yaml
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.abilities import abilities
from gateway.contract import Stamp, StreamDecoder, Target, UpstreamRequest
from gateway.envelope import Envelope, open_envelope
from plugins.anthropic import PROVIDER

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared"
ROWS = yaml.safe_load((ROOT / PROVIDER.models).read_text())
STAMP = Stamp("1", 1764000000)
USER = {"role": "user", "content": "hi"}


def target(model: str = "claude-sonnet-4-5", **values: Any) -> Target:
    return Target(
        "anthropic", model, "https://api.anthropic.com", family=model, abilities=abilities(ROWS, model), **values
    )


def chat(headers: dict[str, str] | None = None, /, **body: Any) -> Envelope:
    return open_envelope(orjson.dumps({"model": "m", "messages": [USER], **body}), headers or {})


def build(model: str = "claude-sonnet-4-5", options: dict[str, Any] | None = None, /, **body: Any) -> UpstreamRequest:
    assert PROVIDER.chat
    return PROVIDER.chat.build_request(chat(**body), target(model, **(options or {})))


def sent(model: str = "claude-sonnet-4-5", options: dict[str, Any] | None = None, /, **body: Any) -> dict[str, Any]:
    built: dict[str, Any] = json.loads(build(model, options, **body).body)
    return built


def answer(native: dict[str, Any], where: Target | None = None, /, **body: Any) -> dict[str, Any]:
    assert PROVIDER.chat
    return PROVIDER.chat.read_response(orjson.dumps(native), chat(**body), where or target(), STAMP)


def opened(where: Target | None = None, /, **body: Any) -> StreamDecoder:
    assert PROVIDER.chat
    return PROVIDER.chat.open_stream(chat(stream=True, **body), where or target(), STAMP)


def decoded(pieces: list[bytes], where: Target | None = None, /, **body: Any) -> list[dict[str, Any]]:
    """All chunks of a stream in these pieces; it must end well."""
    stream = opened(where, **body)
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    chunks += stream.finish()
    assert stream.failure is None
    assert stream.done
    return chunks


def events(*items: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (item["type"].encode(), orjson.dumps(item)) for item in items)


def streamed(message: dict[str, Any], piece: int = 7) -> bytes:
    """A whole message as the provider streams it, texts and inputs in pieces."""
    bare = {**message, "content": [], "stop_reason": None, "usage": message["usage"] | {"output_tokens": 1}}
    found = [{"type": "message_start", "message": bare}]
    for index, block in enumerate(message["content"]):
        start, deltas = _pieces(block, piece)
        found.append({"type": "content_block_start", "index": index, "content_block": start})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": message["stop_reason"], "stop_details": message.get("stop_details")}
    found += [{"type": "message_delta", "delta": end, "usage": message["usage"]}, {"type": "message_stop"}]
    return events(*found)


def _pieces(block: dict[str, Any], piece: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def cut(text: str) -> list[str]:
        return [text[at : at + piece] for at in range(0, len(text), piece)]

    if block["type"] == "text":
        cited = [{"type": "citations_delta", "citation": one} for one in block.get("citations") or ()]
        return {"type": "text", "text": ""}, cited + [{"type": "text_delta", "text": t} for t in cut(block["text"])]
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": t} for t in cut(block["thinking"])]
        start = {"type": "thinking", "thinking": "", "signature": ""}
        return start, [*deltas, {"type": "signature_delta", "signature": block["signature"]}]
    if block["type"] == "tool_use":
        text = json.dumps(block["input"]) if block["input"] else ""
        deltas = [{"type": "input_json_delta", "partial_json": t} for t in ["", *cut(text)]]
        return {**block, "input": {}}, deltas
    return block, []


def accumulated(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The final object that OpenAI's own accumulator makes of the chunks."""
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.current_completion_snapshot.model_dump()


def plain(completion: dict[str, Any]) -> dict[str, Any]:
    """What a whole answer and an accumulated stream must have in common."""
    (choice,) = completion["choices"]
    message = choice["message"]
    calls = [
        {name: value for name, value in call.items() if name != "index" and value is not None}
        for call in message.get("tool_calls") or ()
    ]
    for call in calls:
        if "function" in call:
            function = call["function"]
            call["function"] = {"name": function["name"], "arguments": json.loads(function["arguments"])}
    listed = {
        name: [{key: value for key, value in item.items() if key != "index"} for item in message.get(name) or ()]
        for name in ("thinking_blocks", "annotations")
    }
    usage = completion.get("usage")
    return {
        "id": completion["id"],
        "model": completion["model"],
        "finish": choice["finish_reason"],
        "content": message.get("content") or "",
        "refusal": message.get("refusal"),
        "reasoning": message.get("reasoning_content"),
        "calls": calls,
        **listed,
        "usage": usage and {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
    }
