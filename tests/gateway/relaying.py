"""Streams for relays of the tests, and ways to send them through, wherever they are cut."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.contract import Relay
from gateway.dialects.openai_chat import chunks_of, open_request
from gateway.errors import UpstreamError
from gateway.relay import Passthrough

QUIET = open_request(b'{"model":"m","messages":[],"stream":true}', {})
CURIOUS = open_request(b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}', {})


def chunk(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    delta = {"content": text} if text else {}
    return orjson.dumps({"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def told(*payloads: bytes) -> bytes:
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)


USAGE = orjson.dumps({"id": "1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
A, B, END, DONE = chunk("a"), chunk('b "error": [DONE] "usage": { \n\n'), chunk(finish="stop"), b"[DONE]"
ERROR = b'{"error":{"message":"too busy","code":503}}'
USUAL = told(A, B, END, USAGE, DONE)
MARK = b"\xef\xbb\xbf"
STREAMS = {
    "usual": USUAL,
    "crlf": USUAL.replace(b"\n", b"\r\n"),
    "cr": USUAL.replace(b"\n", b"\r"),
    "mark": MARK + USUAL,
    "comments": b": one\n\n" + told(A) + b": two\n\n:\n\n" + told(B, END, DONE),
    "fields": b"event: x\nid: 1\ndata: " + A + b"\nretry: 5\n\n" + told(END, DONE),
    "two lines": b'data: {"choices":\ndata:[]}\n\n' + told(END, DONE),
    "no space": USUAL.replace(b"data: ", b"data:"),
    "odd": told(A, b"", b"not json", b"null", b"[]", b'"x"', B, END, DONE),
    "blank lines": b"\n\n" + told(A) + b"\n\n\n\n" + told(END, DONE),
    "in-band nothing": told(chunk("a", error=None), chunk("b", error={}), END, DONE),
}


def read_error(payload: bytes) -> UpstreamError:
    error = orjson.loads(payload)["error"]
    return UpstreamError(error["message"] if isinstance(error, dict) else str(error), code="theirs")


def passthrough(mender: Any = None, **options: Any) -> Passthrough:
    return Passthrough(read_error, chunks_of, mender, **options)


def run(relay: Relay, pieces: list[bytes]) -> bytes:
    return b"".join(relay.feed(piece) for piece in pieces) + relay.finish()


def run_chunks(relay: Relay, pieces: list[bytes]) -> tuple[bytes, int]:
    """The same for pieces that each come as an HTTP chunk, and how many of them were let pass."""
    out, passed = [], 0
    for piece in pieces:
        if relay.lets_pass(b"%x\r\n%b\r\n" % (len(piece), piece)):
            out.append(piece)
            passed += 1
        else:
            out.append(relay.feed(piece))
    return b"".join(out) + relay.finish(), passed


def singly(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


# A whole JSON body where a stream was asked for.
COMPLETION = orjson.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
)
