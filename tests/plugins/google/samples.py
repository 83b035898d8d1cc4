"""Requests, targets and answers that the tests of this plugin have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import yaml
from google.genai import types
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from pydantic import TypeAdapter

from gateway.abilities import abilities
from gateway.contract import Stamp, Target
from gateway.envelope import Envelope, open_envelope
from plugins.google import PROVIDER

ROWS = yaml.safe_load((Path(__file__).parents[3] / "plugins/google/models.yaml").read_text())
STAMP = Stamp("0123456789abcdef", 1_764_000_000)
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


def target(model: str = "gemini-3-flash-preview", **changes: Any) -> Target:
    """A deployment of one model on the Developer API."""
    family = changes.pop("family", model)
    base_url = changes.pop("base_url", PROVIDER.base_url)
    return Target("google", model, base_url, family, abilities=abilities(ROWS, family), **changes)


def chat(**values: Any) -> Envelope:
    """A client's request; one user message unless messages are given."""
    return open_envelope(orjson.dumps({"model": "m", "messages": HELLO, **values}))


def built(model: str = "gemini-3-flash-preview", /, **values: Any) -> dict[str, Any]:
    """The body that a request makes for one model."""
    assert PROVIDER.chat is not None
    body: dict[str, Any] = orjson.loads(PROVIDER.chat.build_request(chat(**values), target(model)).body)
    return body


def decoded(pieces: Iterable[bytes], request: Envelope | None = None, stamp: Stamp = STAMP) -> list[dict[str, Any]]:
    """The chunks of a whole stream; raises what went wrong."""
    assert PROVIDER.chat is not None
    stream = PROVIDER.chat.open_stream(request or chat(), target(), stamp)
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    if stream.failure is None:
        chunks += stream.finish()
    if stream.failure is not None:
        raise stream.failure
    return chunks


def answered(body: Any, request: Envelope | None = None) -> dict[str, Any]:
    """The completion that an answer makes."""
    assert PROVIDER.chat is not None
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return PROVIDER.chat.read_response(raw, request or chat(), target(), STAMP)


def sse(*answers: Any) -> bytes:
    """Answers as Google streams them."""
    return b"".join(b"data: " + orjson.dumps(answer) + b"\r\n\r\n" for answer in answers)


def said(*parts: Any, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """One answer with one candidate."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": index}
    return {"candidates": [{**candidate, **({"finishReason": finish} if finish else {})}], **more}


def accumulated(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What OpenAI's own client makes of the chunks."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    found: dict[str, Any] = state.current_completion_snapshot.model_dump(exclude_unset=True)
    return found


PARTS: dict[str, Any] = {
    "systemInstruction": types.Content,
    "contents": list[types.Content],
    "tools": list[types.Tool],
    "toolConfig": types.ToolConfig,
    "safetySettings": list[types.SafetySetting],
    "generationConfig": types.GenerationConfig,
    "cachedContent": str,
    "serviceTier": types.ServiceTier,
    "labels": dict[str, str],
}


def accept(body: dict[str, Any]) -> None:
    """Let Google's own types read a request; they forbid what they do not know."""
    for name, value in body.items():
        TypeAdapter(PARTS[name]).validate_python(value)
