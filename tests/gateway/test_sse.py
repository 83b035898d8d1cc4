"""gateway.sse: the events of a stream, wherever its bytes are cut."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadUpstreamResponse
from gateway.sse import EventReader, event

STREAM = b": hello\n\ndata: one\n\nevent: x\ndata:two\ndata:  2\nid: 5\n\n\ndata\n\nretry: 1\n\ndata: [DONE]\n\n"
EVENTS = [b"one", b"two\n 2", b"", b"[DONE]"]


def read(pieces: list[bytes]) -> list[bytes]:
    reader = EventReader()
    events = [payload for piece in pieces for payload in reader.feed(piece)]
    return events + reader.finish()


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_cut_gives_the_same_events_under_every_newline(newline: bytes, mark: bytes) -> None:
    stream = mark + STREAM.replace(b"\n", newline)
    assert read([stream]) == EVENTS
    assert read([stream[at : at + 1] for at in range(len(stream))]) == EVENTS
    for cut in range(len(stream)):
        assert read([stream[:cut], stream[cut:]]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM) * 2), max_size=8), st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"])))
def test_mixed_newlines_and_many_cuts_change_nothing(cuts: list[int], newlines: list[bytes]) -> None:
    lines = STREAM.split(b"\n")
    # A lone CR before an LF would be one newline, so each stands for itself only before other text.
    stream = b"".join(
        line + (newlines[index % len(newlines)] if newlines and line else b"\n")
        for index, line in enumerate(lines[:-1])
    )
    whole = read([stream])
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    assert read([stream[start:end] for start, end in pairwise(places)]) == whole


def test_the_last_event_counts_without_its_blank_line_only_at_the_end() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\n\ndata: b") == [b"a"]
    assert reader.pending
    assert reader.rest == b"data: b"
    assert reader.finish() == [b"b"]
    assert not reader.pending
    assert reader.finish() == []


def test_a_whole_read_of_whole_events_leaves_nothing_behind() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\n\ndata: b\n\n") == [b"a", b"b"]
    assert not reader.pending
    assert reader.rest == b""


def test_a_byte_order_mark_counts_only_at_the_start() -> None:
    assert read([b"\xef", b"\xbb", b"\xbfdata: a\n\n"]) == [b"a"]
    assert read([b"data: a\n\n\xef\xbb\xbfdata: b\n\n"]) == [b"a"]
    assert read([b"", b"\xef\xbb", b"x\n\n"]) == []
    assert read([b"\xef"]) == []


def test_empty_reads_are_harmless() -> None:
    assert read([b"", b"data: a\r", b"", b"\n\r", b"", b"\n", b""]) == [b"a"]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_event_beyond_the_limit_is_refused_before_it_is_kept(size: int) -> None:
    reader = EventReader(limit=100)
    with pytest.raises(BadUpstreamResponse, match="100 bytes"):
        for _ in range(102):
            reader.feed(b"x" * size)


def test_many_events_may_be_larger_than_the_limit_together() -> None:
    reader = EventReader(limit=20)
    assert len(reader.feed(b"data: a\n\n" * 50 + b"data: b")) == 50
    assert reader.feed(b"\n\n") == [b"b"]


def test_a_large_event_in_small_pieces_costs_linear_work() -> None:
    reader = EventReader()
    began = time.perf_counter()
    for _ in range(40_000):
        reader.feed(b"x" * 10)
    assert reader.feed(b"\n\n") == []
    assert time.perf_counter() - began < 2


def test_an_event_is_written_as_it_is_read() -> None:
    assert event(b"{}") == b"data: {}\n\n"
    assert read([event(b"{}")]) == [b"{}"]
