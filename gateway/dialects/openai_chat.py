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

    __slots__ = ("_legacy", "_wants_usage")

    def __init__(self, chat: ChatRequest) -> None:
        self._wants_usage = chat.wants_usage
        self._legacy = speaks_functions(chat)

    def feed(self, chunk: Json) -> bytes:
        """One chunk as an event."""
        if not self._wants_usage and not chunk["choices"]:
            return b""
        if self._legacy:
            choices = [_old_choice(choice, "delta") for choice in chunk["choices"]]
            chunk = {**chunk, "choices": [choice for choice in choices if choice is not None]}
            if not chunk["choices"] and not chunk.get("usage"):
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
    if speaks_functions(chat):
        completion = {**completion, "choices": [_old_choice(choice, "message") for choice in completion["choices"]]}
    return orjson.dumps(completion)


def speaks_functions(chat: ChatRequest) -> bool:
    """Does the client use `functions`, the form that tools had before, and so expects a `function_call`?"""
    return bool(chat.get("functions")) and not chat.get("tools")


def _old_choice(choice: Json, part: str) -> Json | None:
    """A choice with its first tool call as `function_call`, which has room for one; None for a delta of the others."""
    said = choice.get(part) or {}
    if choice.get("finish_reason") == "tool_calls":
        choice = {**choice, "finish_reason": "function_call"}
    calls = said.get("tool_calls")
    if not calls:
        return choice
    rest = {name: value for name, value in said.items() if name != "tool_calls"}
    first = next((call["function"] for call in calls if call.get("index", 0) == 0 and "function" in call), None)
    if first is not None:
        return {**choice, part: {**rest, "function_call": first}}
    return {**choice, part: rest} if rest or choice.get("finish_reason") else None


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
