"""gateway.relay: whole answers, and whole bodies where a stream was asked for."""

from __future__ import annotations

import orjson
import pytest

from gateway.contract import Usage
from gateway.dialects.openai_chat import chunks_of
from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError
from gateway.relay import read_whole
from gateway.sse import EventReader
from tests.gateway.relaying import COMPLETION, DONE, ERROR, passthrough, run, singly


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
