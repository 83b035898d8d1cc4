"""Anthropic's Messages API: JSON and named server-sent events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.demo import anthropic_rules
from gateway.demo.answers import Answer, Ask, Tool, canonical, halves, pieces, prompt_tokens, seal, text_of
from gateway.demo.steering import switch_of
from gateway.demo.turns import current
from gateway.demo.wire import Incoming, Place, Refused, Reply, Wire, dump
from gateway.hub import Json

STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    529: "overloaded_error",
}


def read(incoming: Incoming) -> Ask:
    """What the request asks for."""
    body = incoming.body
    if "anthropic-version" not in incoming.headers:
        raise Refused("anthropic-version: header is required")
    anthropic_rules.check(body, incoming.headers["anthropic-version"])
    choice = body.get("tool_choice") or {"type": "auto"}
    said, turn = current(body["messages"], _spoken, _answers)
    wanted = (body.get("output_config") or {}).get("format")
    return Ask(
        provider="anthropic",
        model=body["model"],
        serial=incoming.serial,
        stream=body.get("stream") is True,
        text=text_of(said and said["content"]),
        prompt=prompt_tokens([body["messages"], body.get("system"), body.get("tools")]),
        tools=tuple(
            Tool(tool["name"], tool["input_schema"]) for tool in body.get("tools") or () if "input_schema" in tool
        ),
        choice=_choice(choice),
        parallel=not choice.get("disable_parallel_tool_use", False),
        results=tuple(_results(turn)),
        rounds=sum(message["role"] == "assistant" for message in turn),
        schema=wanted and wanted["schema"],
        stop=tuple(body.get("stop_sequences") or ()),
        max_tokens=body["max_tokens"],
        thinking=anthropic_rules.thinks(body),
        prefaced=True,
        options=body,
    )


def _choice(choice: Mapping[str, Any]) -> str:
    return {"any": "required", "tool": f"={choice.get('name')}"}.get(choice["type"], str(choice["type"]))


def _spoken(message: Json) -> bool:
    content = message["content"]
    return message["role"] == "user" and (
        isinstance(content, str) or any(block["type"] != "tool_result" for block in content)
    )


def _answers(message: Json) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(block["type"] == "tool_result" for block in content)


def _results(turn: Sequence[Json]) -> Iterator[str]:
    for message in turn:
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_result":
                yield text_of(block.get("content") or "")


def _usage(ask: Ask, answer: Answer) -> Json:
    return {
        "input_tokens": ask.prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": answer.tokens + answer.reasoning,
        "service_tier": "standard",
    }


def _frame(ask: Ask, content: list[Json], stop: Json, usage: Json) -> Json:
    made = {"id": f"msg_demo{ask.serial:08d}", "type": "message", "role": "assistant", "model": ask.model}
    return {**made, "content": content, **stop, "usage": usage}


def _stop(answer: Answer) -> Json:
    return {"stop_reason": STOPS.get(answer.finish, answer.finish), "stop_sequence": answer.stopped_by}


def _content(ask: Ask, answer: Answer) -> list[Json]:
    content: list[Json] = []
    if answer.thinking:
        content.append(_thought(ask, answer))
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    for at, call in enumerate(answer.calls):
        content.append({"type": "tool_use", "id": _call_id(ask, at), "name": call.name, "input": call.arguments})
    return content


def _thought(ask: Ask, answer: Answer) -> Json:
    if switch_of(ask.model).name == "redacted":
        return {"type": "redacted_thinking", "data": seal("anthropic", "redacted")}
    # An omitted thought is signed as the empty text that the client gets to see.
    said = "" if ask.options.get("thinking", {}).get("display") == "omitted" else answer.thinking
    return {"type": "thinking", "thinking": said, "signature": seal("anthropic", said)}


def _call_id(ask: Ask, at: int) -> str:
    return f"toolu_{ask.serial:08d}demo{at}"


def whole(ask: Ask, answers: Sequence[Answer]) -> Reply:
    """The answer in one piece."""
    answer = answers[0]
    return Reply(200, dump(_frame(ask, _content(ask, answer), _stop(answer), _usage(ask, answer))))


def stream(ask: Ask, answers: Sequence[Answer]) -> Iterator[bytes]:
    """The answer as events."""
    answer = answers[0]
    blank = {"stop_reason": None, "stop_sequence": None}
    yield _event("message_start", message=_frame(ask, [], blank, {**_usage(ask, answer), "output_tokens": 1}))
    for index, block in enumerate(_content(ask, answer)):
        start, deltas = _open(ask, block)
        yield _event("content_block_start", index=index, content_block=start)
        if index == 0:
            yield _event("ping")
        for delta in deltas:
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    # Two in three streams say the input tokens again here, the others do not.
    usage = _usage(ask, answer) if ask.serial % 3 else {"output_tokens": answer.tokens + answer.reasoning}
    yield _event("message_delta", delta=_stop(answer), usage=usage)
    yield _event("message_stop")


def _open(ask: Ask, block: Json) -> tuple[Json, list[Json]]:
    """How a block starts, and the deltas that fill it."""
    kind = block["type"]
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"], ask)]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": kind, "thinking": "", "signature": ""}, [*deltas, signed]
    if kind == "text":
        return {"type": kind, "text": ""}, [
            {"type": "text_delta", "text": piece} for piece in pieces(block["text"], ask)
        ]
    if kind == "redacted_thinking":
        return block, []
    # A call without arguments has one empty piece and nothing more.
    parts = ["", *(halves(canonical(block["input"])) if block["input"] else [])]
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]


def _event(kind: str, **members: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + dump({"type": kind, **members}) + b"\n\n"


def refuse(refused: Refused, place: Place) -> Reply:
    """The error as Anthropic writes it."""
    error = {"type": KINDS.get(refused.status, "api_error"), "message": refused.message}
    headers = {"request-id": "req_demo", "x-should-retry": "true" if refused.status >= 429 else "false"}
    if refused.status == 429:
        headers["retry-after"] = "2"
    return Reply(refused.status, dump({"type": "error", "error": error, "request_id": "req_demo"}), headers)


TROUBLES: dict[str, Refused] = {
    "fail": Refused("Internal server error", 500),
    "overloaded": Refused("Overloaded", 529),
    "busy": Refused("This request would exceed your account's rate limit.", 429),
    "error400": Refused("messages: the demo refuses this on purpose", 400),
    "auth": Refused("invalid x-api-key", 401),
    "forbidden": Refused("Your API key does not have permission to use the specified resource.", 403),
    "missing": Refused("model: no such model in this demo", 404),
    "context": Refused("prompt is too long: 9 tokens > 8 maximum", 400),
}


def broken(ask: Ask) -> bytes:
    """An error inside a stream."""
    return _event("error", error={"type": "overloaded_error", "message": "Overloaded"}, request_id="req_demo")


def filler(ask: Ask, size: int) -> bytes:
    """One text event of about `size` bytes."""
    return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * size})


def headers(ask: Ask) -> Mapping[str, str]:
    """Headers that Anthropic adds."""
    limits = {"anthropic-ratelimit-requests-limit": "4000", "anthropic-ratelimit-requests-remaining": "3999"}
    return {"request-id": f"req_demo{ask.serial:08d}", **limits}


WIRE = Wire(read, whole, stream, refuse, TROUBLES, broken, filler, headers)
