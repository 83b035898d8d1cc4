"""gateway.quotas: what one target takes; time is a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.quotas import SOON, Allowance, Counts, Quota, Rates


def passed(rates: Rates, times: list[float], tokens: int = 0) -> int:
    quota = Quota()
    count = 0
    for now in times:
        if not quota.wait(now, rates, tokens):
            quota.end(now, rates, 0, quota.take(now, rates, tokens))
            count += 1
    return count


def test_a_minutes_worth_of_requests_may_come_at_once() -> None:
    assert passed(Rates(rpm=5), [0.0] * 9) == 5


def test_then_they_come_as_the_bucket_fills() -> None:
    quota, rates = Quota(), Rates(rpm=6)
    for _ in range(6):
        quota.take(0, rates, 0)
    assert quota.wait(0, rates, 0) == pytest.approx(10)
    assert quota.wait(4, rates, 0) == pytest.approx(6)
    assert quota.wait(10, rates, 0) == 0


@given(st.integers(1, 50), st.lists(st.floats(0, 600), max_size=200))
def test_no_ten_minutes_let_more_through_than_the_rate_and_one_bucket(rpm: int, times: list[float]) -> None:
    assert passed(Rates(rpm=rpm), sorted(times)) <= rpm * 11


def test_tokens_are_taken_by_estimate_and_settled_by_what_was_used() -> None:
    quota, rates = Quota(), Rates(tpm=600)
    taken = quota.take(0, rates, 500)
    assert quota.wait(0, rates, 200) == pytest.approx(10)
    quota.end(0, rates, -400, taken)
    assert quota.wait(0, rates, 200) == 0
    taken = quota.take(0, rates, 200)
    quota.end(0, rates, 900, taken)  # 100 + 200 + 900 of 600
    assert quota.wait(0, rates, 1) == pytest.approx(60.1)


def test_a_request_of_more_than_a_minutes_worth_needs_a_full_bucket() -> None:
    quota, rates = Quota(), Rates(tpm=60)
    assert quota.wait(0, rates, 1000) == 0
    quota.take(0, rates, 1)
    assert quota.wait(0, rates, 1000) == pytest.approx(1)


def test_requests_at_once_are_counted_to_their_end() -> None:
    quota, rates = Quota(), Rates(parallel=1)
    taken = quota.take(0, rates, 0)
    assert quota.wait(0, rates, 0) == SOON
    quota.end(0, rates, 0, taken)
    assert quota.wait(0, rates, 0) == 0


def test_without_limits_nothing_waits() -> None:
    quota = Quota()
    for _ in range(1000):
        quota.take(0, Rates(), 10**6)
    assert quota.wait(0, Rates(), 10**6) == 0


@pytest.mark.parametrize(("share", "most"), [(0.05, 6), (0.1, 11), (1.0, 100), (0.0, 1)])
def test_an_allowance_is_a_share_of_the_requests_and_one(share: float, most: int) -> None:
    allowance = Allowance()
    spent = 0
    for _ in range(100):
        allowance.earn(share)
        spent += allowance.spend()
    assert spent == most


def test_only_ten_may_be_saved_up() -> None:
    allowance = Allowance()
    for _ in range(1000):
        allowance.earn(1.0)
    assert sum(allowance.spend() for _ in range(100)) == 10


def test_counts_are_kept_by_name() -> None:
    counts = Counts()
    assert counts.quota("a") is counts.quota("a")
    assert counts.quota("a") is not counts.quota("b")
    assert counts.allowance("a") is counts.allowance("a")


def test_what_time_has_filled_up_is_not_given_back_once_more() -> None:
    quota, rates = Quota(), Rates(tpm=600)
    taken = quota.take(0, rates, 300)
    quota.take(30, rates, 600)
    quota.end(30, rates, -300, taken)
    assert quota.wait(30, rates, 10) == pytest.approx(1)
