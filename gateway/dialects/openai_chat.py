"""OpenAI Chat Completions, as clients speak it."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from gateway.contract import ChatRequest, Dialect
from gateway.envelope import open_envelope
from gateway.errors import BadUpstreamResponse, GatewayError, InvalidRequest
from gateway.hub import CHUNK, Json
from gateway.sse import event

NAME = "openai.chat"


class Encoder:
    """Hub chunks to events; the usage chunk goes out only to a client that asked for it."""

    __slots__ = ("_wants_usage",)

    def __init__(self, chat: ChatRequest) -> None:
        self._wants_usage = chat.wants_usage

    def feed(self, chunk: Json) -> bytes:
        """One chunk as an event."""
        if not self._wants_usage and not chunk["choices"]:
            return b""
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def fail(self, error: GatewayError) -> bytes:
        """An error as the stream's last event."""
        return event(orjson.dumps(error.body()))

    def finish(self) -> bytes:
        """The end of a healthy stream."""
        return b"data: [DONE]\n\n"


def open_request(body: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """Open a client's body one level deep; raises InvalidRequest."""
    chat = open_envelope(body, headers)
    if "messages" not in chat.names():
        raise InvalidRequest(
            "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter"
        )
    return chat


def write_response(completion: Json, chat: ChatRequest) -> bytes:
    """A whole chat completion as the client's body."""
    return orjson.dumps(completion)


def write_error(error: GatewayError) -> bytes:
    """An error as a whole body."""
    return orjson.dumps(error.body())


def chunks_of(body: bytes) -> list[Json]:
    """The chunks of a stream that tells the same as a whole chat completion; raises BadUpstreamResponse."""
    try:
        whole = orjson.loads(body)
        base = {"id": whole["id"], "object": CHUNK, "created": whole["created"], "model": whole["model"]}
        chunks = [_chunk(base, choice) for choice in whole["choices"]]
        ends = [{**base, "choices": [_end(choice)]} for choice in whole["choices"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadUpstreamResponse("The provider answered a stream request with an unreadable body.") from error
    usage = [{**base, "choices": [], "usage": whole["usage"]}] if whole.get("usage") else []
    return chunks + ends + usage


def _chunk(base: Json, choice: Json) -> Json:
    delta = {**choice["message"]}
    if calls := delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    return {**base, "choices": [{"index": choice["index"], "delta": delta, "finish_reason": None}]}


def _end(choice: Json) -> Json:
    return {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}


DIALECT = Dialect(
    name=NAME,
    path="/v1/chat/completions",
    open_request=open_request,
    write_response=write_response,
    open_stream=Encoder,
    write_error=write_error,
)
