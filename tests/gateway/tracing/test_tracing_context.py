"""A valid trace context is read and written as W3C says; one that is not is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tracing.context import MOST_MEMBERS, Parent, read_parent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_valid_context_is_passed_on_as_it_came() -> None:
    found = read_parent([GOOD], ["congo=t61rcWkgMzE, rojo@acme=00f067aa0ba902b7"])
    assert found == Parent(TRACE, SPAN, 1, "congo=t61rcWkgMzE,rojo@acme=00f067aa0ba902b7")
    assert found.sampled
    assert found.headers() == {"traceparent": GOOD, "tracestate": found.state}


def test_without_a_state_there_is_none_to_pass_on() -> None:
    found = read_parent([GOOD[:-1] + "0"], [])
    assert found is not None
    assert not found.sampled
    assert found.headers() == {"traceparent": GOOD[:-1] + "0"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.upper(),
        GOOD[:-1],
        GOOD + "0",
        GOOD + "-more",
        " " + GOOD,
        GOOD + "\n",
        GOOD.replace("00-", "ff-", 1),
        GOOD.replace("00-", "0-", 1),
        GOOD.replace(TRACE, "0" * 32),
        GOOD.replace(SPAN, "0" * 16),
        GOOD.replace("a", "g", 1),
        GOOD.replace("-", "_"),
        f"00-{TRACE}-{SPAN}-0x",
    ],
)
def test_a_malformed_parent_is_none(text: str) -> None:
    assert read_parent([text], ["a=b"]) is None


def test_two_parents_are_none() -> None:
    assert read_parent([GOOD, GOOD], []) is None
    assert read_parent([], []) is None


@pytest.mark.parametrize("more", ["", "-", "-what-the-future-brings"])
def test_a_later_version_is_read_as_far_as_it_is_known_and_written_as_ours(more: str) -> None:
    found = read_parent([f"cc-{TRACE}-{SPAN}-ff{more}"], [])
    assert found is not None
    assert found.headers() == {"traceparent": GOOD}


def test_states_of_several_lines_are_one_list() -> None:
    found = read_parent([GOOD], ["a=1", "\t,b=2 , ", "c=x y"])
    assert found is not None
    assert found.state == "a=1,b=2,c=x y"


@pytest.mark.parametrize(
    "state",
    [
        "a",
        "a=",
        "=b",
        "A=b",
        "a=b=c",
        "a=1,a=2",
        "a=\x01",
        "a=é",
        "a=" + "x" * 257,
        "a" * 257 + "=x",
        ",".join(f"k{number}=v" for number in range(MOST_MEMBERS + 1)),
    ],
)
def test_a_malformed_state_is_dropped_and_the_parent_kept(state: str) -> None:
    assert read_parent([GOOD], [state]) == Parent(TRACE, SPAN, 1)


@given(st.text(max_size=80), st.text(max_size=80))
def test_whatever_comes_only_sound_headers_leave(parent: str, state: str) -> None:
    for text in (parent, GOOD):
        found = read_parent([text], [state])
        for value in found.headers().values() if found else ():
            assert value.isascii()
            assert value.isprintable()
