"""gateway.relay: streams that a mender changes on their way."""

from __future__ import annotations

from gateway.contract import Usage
from tests.gateway.relaying import COMPLETION, DONE, END, ERROR, USAGE, A, B, passthrough, run, singly, told


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


def test_a_whole_completion_is_mended_first() -> None:
    relay = passthrough(Upper())
    assert b'"content":"HI"' in run(relay, [COMPLETION])
