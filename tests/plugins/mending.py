"""Chunks of OpenAI's dialect for the tests, and a way to send them through the mender."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.contract import Target
from gateway.envelope import open_envelope
from plugins.openai_mender import ChunkMender

TARGET = Target(provider="p", model="m", base_url="http://h/v1")


def chat(**fields: Any) -> Any:
    return open_envelope(orjson.dumps({"model": "m", "messages": [], **fields}))


def mender(**fields: Any) -> ChunkMender:
    return ChunkMender(chat(**fields), TARGET)


def chunk(*choices: Any, **more: Any) -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return orjson.dumps(
        {**head, "choices": [{"index": 0, "finish_reason": None, **choice} for choice in choices], **more}
    )


def through(opened: ChunkMender, *payloads: bytes) -> list[Any]:
    kept = [new for payload in payloads if (new := opened.chunk(payload)) is not None]
    return [orjson.loads(payload) for payload in kept + opened.finish()]


def call(index: Any = 0, **more: Any) -> dict[str, Any]:
    return {"delta": {"tool_calls": [{"index": index, **more}]}}


def calls_of(chunks: list[Any]) -> list[dict[str, Any]]:
    return [entry for one in chunks for choice in one["choices"] for entry in choice["delta"].get("tool_calls", ())]
