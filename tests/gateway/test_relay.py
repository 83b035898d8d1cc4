"""gateway.relay: what happens to response bytes on their way through, wherever they are cut."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import Relay, Usage
from gateway.dialects.openai_chat import Encoder, chunks_of, open_request
from gateway.errors import BadUpstreamResponse, GatewayError, Truncated, UpstreamError
from gateway.hub import Json
from gateway.relay import Passthrough, Translated, read_whole
from gateway.sse import EventReader

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


def singly(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


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


def test_our_error_is_told_as_an_event() -> None:
    error = GatewayError("Sorry.")
    for relay in (passthrough(), Translated(Decoder(), Encoder(QUIET))):
        assert orjson.loads(relay.fail(error)[6:]) == error.body()


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


@pytest.mark.parametrize("before", [b"", b"\n", b" \r\n", b"\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("after", [b"", b"\n", b"\n\n"])
def test_an_error_object_as_the_whole_body_is_ours(before: bytes, after: bytes) -> None:
    body = before + ERROR + after
    for pieces in ([body], singly(body)):
        relay = passthrough()
        with pytest.raises(UpstreamError, match="too busy"):
            run(relay, pieces)
        assert relay.failure is not None
        assert not relay.started


def test_a_whole_completion_becomes_a_stream() -> None:
    for pieces in ([COMPLETION], singly(COMPLETION), [COMPLETION + b"\n\n"]):
        relay = passthrough()
        events = EventReader().feed(run(relay, pieces))
        assert [orjson.loads(payload) for payload in events[:-1]] == chunks_of(COMPLETION)
        assert events[-1] == DONE
        assert relay.usage() == Usage(5, 2)
        assert (relay.done, relay.started) == (True, True)


def test_the_usage_of_a_whole_completion_is_withheld_as_well() -> None:
    relay = passthrough(withhold_usage=True)
    assert b'"usage"' not in run(relay, [COMPLETION])
    assert relay.usage() == Usage(5, 2)


def test_a_whole_completion_is_mended_first() -> None:
    relay = passthrough(Upper())
    assert b'"content":"HI"' in run(relay, [COMPLETION])


@pytest.mark.parametrize("body", [b"{", b'{"x":1}', b'{"choices":', b'{"choices":5}', b"{}" * 3, COMPLETION[:-1]])
def test_a_whole_body_that_is_no_answer_is_the_providers_fault(body: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        run(passthrough(), [body])


@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", b"busy", b"[]", b"\n\n<html>\n\n</html>\n\n"])
def test_a_body_that_is_no_stream_is_truncated(body: bytes) -> None:
    relay = passthrough()
    with pytest.raises(Truncated):
        run(relay, [body])
    assert not relay.started


def test_a_whole_body_is_bounded() -> None:
    relay = passthrough(max_event=100)
    for _ in range(11):
        relay.feed(b'{"choices"')
    assert isinstance(relay.failure, BadUpstreamResponse)


# Menders.


class Upper:
    """Makes one content upper case, leaves out what says `skip`, adds one event at the end."""

    def __init__(self) -> None:
        self.finished = 0

    def chunk(self, payload: bytes) -> bytes | None:
        if b"skip" in payload:
            return None
        return payload.replace(b'"content":"a"', b'"content":"A"') if b'"content":"a"' in payload else payload

    def body(self, body: bytes) -> bytes:
        return body.replace(b'"Hi"', b'"HI"')

    def finish(self) -> list[bytes]:
        self.finished += 1
        return [b'{"added":1}']


class Sound:
    """Finds everything sound."""

    def chunk(self, payload: bytes) -> bytes | None:
        return payload

    def body(self, body: bytes) -> bytes:
        return body

    def finish(self) -> list[bytes]:
        return []


def test_a_sound_stream_passes_a_mender_as_the_same_object() -> None:
    relay = passthrough(Sound())
    for data in (told(A), told(A, B), b": ping\n\n", told(END), told(USAGE), told(DONE)):
        assert relay.feed(data) is data


def test_a_mender_changes_leaves_out_and_adds() -> None:
    upper, skip = A.replace(b'"a"', b'"A"'), b'{"skip":1}'
    stream = told(A, skip, B, END, DONE)
    expected = told(upper, B, END, b'{"added":1}', DONE)
    for pieces in ([stream], singly(stream), [told(each) for each in (A, skip, B, END, DONE)]):
        mender = Upper()
        assert run(passthrough(mender), pieces) == expected
        assert mender.finished == 1


def test_a_mended_event_keeps_no_fields_of_its_own() -> None:
    relay = passthrough(Upper())
    relay.feed(b"event: x\r\ndata: " + A + b"\r\n\r\n")
    assert relay.started


def test_a_mender_adds_before_the_done_that_we_supply() -> None:
    relay = passthrough(Upper())
    assert run(relay, [told(B, END)]) == told(B, END, b'{"added":1}', DONE)


def test_a_mender_that_supplies_the_finish_reason_makes_the_stream_whole() -> None:
    class Finishing(Sound):
        def chunk(self, payload: bytes) -> bytes | None:
            return payload.replace(b'"eos":1', b'"finish_reason":"stop"')

    assert run(passthrough(Finishing()), [told(A, b'{"eos":1}')]) == told(A, b'{"finish_reason":"stop"}', DONE)


def test_a_mender_does_not_see_errors() -> None:
    relay = passthrough(Upper())
    assert relay.feed(told(A, ERROR)) == told(A.replace(b'"a"', b'"A"'))
    assert relay.failure is not None


def test_mended_usage_is_withheld_too() -> None:
    relay = passthrough(Sound(), withhold_usage=True)
    assert run(relay, [told(A), told(END, USAGE), told(DONE)]) == told(A, END, DONE)
    assert relay.usage() == Usage(5, 2)


# Whole answers.


def test_a_whole_answer_tells_what_it_used() -> None:
    assert read_whole(COMPLETION) == (False, Usage(5, 2))
    assert read_whole(b' \n{"choices":[]}') == (False, None)
    assert read_whole(b'{"choices":[],"usage":"x"}') == (False, None)


@pytest.mark.parametrize("error", [b'{"message":"x"}', b'"x"', b"5", b"[1]", b"true"])
def test_a_whole_answer_with_an_error_is_one(error: bytes) -> None:
    assert read_whole(b'{"error":%b}' % error) == (True, None)
    assert read_whole(b'{"choices":[],"error":%b}' % error) == (True, None)


@pytest.mark.parametrize("error", [b"null", b"false", b'""', b"{}"])
def test_an_error_that_says_nothing_is_none(error: bytes) -> None:
    assert read_whole(b'{"choices":[],"error":%b}' % error) == (False, None)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"{", b'{"x":1}', b'{"choices"', b'{"a":"\xff"}', b'{"a":' + b"[" * 100_000],
)
def test_what_is_no_completion_is_refused(body: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        read_whole(body)


# Translation.


class Decoder:
    """A provider's stream of lines: text, `usage`, `fail`, `end`."""

    def __init__(self) -> None:
        self.done = False
        self.failure: UpstreamError | None = None
        self._rest = b""

    def feed(self, data: bytes) -> list[Json]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        chunks: list[Json] = []
        for line in whole:
            if self.done or self.failure:
                break
            if line == b"end":
                self.done = True
            elif line == b"fail":
                self.failure = UpstreamError("theirs")
            elif line == b"usage":
                chunks.append(orjson.loads(USAGE))
            else:
                chunks.append({"choices": [{"delta": {"content": line.decode()}}]})
        return chunks

    def finish(self) -> list[Json]:
        if self._rest == b"last":
            self.done = True
            return [{"choices": [{"delta": {"content": "last"}}]}]
        if self._rest == b"fails":
            self.failure = UpstreamError("at the end")
            return []
        raise Truncated("too early")


