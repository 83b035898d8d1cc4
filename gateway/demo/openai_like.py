"""OpenAI's chat completions as OpenAI, Azure, Together, Fireworks and xAI write them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.demo import openai_rules
from gateway.demo.answers import (
    ANY_JSON,
    Answer,
    Ask,
    Call,
    Tool,
    canonical,
    halves,
    interleaved,
    pieces,
    prompt_tokens,
    text_of,
)
from gateway.demo.flavours import FLAVOURS, Flavour
from gateway.demo.turns import current
from gateway.demo.wire import Incoming, Place, Refused, Reply, Wire, data, dump
from gateway.hub import CHUNK, COMPLETION, Json

DONE = b"data: [DONE]\n\n"


def read(incoming: Incoming) -> Ask:
    """What the request asks for."""
    body, flavour = incoming.body, FLAVOURS[incoming.provider]
    if incoming.operation == "deployment":
        if "api-version" not in incoming.query:
            raise Refused("Resource not found", 404, code="404")
        body = {**body, "model": incoming.model}
    openai_rules.check(body, flavour.name)
    effort = body.get("reasoning_effort")
    said, turn = current(body["messages"], _spoken)
    return Ask(
        provider=incoming.provider,
        model=body["model"],
        serial=incoming.serial,
        stream=body.get("stream") is True,
        text=text_of((said or body["messages"][-1]).get("content")),
        prompt=prompt_tokens([body["messages"], body.get("tools")]),
        tools=_tools(body),
        choice=_choice(body),
        parallel=body.get("parallel_tool_calls") is not False,
        results=tuple(text_of(message["content"]) for message in turn if message["role"] == "tool"),
        rounds=sum(bool(message.get("tool_calls")) for message in turn),
        schema=_schema(body.get("response_format") or {}),
        stop=_stops(body.get("stop")),
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        thinking=effort not in (None, "none", False),
        count=body.get("n") or 1,
        options=body,
    )


def _spoken(message: Json) -> bool:
    return bool(message["role"] == "user")


def _tools(body: Json) -> tuple[Tool, ...]:
    functions = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    functions += body.get("functions") or ()
    return tuple(Tool(function["name"], function.get("parameters") or {}) for function in functions)


def _choice(body: Json) -> str:
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if "allowed_tools" in choice:
            return str(choice["allowed_tools"].get("mode", "auto"))
        return "=" + str(choice.get("function", {}).get("name", ""))
    return choice or "auto"


def _schema(wanted: Json) -> Mapping[str, Any] | None:
    if wanted.get("type") == "json_schema":
        return dict(wanted["json_schema"].get("schema") or {})
    if wanted.get("type") == "json_object":
        return dict(wanted.get("schema") or ANY_JSON)
    return None


def _stops(stop: object) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else ()


def head(ask: Ask, kind: str) -> Json:
    """What every object of one answer begins with."""
    flavour = FLAVOURS[ask.provider]
    made = {"id": f"{flavour.id_prefix}{ask.serial:08d}", "object": kind, "created": int(time.time())}
    return {**made, "model": ask.model, **flavour.extra}


def whole(ask: Ask, answers: Sequence[Answer]) -> Reply:
    """The answer in one piece."""
    flavour = FLAVOURS[ask.provider]
    choices = [_whole_choice(ask, flavour, number, answer) for number, answer in enumerate(answers)]
    made = {**head(ask, COMPLETION), "choices": choices, "usage": flavour.usage(ask, answers)}
    return Reply(200, dump({**made, **flavour.whole_extra}))


def _whole_choice(ask: Ask, flavour: Flavour, number: int, answer: Answer) -> Json:
    message: Json = {"role": "assistant", "content": answer.text or (None if answer.calls else "")}
    message.update(flavour.message_extra)
    if answer.thinking and flavour.thoughts:
        message[flavour.thoughts] = answer.thinking
    if answer.calls:
        message["tool_calls"] = [_call(ask, at, call) for at, call in enumerate(answer.calls)]
    choice: Json = {"index": number, "message": message, "finish_reason": _finish(flavour, answer)}
    if flavour.logprobs is not None:
        choice["logprobs"] = flavour.logprobs(ask, answer.text, ask.stream)
    return {**choice, **flavour.choice_extra}


def _finish(flavour: Flavour, answer: Answer) -> str:
    reason = "stop" if answer.finish == "stop_sequence" else answer.finish
    return flavour.finishes.get(reason, reason)


def _call(ask: Ask, at: int, call: Call) -> Json:
    function = {"name": call.name, "arguments": canonical(call.arguments)}
    return {"id": call_id(ask, at), "type": "function", "function": function}


def call_id(ask: Ask, at: int) -> str:
    """A tool call's id, another one in every answer."""
    return f"call_{ask.serial:08d}demo{at}"


