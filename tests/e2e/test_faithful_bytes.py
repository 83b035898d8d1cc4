"""Pass-through: what a client sends reaches the provider byte for byte, and the answer comes back so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livegateway import gateway_and_demo, gateway_before
from upstreams import OK_BODY, SSE_HEAD, ScriptedUpstream, answer, chunk, event

Run = Callable[[Any], Any]
# White space, escapes, odd numbers and fields that nobody knows: a second serialisation would not be the same.
ODD = (
    b'{ "x_unknown":{"b":1.0,"a":[1e3,-0.0,12345678901234567890]}, "model" : "m" ,\n\t"messages":[{"role":"user",'
    b'"content":"\\u00e9 \xc3\xa9 \\/ %s", "x_more" : null}],"x_last": "\\ud83d\\ude00"  }'
)
LARGE = ODD % (b"word " * 4096)


def body_of(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


def test_a_request_of_20_kb_arrives_byte_for_byte_but_for_its_model(served: Run, tmp_path: Path) -> None:
    async def main() -> bytes:
        async with (
            ScriptedUpstream([{"t": answer(OK_BODY)}]) as upstream,
            gateway_before(tmp_path, upstream.url + "/v1") as live,
        ):
            reply = await live.post(LARGE)
            assert reply.status == 200
            assert reply.body == OK_BODY.encode()
            return body_of(upstream.requests[0])

    assert len(LARGE) > 20_000
    assert served(main()) == LARGE.replace(b'"m"', b'"upstream-model"')


def test_the_same_model_name_changes_no_byte_at_all(served: Run, tmp_path: Path) -> None:
    async def main() -> bytes:
        async with (
            ScriptedUpstream([{"t": answer(OK_BODY)}]) as upstream,
            gateway_before(tmp_path, upstream.url + "/v1", model="m") as live,
        ):
            await live.post(LARGE)
            return body_of(upstream.requests[0])

    assert served(main()) == LARGE


STREAM = "".join(
    (
        ": a comment first\n\n",
        event(chunk(role="assistant", content="")),
        'data: {"id":"c", "choices" : [ {"index":0,"delta":{"content":"\xc3\xa9"},"finish_reason":null}] ,"x":1.0}\n\n',
        'event: odd\nid: 7\ndata: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
        'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n',
        "data: [DONE]\n\n",
    )
)
ASKED = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("size", [1, 7, 64, 4096])
def test_a_stream_leaves_byte_for_byte_however_it_is_cut(served: Run, tmp_path: Path, size: int) -> None:
    pieces = [{"chunk": STREAM[at : at + size]} for at in range(0, len(STREAM), size)]

    async def main() -> Any:
        script = [{"t": SSE_HEAD}, *pieces, {"end": True}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            return await live.post(ASKED)

    reply = served(main())
    assert (reply.status, reply.complete) == (200, True)
    assert reply.body == STREAM.encode("latin-1")


def test_usage_that_was_not_asked_for_is_the_only_event_withheld(served: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Any, bytes]:
        script = [{"t": SSE_HEAD}, {"chunk": STREAM}, {"end": True}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            reply = await live.post({"model": "m", "messages": [], "stream": True})
            (line,) = await live.logged(1)
            assert line["tokens"]["prompt"] == 1
            return reply, body_of(upstream.requests[0])

    reply, sent = served(main())
    assert reply.body.decode("latin-1") == re.sub(r'data: \{"choices":\[\],"usage".*?\n\n', "", STREAM)
    assert sent.endswith(b'"stream_options":{"include_usage":true}}')


def test_the_demo_answers_a_hello(served: Run, tmp_path: Path) -> None:
    async def main() -> Any:
        async with gateway_and_demo(tmp_path) as (live, _):
            return await live.chat("openai")

    assert "Hello!" in served(main()).text()
