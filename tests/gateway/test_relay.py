"""gateway.relay: bytes that only pass, wherever they are cut, and when they are no stream to pass."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import Usage
from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError
from gateway.sse import EventReader
from tests.gateway.relaying import (
    DONE,
    END,
    ERROR,
    MARK,
    STREAMS,
    USAGE,
    USUAL,
    A,
    B,
    chunk,
    passthrough,
    run,
    run_chunks,
    singly,
    told,
)


class Unchanged:
    """A mender that finds nothing to mend."""

    def chunk(self, payload: bytes) -> bytes:
        return payload

    def body(self, body: bytes) -> bytes:
        return body

    def finish(self) -> list[bytes]:
        return []


def test_whole_events_pass_as_the_same_object() -> None:
    relay = passthrough()
    for data in (told(A), told(A, B), told(B), told(END), told(USAGE), told(DONE)):
        assert relay.feed(data) is data
    assert relay.done
    assert relay.finish() == b""


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("withhold", [False, True])
def test_any_cut_gives_the_same_bytes(name: str, withhold: bool) -> None:
    stream = STREAMS[name]
    expected = run(passthrough(withhold_usage=withhold), [stream])
    if not withhold:
        assert expected == stream.removeprefix(MARK)  # most clients would not know the first event behind it
    assert run(passthrough(withhold_usage=withhold), singly(stream)) == expected
    for cut in range(len(stream)):
        relay = passthrough(withhold_usage=withhold)
        assert run(relay, [stream[:cut], stream[cut:]]) == expected
        assert relay.done


@given(st.sampled_from(list(STREAMS)), st.lists(st.integers(0, 500), max_size=12))
def test_many_cuts_give_the_same_bytes(name: str, cuts: list[int]) -> None:
    stream = STREAMS[name]
    places = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert run(passthrough(), pieces) == stream.removeprefix(MARK)


@given(st.sampled_from(list(STREAMS)), st.lists(st.integers(0, 500), max_size=12), st.booleans())
def test_chunks_that_pass_as_they_came_change_nothing(name: str, cuts: list[int], withhold: bool) -> None:
    stream = STREAMS[name]
    places = sorted({0, *(cut % len(stream) for cut in cuts), len(stream)})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    fed, offered = passthrough(withhold_usage=withhold), passthrough(withhold_usage=withhold)
    assert run_chunks(offered, pieces)[0] == run(fed, pieces)
    assert (offered.events, offered.usage(), offered.done) == (fed.events, fed.usage(), fed.done)


def test_only_content_passes_with_its_framing() -> None:
    comment = b": data\n\n"
    events = [told(payload) for payload in (A, chunk("b"), B, chunk("c", usage=None), END, chunk(), USAGE, DONE)]
    for withhold, usage in ((False, events[6]), (True, b"")):
        relay = passthrough(withhold_usage=withhold)
        out, passed = run_chunks(relay, [*events[:3], comment, *events[3:]])
        assert out == b"".join((*events[:3], comment, *events[3:6], usage, events[7]))
        # Not the first, which says that the stream is good; nor what looks like more, the comment, the end.
        assert passed == 3
        assert relay.usage() == Usage(prompt=5, completion=2)


def test_no_chunk_passes_where_more_is_to_be_done() -> None:
    good = b"%x\r\n%b\r\n" % (len(told(A)), told(A))
    begun, broken, ended, held, mended = (passthrough(*mender) for mender in ((), (), (), (), (Unchanged(),)))
    for relay in (broken, ended, held, mended):
        relay.feed(told(A))
    assert held.lets_pass(good)
    broken.feed(told(ERROR))
    ended.feed(told(DONE))
    held.feed(told(B)[:-1])
    assert [relay.lets_pass(good) for relay in (begun, broken, ended, held, mended)] == [False] * 5
    assert held.feed(b"\n") == told(B)
    assert held.lets_pass(good)


@pytest.mark.parametrize("name", STREAMS)
def test_half_events_never_pass(name: str) -> None:
    relay = passthrough()
    for piece in singly(STREAMS[name]):
        out = relay.feed(piece)
        assert out == b"" or out.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))


@pytest.mark.parametrize("name", STREAMS)
def test_each_event_passes_as_soon_as_it_is_complete(name: str) -> None:
    relay, reader = passthrough(), EventReader()
    outs = [out for piece in singly(STREAMS[name]) if (out := relay.feed(piece))]
    seen = [reader.feed(out) for out in outs]
    assert all(len(events) <= 1 for events in seen)
    assert len([events for events in seen if events]) >= 3


@pytest.mark.parametrize("name", ["usual", "crlf", "cr", "comments"])
def test_no_shortened_stream_looks_complete(name: str) -> None:
    stream = STREAMS[name]
    finished = stream.index(b'"stop"') + len(b'"stop"}]}')
    for end in range(finished):
        relay = passthrough()
        with pytest.raises(Truncated):
            run(relay, [stream[:end]])
        assert not relay.done


def test_done_is_supplied_when_the_provider_leaves_it_out() -> None:
    for ending in ([END], [END, USAGE], [END, USAGE, b"null"]):
        relay = passthrough()
        assert run(relay, [told(A), told(*ending)]) == told(A, *ending, DONE)
        assert relay.done


def test_a_finish_long_before_the_end_counts() -> None:
    relay = passthrough()
    run(relay, [told(A), told(END), *[b": ping\n\n"] * 20])
    assert relay.done


def test_done_without_its_blank_line_is_an_end() -> None:
    for rest in (b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n"):
        assert run(passthrough(), [told(A, END), rest]) == told(A, END, DONE)


def test_a_last_event_without_its_blank_line_passes_whole_or_not_at_all() -> None:
    assert run(passthrough(), [told(A), b"data: " + END]) == told(A, END, DONE)
    assert run(passthrough(), [told(A, END), b"data: " + USAGE[:-1]]) == told(A, END, DONE)
    assert run(passthrough(), [told(A, END), b": bye"]) == told(A, END, DONE)
    assert run(passthrough(), [told(A, END), b"data: 5"]) == told(A, END, DONE)


def test_nothing_passes_after_done() -> None:
    relay = passthrough()
    assert relay.feed(told(A, DONE, B)) == told(A, DONE)
    assert relay.feed(told(B)) == b""
    assert relay.finish() == b""


def test_an_error_as_the_first_event_is_ours_and_nothing_passes() -> None:
    for stream in (told(ERROR), b": hi\n\n" + told(ERROR), told(ERROR)[:-2], told(b'{"error":"plain"}')):
        relay = passthrough()
        out = relay.feed(stream)
        if relay.failure is None:
            with pytest.raises(UpstreamError):
                relay.finish()
        assert relay.failure is not None
        assert relay.failure.code == "theirs"
        assert not relay.started
        assert b"error" not in out
        assert relay.feed(told(A)) == b""


@pytest.mark.parametrize("pieces", [[told(A, ERROR, B)], [told(A), told(ERROR), told(B)], [told(A), told(ERROR, B)]])
def test_an_error_in_the_middle_ends_the_stream_after_what_was_good(pieces: list[bytes]) -> None:
    relay = passthrough()
    out = b"".join(relay.feed(piece) for piece in pieces)
    assert out == told(A)
    assert relay.started
    assert relay.failure is not None
    assert relay.failure.message == "too busy"
    assert not relay.done
    with pytest.raises(UpstreamError):
        relay.finish()


def test_an_error_beside_a_usage_of_no_use_is_still_an_error() -> None:
    relay = passthrough()
    relay.feed(told(b'{"usage":5,"error":{"message":"x"}}'))
    assert relay.failure is not None


def test_usage_is_withheld_only_when_nobody_asked_for_it() -> None:
    assert run(passthrough(), [USUAL]) == USUAL
    relay = passthrough(withhold_usage=True)
    assert run(relay, [USUAL]) == told(A, B, END, DONE)
    assert relay.usage() == Usage(5, 2)


def test_a_chunk_that_holds_more_than_usage_passes() -> None:
    with_usage = chunk("a", usage={"prompt_tokens": 5})
    relay = passthrough(withhold_usage=True)
    assert run(relay, [told(A), told(with_usage), told(END, DONE)]) == told(A, with_usage, END, DONE)


def test_usage_is_found_at_the_end_of_a_long_stream() -> None:
    for withhold in (False, True):
        for pings in (0, 10):
            relay = passthrough(withhold_usage=withhold)
            pieces = [*[told(A)] * 50, told(END), told(USAGE), *[b": ping\n\n"] * pings, told(DONE)]
            run(relay, pieces)
            assert relay.usage() == Usage(5, 2)


def test_usage_behind_a_comment_of_the_same_read_is_found() -> None:
    relay = passthrough()
    run(relay, [told(A), told(END), b": ping\n\n" + told(USAGE), told(DONE)])
    assert relay.usage() == Usage(5, 2)


def test_of_a_stream_that_broke_the_events_are_counted() -> None:
    relay = passthrough()
    assert relay.usage() is None
    for data in (told(A), b": ping\n\n", told(B)):
        relay.feed(data)
    assert relay.events == 2
    assert relay.usage() == Usage(completion=2, source="partial")
    relay.feed(told(END, DONE))
    assert relay.usage() is None


def test_comments_are_no_start_and_no_event() -> None:
    relay = passthrough()
    assert relay.feed(b": one\n\n") == b": one\n\n"
    assert (relay.started, relay.events) == (False, 0)
    relay.feed(told(A))
    assert (relay.started, relay.events) == (True, 1)


@pytest.mark.parametrize("piece", [1, 10, 1000])
def test_an_event_without_end_is_bounded(piece: int) -> None:
    relay = passthrough(max_event=1000)
    relay.feed(told(A))
    for _ in range(1001 // piece + 1):
        relay.feed(b"x" * piece)
    assert isinstance(relay.failure, BadUpstreamResponse)
    with pytest.raises(BadUpstreamResponse):
        relay.finish()


def test_many_events_may_be_larger_than_the_limit_together() -> None:
    relay = passthrough(max_event=200)
    stream = told(*[A] * 100, END, DONE)
    assert run(relay, [stream[:50], stream[50:4000], stream[4000:]]) == stream


def test_a_large_event_in_small_pieces_costs_linear_work() -> None:
    relay = passthrough()
    began = time.perf_counter()
    for _ in range(50_000):
        relay.feed(b"xxxxxxxxxx")
    assert time.perf_counter() - began < 2
    assert relay.failure is None
