"""What the tests of this plugin share: targets, requests, frames."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import yaml

from gateway.abilities import abilities
from gateway.contract import Stamp, StreamDecoder, Target, UpstreamRequest
from gateway.envelope import Envelope, open_envelope
from gateway.eventstream import encode
from gateway.hub import Json
from plugins.bedrock import PROVIDER
from tests.plugins.bedrock.rules import check

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
SONNET_46 = "us.anthropic.claude-sonnet-4-6"
OPUS_48 = "global.anthropic.claude-opus-4-8"
NOVA = "us.amazon.nova-2-lite-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
MISTRAL = "mistral.mistral-large-2407-v1:0"
GPT_OSS = "openai.gpt-oss-120b-1:0"
BASE = "https://bedrock-runtime.us-east-1.amazonaws.com"
STAMP = Stamp("abc", 1_764_000_000)

WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK: list[Json] = [{"role": "user", "content": "Hi"}]


@cache
def rows() -> list[Json]:
    """The plugin's own capability data."""
    found: list[Json] = yaml.safe_load((Path(__file__).resolve().parents[3] / PROVIDER.models).read_text())
    return found


def target(model: str = CLAUDE, **changes: Any) -> Target:
    """A target as the configuration would make it."""
    known = {"family": model, "options": {"region": "us-east-1"}, "abilities": abilities(rows(), model), **changes}
    return Target("bedrock", model, BASE, **known)


def chat(request: Json | None = None, *, headers: dict[str, str] | None = None, **params: Any) -> Envelope:
    """A client's request."""
    body = {"model": "m", "messages": ASK, **(request or {}), **params}
    return open_envelope(orjson.dumps(body), headers or {})


def build(model: str = CLAUDE, request: Json | None = None, **params: Any) -> Json:
    """The Converse body that a request becomes."""
    body: Json = orjson.loads(built(target(model), request, **params).body)
    return body


def built(where: Target, request: Json | None = None, **params: Any) -> UpstreamRequest:
    assert PROVIDER.chat is not None
    return PROVIDER.chat.build_request(chat(request, **params), where)


def read(answer: Json, model: str = CLAUDE, where: Target | None = None, **params: Any) -> Json:
    """The completion that an answer becomes."""
    assert PROVIDER.chat is not None
    return PROVIDER.chat.read_response(orjson.dumps(answer), chat(**params), where or target(model), STAMP)


def opened(model: str = CLAUDE, where: Target | None = None, **params: Any) -> StreamDecoder:
    assert PROVIDER.chat is not None
    return PROVIDER.chat.open_stream(chat(stream=True, **params), where or target(model), STAMP)


def event(kind: str, payload: Json) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encode(headers, orjson.dumps({**payload, "p": "abcdef"}))


def exception(kind: str, message: str) -> bytes:
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return encode(headers, orjson.dumps({"message": message}))


def frames(*events: tuple[str, Json]) -> bytes:
    return b"".join(event(kind, payload) for kind, payload in events)


def chunks_of(decoder: StreamDecoder, pieces: Iterable[bytes]) -> list[Json]:
    """All chunks of a healthy stream."""
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    chunks += decoder.finish()
    assert decoder.failure is None
    assert decoder.done
    return chunks


def deltas(chunks: list[Json]) -> list[Json]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def accumulated(chunks: list[Json]) -> Json:
    """What OpenAI's own client makes of the chunks."""
    from openai.lib.streaming.chat import ChatCompletionStreamState
    from openai.types.chat import ChatCompletionChunk

    state: Any = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    snapshot: Json = state.current_completion_snapshot.model_dump(exclude_unset=True)
    return snapshot


# Extensions of the hub that OpenAI's schema does not know.
OURS = ("reasoning_content", "thinking_blocks", "native_finish_reason", "annotations")


def plain(value: Any) -> Any:
    """The same without our extensions."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items() if name not in OURS}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


MODELS = (CLAUDE, SONNET_46, OPUS_48, NOVA, LLAMA, MISTRAL, GPT_OSS, "acme.private")
PNG = "data:image/png;base64,iVBORw0="
PDF = {"type": "file", "file": {"filename": "my secret.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}}
CALL = {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": '{"z":1}'}}
RESULT = {"role": "tool", "tool_call_id": "call_a", "content": "a cat"}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "Sig"}
SYSTEM = {"role": "system", "content": "Be brief"}


def says(role: str, content: Any, **more: Any) -> Json:
    """One message."""
    return {"role": role, "content": content, **more}


def turns(*messages: Json, model: str = CLAUDE, **params: Any) -> list[Json]:
    """The turns that messages become, once they passed the rules."""
    body = build(model, messages=list(messages), **params)
    check(body)
    found: list[Json] = body["messages"]
    return found


MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
POINT = {"cachePoint": {"type": "default"}}
