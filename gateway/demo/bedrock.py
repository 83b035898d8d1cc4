"""Bedrock's Converse: JSON, and event streams in AWS's binary framing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.demo import bedrock_rules
from gateway.demo.answers import Answer, Ask, Tool, canonical, halves, pieces, prompt_tokens, seal, text_of
from gateway.demo.steering import switch_of
from gateway.demo.turns import current
from gateway.demo.wire import Incoming, Place, Refused, Reply, Wire, dump
from gateway.eventstream import encode
from gateway.hub import Json

STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "guardrail_intervened",
}
KINDS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def read(incoming: Incoming) -> Ask:
    """What the request asks for."""
    body = incoming.body
    bedrock_rules.check(body, incoming.model)
    limits = body.get("inferenceConfig") or {}
    config = body.get("toolConfig") or {}
    messages = body["messages"]
    said, turn = current(messages, _spoken, _answers)
    return Ask(
        provider="bedrock",
        model=incoming.model,
        serial=incoming.serial,
        stream=incoming.operation == "converse-stream",
        text=text_of(said and said["content"]),
        prompt=prompt_tokens([messages, body.get("system"), config]),
        tools=tuple(_tool(each["toolSpec"]) for each in config.get("tools", ()) if "toolSpec" in each),
        choice=_choice(config.get("toolChoice") or {}),
        parallel=not _alone(body),
        results=tuple(_results(turn)),
        rounds=sum(message["role"] == "assistant" for message in turn),
        schema=bedrock_rules.schema_of(body),
        stop=tuple(limits.get("stopSequences") or ()),
        max_tokens=limits.get("maxTokens"),
        thinking=bedrock_rules.thinks(body),
        prefaced=True,
    )


def _tool(spec: Json) -> Tool:
    return Tool(spec["name"], spec["inputSchema"]["json"])


def _alone(body: Json) -> bool:
    choice = (body.get("additionalModelRequestFields") or {}).get("tool_choice") or {}
    return bool(choice.get("disable_parallel_tool_use"))


def _choice(choice: Mapping[str, Any]) -> str:
    if "tool" in choice:
        return f"={choice['tool']['name']}"
    return "required" if "any" in choice else "auto"


def _spoken(message: Json) -> bool:
    return message["role"] == "user" and any("text" in block or "image" in block for block in message["content"])


def _answers(message: Json) -> bool:
    return any("toolResult" in block for block in message["content"])


def _results(turn: Sequence[Json]) -> Iterator[str]:
    for message in turn:
        for block in message["content"]:
            if "toolResult" in block:
                content = block["toolResult"]["content"]
                yield text_of(content) or " ".join(canonical(each["json"]) for each in content if "json" in each)


def _usage(ask: Ask, answer: Answer) -> Json:
    said = answer.tokens + answer.reasoning
    made = {"inputTokens": ask.prompt, "outputTokens": said, "totalTokens": ask.prompt + said}
    zero = ("cacheReadInputTokens", "cacheReadInputTokenCount", "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    return {**made, **dict.fromkeys(zero, 0)}


def _content(ask: Ask, answer: Answer) -> list[Json]:
    content: list[Json] = []
    if answer.thinking:
        content.append({"reasoningContent": _thought(ask, answer)})
    if answer.text:
        content.append({"text": answer.text})
    for at, call in enumerate(answer.calls):
        made = {"toolUseId": f"tooluse_{ask.serial:08d}demo{at}", "name": call.name, "input": call.arguments}
        content.append({"toolUse": made})
    return content


def _thought(ask: Ask, answer: Answer) -> Json:
    if switch_of(ask.model).name == "redacted":
        return {"redactedContent": seal("bedrock", "redacted")}
    return {"reasoningText": {"text": answer.thinking, "signature": seal("bedrock", answer.thinking)}}


def whole(ask: Ask, answers: Sequence[Answer]) -> Reply:
    """The answer in one piece."""
    answer = answers[0]
    message = {"role": "assistant", "content": _content(ask, answer)}
    made = {"output": {"message": message}, "stopReason": STOPS.get(answer.finish, answer.finish)}
    return Reply(200, dump({**made, "usage": _usage(ask, answer), "metrics": {"latencyMs": 20}}))


def stream(ask: Ask, answers: Sequence[Answer]) -> Iterator[bytes]:
    """The answer as frames; text and thoughts start without a start, usage comes after the stop."""
    answer = answers[0]
    yield _frame("messageStart", {"role": "assistant"})
    for index, block in enumerate(_content(ask, answer)):
        start, deltas = _open(ask, block)
        if start is not None:
            yield _frame("contentBlockStart", {"contentBlockIndex": index, "start": start})
        for delta in deltas:
            yield _frame("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})
        yield _frame("contentBlockStop", {"contentBlockIndex": index})
    yield _frame("messageStop", {"stopReason": STOPS.get(answer.finish, answer.finish)})
    yield _frame("metadata", {"usage": _usage(ask, answer), "metrics": {"latencyMs": 20}})


def _open(ask: Ask, block: Json) -> tuple[Json | None, list[Json]]:
    """How a block starts, if it does, and the deltas that fill it."""
    if "toolUse" in block:
        call = block["toolUse"]
        parts = halves(canonical(call["input"])) if call["input"] else []
        start = {"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}
        return start, [{"toolUse": {"input": part}} for part in parts]
    if "text" in block:
        return None, [{"text": piece} for piece in pieces(block["text"], ask)]
    thought = block["reasoningContent"]
    if "redactedContent" in thought:
        return None, [{"reasoningContent": thought}]
    said = thought["reasoningText"]
    deltas = [{"reasoningContent": {"text": piece}} for piece in pieces(said["text"], ask)]
    return None, [*deltas, {"reasoningContent": {"signature": said["signature"]}}]


def _frame(kind: str, payload: Json, message: str = "event") -> bytes:
    headers = {f":{message}-type": kind, ":content-type": "application/json", ":message-type": message}
    body = dump(payload)
    padded = {**payload, "p": PADDING[: 1 + len(body) % len(PADDING)]} if message == "event" else payload
    return encode(headers, dump(padded))


def refuse(refused: Refused, place: Place) -> Reply:
    """The error as AWS writes it: the kind in a header, the message in the body."""
    kind = refused.kind or KINDS.get(refused.status, "InternalServerException")
    tail = ":http://internal.amazon.com/coral/com.amazon.bedrock/"
    headers = {"x-amzn-errortype": kind + tail, "x-amzn-requestid": "00000000-0000-4000-8000-00000000demo"}
    return Reply(refused.status, dump({"message": refused.message}), headers)


TROUBLES: dict[str, Refused] = {
    "fail": Refused("The system encountered an unexpected error during processing. Try your request again.", 500),
    "overloaded": Refused("Too many requests, please wait before trying again.", 429),
    "busy": Refused("Bedrock is unable to process your request.", 503),
    "error400": Refused("The demo refuses this on purpose.", 400),
    "auth": Refused("The security token included in the request is invalid.", 403, kind="UnrecognizedClientException"),
    "forbidden": Refused("You don't have access to the model with the specified model ID.", 403),
    "missing": Refused("The provided model identifier is invalid.", 400),
    "context": Refused("Input is too long for requested model.", 400),
}


def broken(ask: Ask) -> bytes:
    """An error inside a stream."""
    return _frame("throttlingException", {"message": "Too many requests"}, "exception")


def filler(ask: Ask, size: int) -> bytes:
    """One text event of about `size` bytes."""
    return _frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "x" * size}})


def headers(ask: Ask) -> Mapping[str, str]:
    """Headers that AWS adds."""
    return {"x-amzn-requestid": f"00000000-0000-4000-8000-{ask.serial:012d}"}


WIRE = Wire(read, whole, stream, refuse, TROUBLES, broken, filler, headers, "application/vnd.amazon.eventstream")
