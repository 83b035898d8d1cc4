"""gateway.quotas: what one target takes; time is a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.quotas import SOON, Allowance, Counts, Quota, Rates


def wait(quota: Quota, now: float, rates: Rates, tokens: int) -> float:
    return quota.obstacle(now, rates, tokens)[0]


def passed(rates: Rates, times: list[float], tokens: int = 0) -> int:
    quota = Quota()
    count = 0
    for now in times:
        if not wait(quota, now, rates, tokens):
            quota.take(now, rates, tokens)
            quota.end(now, rates, tokens, tokens)
            count += 1
    return count


def test_a_minutes_worth_of_requests_may_come_at_once() -> None:
    assert passed(Rates(rpm=5), [0.0] * 9) == 5


def test_then_they_come_as_the_bucket_fills() -> None:
    quota, rates = Quota(), Rates(rpm=6)
    for _ in range(6):
        quota.take(0, rates, 0)
    assert wait(quota, 0, rates, 0) == pytest.approx(10)
    assert wait(quota, 4, rates, 0) == pytest.approx(6)
    assert wait(quota, 10, rates, 0) == 0


@given(st.integers(1, 50), st.lists(st.floats(0, 600), max_size=200))
def test_no_ten_minutes_let_more_through_than_the_rate_and_one_bucket(rpm: int, times: list[float]) -> None:
    assert passed(Rates(rpm=rpm), sorted(times)) <= rpm * 11


def test_tokens_are_reserved_by_estimate_and_settled_by_what_was_used() -> None:
    quota, rates = Quota(), Rates(tpm=600)
    quota.take(0, rates, 500)
    assert wait(quota, 0, rates, 200) == SOON
    quota.end(0, rates, 500, 100)
    assert wait(quota, 0, rates, 200) == 0
    quota.take(0, rates, 200)
    quota.end(0, rates, 200, 1100)  # 100 + 1100 of 600
    assert wait(quota, 0, rates, 1) == pytest.approx(60.1)


def test_tokens_of_running_requests_do_not_come_back_with_time() -> None:
    quota, rates = Quota(), Rates(tpm=600)
    quota.take(0, rates, 500)
    assert wait(quota, 600, rates, 200) == SOON
    quota.end(600, rates, 500, 0)
    assert wait(quota, 600, rates, 600) == 0


def test_a_request_of_more_than_a_minutes_worth_needs_a_full_bucket() -> None:
    quota, rates = Quota(), Rates(tpm=60)
    assert wait(quota, 0, rates, 1000) == 0
    quota.tokens.take(0, 60, 1)
    assert wait(quota, 0, rates, 1000) == pytest.approx(1)


def test_requests_at_once_are_counted_to_their_end() -> None:
    quota, rates = Quota(), Rates(parallel=1)
    quota.take(0, rates, 0)
    assert quota.obstacle(0, rates, 0) == (SOON, "parallel")
    quota.end(0, rates, 0, 0)
    assert wait(quota, 0, rates, 0) == 0


def test_the_limit_that_is_in_the_way_for_longest_is_named() -> None:
    quota, rates = Quota(), Rates(rpm=6, tpm=60, parallel=1)
    quota.take(0, rates, 0)
    assert quota.obstacle(0, rates, 0) == (SOON, "parallel")
    quota.end(0, rates, 0, 59)
    assert quota.obstacle(0, rates, 11) == (pytest.approx(10), "tokens")
    for _ in range(5):
        quota.take(0, rates, 0)
        quota.end(0, rates, 0, 0)
    assert quota.obstacle(0, rates, 1) == (pytest.approx(10), "requests")


@pytest.mark.parametrize(
    ("workers", "rates"), [(1, Rates(9, 600, 5)), (3, Rates(3, 200, 1)), (9, Rates(1, 600 / 9, 1))]
)
def test_each_of_several_processes_grants_its_share(workers: int, rates: Rates) -> None:
    assert Rates(9, 600, 5).share(workers) == rates
    assert Rates().share(workers) == Rates()


def test_without_limits_nothing_waits() -> None:
    quota = Quota()
    for _ in range(1000):
        quota.take(0, Rates(), 10**6)
    assert wait(quota, 0, Rates(), 10**6) == 0


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