def contents(out: bytes) -> list[str]:
    events = EventReader().feed(out)
    return [
        "DONE" if payload == DONE else orjson.loads(payload)["choices"][0]["delta"]["content"] for payload in events
    ]


NATIVE = b"one\ntwo\nthree\nusage\nend\nignored\n"


def test_any_cut_translates_to_the_same_bytes() -> None:
    expected = run(Translated(Decoder(), Encoder(QUIET)), [NATIVE])
    assert contents(expected) == ["one", "two", "three", "DONE"]
    assert run(Translated(Decoder(), Encoder(QUIET)), singly(NATIVE)) == expected
    for cut in range(len(NATIVE)):
        assert run(Translated(Decoder(), Encoder(QUIET)), [NATIVE[:cut], NATIVE[cut:]]) == expected


def test_what_one_read_completed_leaves_in_one_piece_and_is_counted() -> None:
    relay = Translated(Decoder(), Encoder(CURIOUS))
    assert relay.feed(b"on") == b""
    assert (relay.started, relay.events) == (False, 0)
    assert contents(relay.feed(b"e\ntwo\nth")) == ["one", "two"]
    assert (relay.started, relay.events) == (True, 2)
    assert relay.usage() == Usage(completion=2, source="partial")
    assert b'"usage"' in relay.feed(b"ree\nusage\nend\n")
    assert relay.usage() == Usage(5, 2)
    assert relay.done
    assert relay.feed(b"more\n") == relay.finish() == b""


def test_usage_is_known_even_if_the_client_does_not_see_it() -> None:
    relay = Translated(Decoder(), Encoder(QUIET))
    assert b'"usage"' not in run(relay, [NATIVE])
    assert relay.usage() == Usage(5, 2)


def test_without_an_answer_there_is_no_usage() -> None:
    assert Translated(Decoder(), Encoder(QUIET)).usage() is None
    relay = Translated(Decoder(), Encoder(QUIET))
    relay.feed(b"one\nend\n")
    assert relay.usage() is None


def test_a_translated_stream_that_ends_early_is_truncated() -> None:
    for end in range(NATIVE.index(b"end\n") + 3):
        with pytest.raises(Truncated):
            run(Translated(Decoder(), Encoder(QUIET)), [NATIVE[:end]])


def test_a_failure_inside_the_stream_stops_it_after_what_was_good() -> None:
    relay = Translated(Decoder(), Encoder(QUIET))
    assert contents(relay.feed(b"one\nfail\ntwo\n")) == ["one"]
    assert relay.failure is not None
    assert not relay.done
    assert relay.feed(b"three\n") == b""


def test_what_the_decoder_still_had_comes_at_the_end() -> None:
    relay = Translated(Decoder(), Encoder(QUIET))
    assert contents(run(relay, [b"one\nlast"])) == ["one", "last", "DONE"]
    assert relay.done


def test_a_failure_found_at_the_end_is_raised() -> None:
    with pytest.raises(UpstreamError, match="at the end"):
        run(Translated(Decoder(), Encoder(QUIET)), [b"one\nfails"])
