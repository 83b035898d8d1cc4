"""gateway.bucket: exact counts whatever the fractions, and nothing given back twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bucket import MINUTE, Bucket


@pytest.mark.parametrize("limit", [1, 3, 7, 49, 100, 600, 977, 12_345, 150 / 7])
@pytest.mark.parametrize("start", [0.0, 1234.567, 8_640_000.001])
def test_a_full_bucket_lets_a_minutes_worth_pass_and_no_more(limit: float, start: float) -> None:
    bucket = Bucket()
    passed = 0
    while not bucket.wait(start, limit, 1):
        bucket.take(start, limit, 1)
        passed += 1
    assert passed == int(limit)


@pytest.mark.parametrize("limit", [1, 7, 60, 600])
def test_who_waits_as_long_as_told_is_let_in_then_and_not_before(limit: int) -> None:
    bucket = Bucket()
    now = 500.0
    for _ in range(limit):
        bucket.take(now, limit, 1)
    wait = bucket.wait(now, limit, 1)
    assert wait == pytest.approx(MINUTE / limit)
    assert bucket.wait(now + wait * 0.99, limit, 1)
    assert not bucket.wait(now + wait, limit, 1)


def test_more_than_a_minutes_worth_needs_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = Bucket()
    assert not bucket.wait(0.0, 100, 250)
    bucket.take(0.0, 100, 250)
    assert bucket.left(0.0, 100) == 0
    assert bucket.wait(0.0, 100, 1) == pytest.approx(150 * 0.6 + 0.6)
    assert bucket.back_in(0.0) == pytest.approx(150)


def test_a_limit_of_nothing_lets_nothing_pass() -> None:
    bucket = Bucket()
    assert bucket.wait(0.0, 0, 1) == MINUTE
    assert bucket.left(0.0, 0) == 0
    bucket.take(0.0, 0, 5)
    bucket.rescale(0.0, 600, 0)
    assert bucket.back_in(0.0) == 0.0


@pytest.mark.parametrize(
    ("before", "after", "left"), [(600, 600, 100), (600, 1200, 700), (600, 510, 10), (600, 300, 0)]
)
def test_another_rate_keeps_what_was_taken(before: int, after: int, left: int) -> None:
    bucket = Bucket()
    bucket.take(100.0, before, 500)
    bucket.rescale(100.0, before, after)
    assert bucket.left(100.0, after) == left


EVENT = st.tuples(st.integers(0, 20), st.integers(1, 120))


@given(st.lists(EVENT, min_size=1, max_size=60), st.sampled_from([60, 120, 600]))
def test_no_span_of_time_sees_more_than_its_share_and_one_burst(events: list[tuple[int, int]], limit: int) -> None:
    bucket = Bucket()
    now = 0.0
    taken: list[tuple[float, int]] = []
    for pause, amount in events:
        now += pause
        if amount <= limit and not bucket.wait(now, limit, amount):
            bucket.take(now, limit, amount)
            taken.append((now, amount))
    for index, (start, _) in enumerate(taken):
        total = 0
        for at, amount in taken[index:]:
            total += amount
            assert total <= limit + (at - start) * limit / MINUTE + 1
