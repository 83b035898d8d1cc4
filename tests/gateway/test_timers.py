"""gateway.timers: the pauses between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.timers import BACKOFF_CAP, Limits, backoff


@given(st.integers(0, 60), st.floats(0, 1))
def test_a_pause_is_within_its_cap(retry: int, chance: float) -> None:
    assert 0 <= backoff(retry, chance) <= BACKOFF_CAP


def test_the_cap_doubles_up_to_two_seconds() -> None:
    assert [backoff(retry, 1.0) for retry in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_chance_spreads_a_pause_over_its_whole_range() -> None:
    assert (backoff(2, 0.0), backoff(2, 0.5)) == (0.0, 0.2)


def test_a_request_for_a_stream_may_wait_longer_for_its_first_byte_than_between_events() -> None:
    assert Limits().connect < Limits().idle < Limits().first_byte < Limits().total
