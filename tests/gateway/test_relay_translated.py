"""gateway.relay: streams in another format, translated on their way."""

from __future__ import annotations

import orjson
import pytest

from gateway.contract import Usage
from gateway.dialects.openai_chat import Encoder
from gateway.errors import GatewayError, Truncated, UpstreamError
from gateway.hub import Json
from gateway.relay import Translated
from gateway.sse import EventReader
from tests.gateway.relaying import CURIOUS, DONE, QUIET, USAGE, passthrough, run, singly


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


def test_our_error_is_told_as_an_event() -> None:
    error = GatewayError("Sorry.")
    for relay in (passthrough(), Translated(Decoder(), Encoder(QUIET))):
        assert orjson.loads(relay.fail(error)[6:]) == error.body()
