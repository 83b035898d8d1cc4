"""What a request leaves for its trace, and what is learnt from its answer's bytes."""

from __future__ import annotations

import orjson
import pytest
from upstreams import chunk, event

from gateway.envelope import open_envelope
from gateway.tracing.context import Parent
from gateway.tracing.heard import hear
from gateway.tracing.trace import KEPT, LAST_WRITES, Listener, Outlet, Trace

BODY = {
    "id": "chatcmpl-7",
    "model": "m-2026",
    "choices": [
        {"index": 1, "message": {"role": "assistant", "content": "B"}, "finish_reason": "length"},
        {"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"},
    ],
}


class Sink:
    """An outlet that keeps everything."""

    def __init__(self) -> None:
        self.data = b""
        self.ends: list[str] = []

    def write(self, data: bytes) -> None:
        self.data += data

    def hang_up(self) -> None:
        self.ends.append("hang_up")

    def abort(self) -> None:
        self.ends.append("abort")

    def buffered(self) -> int:
        return 7


def traced(*, sampled: bool = True, content: bool = False) -> Trace:
    return Trace(Parent("a" * 32, "b" * 16, int(sampled)), 0.0, content=content)


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.25, 180, 330), (1.0, 1_000, 1_000)])
def test_of_requests_without_a_parent_the_share_is_sampled(ratio: float, least: int, most: int) -> None:
    traces = [Trace(None, ratio, content=False) for _ in range(1_000)]
    assert least <= sum(trace.sampled for trace in traces) <= most
    assert len({trace.id for trace in traces}) == len({trace.span for trace in traces}) == 1_000
    # Everybody who decides by the trace's id decides the same.
    assert all(trace.sampled == (int(trace.id[16:], 16) < ratio * 2**64) for trace in traces)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_parent_decides_for_its_children(ratio: float) -> None:
    assert [Trace(Parent("a" * 32, "b" * 16, flags), ratio, content=False).sampled for flags in (0, 1, 3)] == [
        False,
        True,
        True,
    ]


def test_nothing_is_kept_of_what_is_not_sampled() -> None:
    trace = traced(sampled=False, content=True)
    sink: Outlet = Sink()
    assert trace.listener(sink) is sink
    trace.take(None, b"{}", chat=None)  # type: ignore[arg-type]  # never looked at
    assert (trace.body, trace.chat, trace.size) == (b"", None, 0)


def test_a_whole_answer_tells_id_model_and_reasons() -> None:
    trace = traced()
    trace.body = orjson.dumps(BODY)
    heard = hear(trace)
    assert (heard.id, heard.model, heard.reasons) == ("chatcmpl-7", "m-2026", ["stop", "length"])


def test_an_answer_that_is_too_large_is_not_kept() -> None:
    trace = traced()
    trace.take(None, b" " * (KEPT + 1), chat=None)  # type: ignore[arg-type]  # never looked at
    assert trace.size == 0
    assert hear(trace).reasons == []


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b"{", b'{"id":1,"choices":[null,{"index":"x"},3]}', b"\xff"])
def test_an_answer_that_is_none_tells_nothing(body: bytes) -> None:
    trace = traced()
    trace.body = body
    assert (hear(trace).id, hear(trace).reasons) == ("", [])


def final(reason: str) -> bytes:
    last = chunk()
    last["choices"][0]["finish_reason"] = reason
    return event(last).encode()


def test_of_a_long_stream_the_begin_and_the_end_are_kept() -> None:
    trace, sink = traced(), Sink()
    listener = trace.listener(sink)
    assert isinstance(listener, Listener)
    pieces = [event(chunk(content="x" * 500)).encode() for _ in range(200)]
    for piece in [b"HTTP/1.1 200 OK\r\n\r\n", *pieces, final("tool_calls"), b"data: [DONE]\n\n", b"0\r\n\r\n"]:
        listener.write(piece)
    heard = hear(trace)
    assert sink.data.count(b"data: ") == 202
    assert listener.kept < 20 * 1024 + LAST_WRITES * 1_024
    assert not heard.whole
    assert (heard.id, heard.model, heard.reasons) == ("chatcmpl-1", "m", ["tool_calls"])


def test_with_content_all_that_a_stream_said_is_known() -> None:
    trace = traced(content=True)
    listener = trace.listener(Sink())
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"a"'}}
    for piece in (
        event(chunk(role="assistant", content="Hel")),
        event(chunk(content="lo", reasoning_content="hm")),
        event(chunk(tool_calls=[call])),
        event(chunk(tool_calls=[{"index": 0, "function": {"arguments": ":1}"}}])),
    ):
        listener.write(b"%x\r\n%b\r\n" % (len(piece), piece.encode()))
    listener.write(final("tool_calls"))
    heard = hear(trace)
    assert heard.whole
    said = heard.choices[0].message()
    assert (said["content"], said["thought"]) == ("Hello", "hm")
    assert said["tool_calls"] == [{"id": "c1", "function": {"name": "look", "arguments": '{"a":1}'}}]


def test_a_listener_hides_nothing_of_its_outlet() -> None:
    sink = Sink()
    listener = Listener(sink, 10)
    listener.hang_up()
    listener.abort()
    assert (sink.ends, listener.buffered()) == (["hang_up", "abort"], 7)


@pytest.mark.parametrize(("size", "kept"), [(10, True), (KEPT, False)])
def test_a_large_request_is_not_kept_for_its_content(size: int, kept: bool) -> None:
    trace = traced(content=True)
    chat = open_envelope(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * size}]}))
    trace.take(None, b"{}", chat)
    assert (trace.chat is chat) is kept
    assert trace.size == 2 + kept * chat.size
    trace.forget()
    assert trace.size == 0
