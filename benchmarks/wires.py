"""The bytes of the benchmark: what clients ask, and what the upstream answers in each provider's format."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]
# The upstream writes the time over the zeros when it sends the event.
STAMP = "@T" + "0" * 16
TEXT = "The signing key is rotated in two steps, and neither of them needs a window. " * 12
OPENAI_HEADERS = {
    "Date": "Mon, 23 Nov 2026 09:00:00 GMT",
    "Connection": "keep-alive",
    "openai-organization": "org-benchmark",
    "openai-processing-ms": "312",
    "openai-version": "2020-10-01",
    "x-envoy-upstream-service-time": "318",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "1999210",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "23ms",
    "x-request-id": "req_3d1f0c2b7a9e4f5586c1d2e3f4a5b6c7",
}
PLAIN_HEADERS = {"Date": OPENAI_HEADERS["Date"], "Connection": "keep-alive", "request-id": "req_011CUbenchmark"}
# Name of the answer, a part of the path that asks for it, and when it streams.
ROUTES = (
    ("anthropic", "/messages", "asked"),
    ("google", ":streamGenerateContent", "stream"),
    ("google", ":generateContent", "whole"),
    ("bedrock", "/converse-stream", "stream"),
    ("bedrock", "/converse", "whole"),
    ("openai", "/chat/completions", "asked"),
)
CONVERSATION = (
    ("system", "You answer questions about our documentation. Be brief, name the page, say so when none fits." * 2),
    (
        "user",
        "How do I rotate the signing key of the staging cluster without downtime? The runbook of last year refers to "
        "a tool that is gone, and its second step fails with a message about the quorum of the key service.",
    ),
    ("assistant", "That runbook was replaced in March. Which generation of clusters is it, and which region?"),
    ("user", "The second, in the west. What stands in front of it must not be restarted before Thursday."),
)


def chat(model: str, *, stream: bool = False, padding: int = 0) -> bytes:
    """A client's request body; `padding`: bytes of a document in front of the last question."""
    messages = [{"role": role, "content": content} for role, content in CONVERSATION]
    if padding:
        messages.insert(1, {"role": "user", "content": (TEXT * (padding // len(TEXT) + 1))[:padding]})
    asked: dict[str, Any] = {"model": model, "stream": True} if stream else {"model": model}
    asked |= {"messages": messages, "temperature": 0.2, "max_tokens": 512, "user": "user-4821"}
    if stream:
        asked["stream_options"] = {"include_usage": True}
    return compact(asked)


def request(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole request as a client sends it."""
    lines = {
        "Host": "127.0.0.1",
        "Accept": "application/json",
        "User-Agent": "benchmark",
        "Content-Type": "application/json",
        **headers,
        "Content-Length": str(len(body)),
    }
    return f"POST {path} HTTP/1.1\r\n{_lines(lines)}\r\n".encode() + body


def write_answers(folder: Path) -> None:
    """All that the upstream reads when it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "routes").write_text("".join(f"{name} {needle} {when}\n" for name, needle, when in ROUTES))
    for name, (kind, whole, (first, event, last)) in _answers().items():
        headers = OPENAI_HEADERS if name == "openai" else PLAIN_HEADERS
        parts = {
            "whole": _head({**headers, "Content-Type": "application/json", "Content-Length": str(len(whole))}) + whole,
            "head": _head({**headers, "Content-Type": kind, "Transfer-Encoding": "chunked"}) + _chunks(first),
            "event": _chunks([event]),
            "tail": _chunks(last) + b"0\r\n\r\n",
        }
        for part, data in parts.items():
            (folder / f"{name}.{part}").write_bytes(data)


Events = tuple[list[bytes], bytes, list[bytes]]


def _answers() -> dict[str, tuple[str, bytes, Events]]:
    """By name: the stream's content type, the whole answer, and the stream's first, repeated and last events."""
    return {
        "openai": ("text/event-stream; charset=utf-8", *_openai()),
        "anthropic": ("text/event-stream; charset=utf-8", *_anthropic()),
        "google": ("text/event-stream", *_google()),
        "bedrock": ("application/vnd.amazon.eventstream", *_bedrock()),
    }


def _openai() -> tuple[bytes, Events]:
    said = {"id": "chatcmpl-CfBenchmark0000000000000000", "created": 1795372800, "model": "gpt-4o-mini-2024-07-18"}
    tail = {"service_tier": "default", "system_fingerprint": "fp_0f57af5ab2"}
    tokens = {"prompt_tokens": 92, "completion_tokens": 210, "total_tokens": 302}
    details = {
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0},
    }

    def chunk(delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
        value = {**said, "object": "chat.completion.chunk", **tail, "choices": choices, "usage": None}
        return _data({**value, "obfuscation": "Qm7xYtP2"})

    message: Json = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    whole = {**said, "object": "chat.completion", "choices": choices, "usage": {**tokens, **details}, **tail}
    bill = _data({**said, "object": "chat.completion.chunk", **tail, "choices": [], "usage": {**tokens, **details}})
    first = [chunk({"role": "assistant", "content": "", "refusal": None})]
    return compact(whole), (first, chunk({"content": f" {STAMP}"}), [chunk({}, "stop"), bill, b"data: [DONE]\n\n"])


def _anthropic() -> tuple[bytes, Events]:
    said = {"id": "msg_01Benchmark", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929"}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 92, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 210}

    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\n".encode() + _data({"type": kind, **fields})

    start: Json = {
        **said,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 1},
    }
    first = [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    delta = event("content_block_delta", index=0, delta={"type": "text_delta", "text": f" {STAMP}"})
    last = [
        event("content_block_stop", index=0),
        event("message_delta", delta=ended, usage={"output_tokens": 210}),
        event("message_stop"),
    ]
    return compact({**said, "content": [{"type": "text", "text": TEXT}], **ended, "usage": usage}), (first, delta, last)


def _google() -> tuple[bytes, Events]:
    usage = {"promptTokenCount": 92, "candidatesTokenCount": 210, "totalTokenCount": 302}
    usage_details = {**usage, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 92}]}
    said = {"usageMetadata": usage_details, "modelVersion": "gemini-2.5-flash", "responseId": "benchmark0000000000000"}

    def answer(text: str, reason: Mapping[str, str]) -> dict[str, Any]:
        content = {"parts": [{"text": text}], "role": "model"}
        return {"candidates": [{"content": content, **reason, "index": 0}], **said}

    def event(text: str, **reason: str) -> bytes:
        return b"data: " + json.dumps(answer(text, reason)).encode() + b"\r\n\r\n"

    whole = compact(answer(TEXT, {"finishReason": "STOP"}))
    return whole, ([], event(f" {STAMP}"), [event("", finishReason="STOP")])


def _bedrock() -> tuple[bytes, Events]:
    usage = {"inputTokens": 92, "outputTokens": 210, "totalTokens": 302}
    output = {"message": {"content": [{"text": TEXT}], "role": "assistant"}}
    whole = {"metrics": {"latencyMs": 1193}, "output": output, "stopReason": "end_turn", "usage": usage}
    delta = {"contentBlockIndex": 0, "delta": {"text": f" {STAMP}"}, "p": "abcdefghijk"}
    last = [
        frame("contentBlockStop", {"contentBlockIndex": 0, "p": "abc"}),
        frame("messageStop", {"p": "abc", "stopReason": "end_turn"}),
        frame("metadata", {"metrics": {"latencyMs": 1193}, "p": "abcd", "usage": usage}),
    ]
    first = [frame("messageStart", {"p": "abcd", "role": "assistant"})]
    return compact(whole), (first, frame("contentBlockDelta", delta), last)


def frame(kind: str, payload: Mapping[str, Any]) -> bytes:
    """One AWS event-stream message."""
    values = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in values.items()
    )
    body = compact(payload)
    prelude = struct.pack("!II", len(headers) + len(body) + 16, len(headers))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack("!I", zlib.crc32(message))


def compact(value: Any) -> bytes:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()


def _data(value: Any) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


def _head(headers: Mapping[str, str]) -> bytes:
    return f"HTTP/1.1 200 OK\r\n{_lines(headers)}\r\n".encode()


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _chunks(events: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