def stream(ask: Ask, answers: Sequence[Answer]) -> Iterator[bytes]:
    """The answer as events: roles first, the choices interleaved, then their ends, usage and [DONE]."""
    flavour = FLAVOURS[ask.provider]
    frame = head(ask, CHUNK)
    if flavour.opening is not None:
        yield data(flavour.opening)
    for number, delta in interleaved([_deltas(ask, flavour, answer) for answer in answers]):
        yield _event(ask, flavour, frame, number, delta)
    for number, answer in enumerate(answers):
        last = flavour.usage(ask, answers) if number == len(answers) - 1 else None
        yield _end(ask, flavour, frame, number, answer, last)
    if flavour.closing is not None:
        yield data(flavour.closing)
    if _wants_usage(ask) and not flavour.usage_at_end:
        yield data({**frame, "choices": [], "usage": flavour.usage(ask, answers), **_padding(ask, flavour)})
    yield DONE


def _wants_usage(ask: Ask) -> bool:
    return bool((ask.options.get("stream_options") or {}).get("include_usage"))


def _deltas(ask: Ask, flavour: Flavour, answer: Answer) -> list[Json]:
    deltas: list[Json] = [] if flavour.role_everywhere else [dict(flavour.first_delta)]
    if answer.thinking and flavour.thoughts:
        deltas += [{flavour.thoughts: piece} for piece in pieces(answer.thinking, ask)]
    size = 1 if ask.options.get("logprobs") else 3
    deltas += [{"content": piece} for piece in pieces(answer.text, ask, size)]
    for at, call in enumerate(answer.calls):
        deltas += flavour.call_deltas(at, _call(ask, at, call), halves(canonical(call.arguments)))
    if flavour.role_everywhere:
        deltas = [{"token_id": 42, "role": "assistant", "content": "", **delta} for delta in deltas]
    return deltas


def _event(ask: Ask, flavour: Flavour, frame: Json, number: int, delta: Json) -> bytes:
    choice: Json = {"index": number, "delta": delta, **flavour.chunk_choice_extra}
    if flavour.finish_null:
        choice["finish_reason"] = None
    if flavour.logprobs is not None:
        choice["logprobs"] = flavour.logprobs(ask, delta.get("content") or "", True)
    if flavour.role_everywhere:
        choice["text"] = delta.get("content", "")
    return data({**frame, "choices": [choice], **_usage_null(ask, flavour), **_padding(ask, flavour)})


def _end(ask: Ask, flavour: Flavour, frame: Json, number: int, answer: Answer, usage: Json | None) -> bytes:
    delta: Json = {"token_id": 0, "role": "assistant", "content": ""} if flavour.role_everywhere else {}
    choice = {"index": number, "delta": delta, **flavour.chunk_choice_extra}
    reason = _finish(flavour, answer)
    choice["finish_reason"] = flavour.stream_finishes.get(reason, reason)
    made = {**frame, "choices": [choice], **_usage_null(ask, flavour), **_padding(ask, flavour)}
    if usage is not None and flavour.usage_at_end:
        made["usage"] = usage
    return data(made)


def _usage_null(ask: Ask, flavour: Flavour) -> Json:
    return {"usage": None} if flavour.usage_at_end or (flavour.usage_null and _wants_usage(ask)) else {}


def _padding(ask: Ask, flavour: Flavour) -> Json:
    wanted = (ask.options.get("stream_options") or {}).get("include_obfuscation") is not False
    return {"obfuscation": "dEm0pAd"[: 1 + ask.serial % 7]} if flavour.padded and wanted else {}


def refuse(refused: Refused, place: Place) -> Reply:
    """The error as this provider writes it."""
    flavour = FLAVOURS[place.provider]
    headers = {"x-request-id": "req_demo"}
    if refused.status == 429:
        headers.update(flavour.retry_headers)
    return Reply(refused.status, dump(flavour.error(refused)), headers)


TROUBLES: dict[str, Refused] = {
    "fail": Refused("The server had an error while processing your request.", 500, kind="server_error"),
    "overloaded": Refused("Rate limit reached for this model.", 429, kind="requests", code="rate_limit_exceeded"),
    "busy": Refused("That model is currently overloaded.", 503, kind="service_unavailable"),
    "error400": Refused("The demo refuses this on purpose.", 400, code="invalid_value", param="messages"),
    "auth": Refused("Incorrect API key provided: sk-de***mo.", 401, code="invalid_api_key"),
    "forbidden": Refused("You are not allowed to use this model.", 403, kind="permission_error"),
    "missing": Refused("The model does not exist or you do not have access to it.", 404, code="model_not_found"),
    "context": Refused(
        "This model's maximum context length is 8 tokens. However, your messages resulted in more.",
        400,
        code="context_length_exceeded",
        param="messages",
    ),
}


def broken(ask: Ask) -> bytes:
    """An error inside a stream."""
    error = Refused("The server had an error while processing your request.", 500, kind="server_error")
    return data(FLAVOURS[ask.provider].error(error))


def filler(ask: Ask, size: int) -> bytes:
    """One text event of about `size` bytes."""
    choice = {"index": 0, "delta": {"content": "x" * size}, "finish_reason": None}
    return data({**head(ask, CHUNK), "choices": [choice]})


def headers(ask: Ask) -> Mapping[str, str]:
    """Headers that this provider adds."""
    limits = {"x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": "9999"}
    return {"x-request-id": f"req_demo{ask.serial:08d}", **limits, **FLAVOURS[ask.provider].headers}


WIRE = Wire(read, whole, stream, refuse, TROUBLES, broken, filler, headers)
