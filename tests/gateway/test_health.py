"""gateway.health: breaker, holds and retry budget of one upstream; time is a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.health import BUDGET_FLOOR, JITTER, MAX_EJECTION, MAX_HOLD, SHARE_OVER, BreakerRule, Health, Pace, Room

RULE = BreakerRule(failures=3, window=30, open=10)
MIDDLE = 0.5


def opened(at: float = 0.0) -> Health:
    health = Health()
    assert [health.fail(at, RULE, MIDDLE) for _ in range(3)] == [False, False, True]
    return health


def test_a_new_upstream_is_available() -> None:
    health = Health()
    assert health.state(0) == "closed"
    assert health.available(0)


def test_failures_in_a_row_open_the_breaker_for_a_while() -> None:
    health = opened(100)
    assert health.state(109.9) == "open"
    assert not health.available(109.9)
    assert health.state(110) == "half-open"
    assert health.available(110)


def test_a_success_between_failures_begins_the_count_anew() -> None:
    health = Health()
    for _ in range(10):
        assert not health.fail(0, RULE, MIDDLE)
        assert not health.fail(0, RULE, MIDDLE)
        health.succeed(0)
    assert health.state(0) == "closed"


def test_failures_further_apart_than_the_window_do_not_add_up() -> None:
    health = Health()
    for at in (0, 31, 62, 93):
        assert not health.fail(at, RULE, MIDDLE)
    assert health.state(93) == "closed"
    assert not health.fail(94, RULE, MIDDLE)
    assert health.fail(95, RULE, MIDDLE)


def test_a_half_open_breaker_lets_one_probe_through() -> None:
    health = opened()
    health.begin(10)
    assert not health.available(10)
    health.end()
    assert health.available(10)


def test_a_failed_probe_opens_the_breaker_for_longer_each_time() -> None:
    health = opened()
    health.begin(10)
    health.end()
    assert health.fail(10, RULE, MIDDLE)
    assert health.state(29.9) == "open"
    assert health.state(30) == "half-open"
    health.begin(30)
    assert health.fail(30, RULE, MIDDLE)
    assert health.state(59.9) == "open"


def test_a_good_probe_closes_the_breaker_and_forgets_the_openings() -> None:
    health = opened()
    health.begin(10)
    health.end()
    health.succeed(10)
    assert health.state(10) == "closed"
    assert [health.fail(20, RULE, MIDDLE) for _ in range(3)] == [False, False, True]
    assert health.state(30) == "half-open"


def test_failures_of_requests_still_under_way_do_not_prolong_an_open_breaker() -> None:
    health = opened()
    assert not any(health.fail(1, RULE, MIDDLE) for _ in range(10))
    assert health.state(10) == "half-open"


def test_the_time_open_is_bounded() -> None:
    health = opened()
    now = 0.0
    for _ in range(100):
        now += MAX_EJECTION * (1 + JITTER)
        health.begin(now)
        assert health.fail(now, RULE, 1.0)
    assert health.state(now + MAX_EJECTION * (1 + JITTER)) == "half-open"
    assert health.state(now + MAX_EJECTION) == "open"


@given(st.floats(0, 1))
def test_jitter_spreads_the_time_open_by_a_tenth(chance: float) -> None:
    health = Health()
    assert health.fail(0, BreakerRule(failures=1, open=100), chance)
    assert health.state(89.99) == "open"
    assert health.state(110.01) == "half-open"


def test_mostly_failing_opens_the_breaker_without_failures_in_a_row() -> None:
    rule = BreakerRule(failures=1000, window=30, open=10)
    health = Health()
    for at in range(8):
        health.succeed(at)
    results = [health.fail(10, rule, MIDDLE) for _ in range(60)]
    assert results.index(True) + 1 + 8 == 54  # the first of at least 50 with 85 % failed
    assert health.state(10) == "open"


def test_few_requests_prove_nothing() -> None:
    rule = BreakerRule(failures=1000)
    health = Health()
    assert not any(health.fail(0, rule, MIDDLE) for _ in range(SHARE_OVER - 1))


def test_old_results_do_not_count_for_the_share() -> None:
    rule = BreakerRule(failures=1000, window=30)
    health = Health()
    for _ in range(SHARE_OVER - 1):
        assert not health.fail(0, rule, MIDDLE)
    assert not health.fail(31, rule, MIDDLE)


def test_a_hold_lasts_as_long_as_was_asked_for_within_two_minutes() -> None:
    health = Health()
    health.hold(0, 10)
    health.hold(0, 5)
    assert not health.available(9.9)
    assert health.available(10)
    assert health.state(5) == "closed"
    health.hold(0, 10_000)
    assert not health.available(MAX_HOLD - 1)
    assert health.available(MAX_HOLD)


def test_active_requests_and_retries_are_counted() -> None:
    health = Health()
    health.begin(0)
    health.begin(0, retry=True)
    assert (health.active, health.retries) == (2, 1)
    health.end(retry=True)
    health.end()
    assert (health.active, health.retries) == (0, 0)


@pytest.mark.parametrize(
    ("active", "share", "most"), [(0, 0.2, BUDGET_FLOOR), (100, 0.2, 20), (100, 0.0, BUDGET_FLOOR)]
)
def test_retries_are_a_share_of_the_active_requests_and_three_at_least(active: int, share: float, most: int) -> None:
    health = Health()
    health.active = active
    for _ in range(most):
        assert health.may_retry(share)
        health.retries += 1
    assert not health.may_retry(share)


def test_another_request_that_ends_is_not_the_end_of_the_probe() -> None:
    health = Health()
    assert not health.begin(0)
    for _ in range(3):
        health.fail(0, RULE, MIDDLE)
    assert health.begin(10)
    assert not health.begin(10)
    health.end(probe=False)
    assert not health.available(10)
    health.end(probe=True)
    assert health.available(10)


def test_what_began_before_the_breaker_opened_does_not_close_it() -> None:
    health = opened(100)
    health.succeed(101, began=99)
    assert health.state(101) == "open"
    health.succeed(103, began=102)
    assert health.state(103) == "closed"


def test_a_rest_is_an_ejection_that_others_may_ignore() -> None:
    health = Health()
    health.rest(0, 1)
    assert health.ejected(0.9)
    assert not health.ejected(1)
    assert health.state(0.5) == "closed"


def test_an_upstream_is_back_when_everything_is_over() -> None:
    health = opened(0)
    assert health.back_in(4) == 6
    health.hold(0, 20)
    assert health.back_in(4) == 16
    assert health.back_in(30) == 0


class Waiting:
    def __init__(self, *, gone: bool = False) -> None:
        self.told = gone

    def done(self) -> bool:
        return self.told

    def set_result(self, result: None, /) -> None:
        self.told = True


def test_who_waits_longest_gets_the_place_of_who_leaves() -> None:
    room = Room(parallel=1)
    health = Health()
    health.begin(0)
    assert health.full(room)
    gone, first, second = Waiting(gone=True), Waiting(), Waiting()
    health.waiting.extend((gone, first, second))
    health.end()
    assert (first.told, second.told, health.active) == (True, False, 1)
    assert health.full(room)  # nobody slips in before those who wait
    health.begin(0, placed=True)
    health.end()
    health.begin(0, placed=True)
    health.end()
    assert (second.told, health.active) == (True, 0)
    assert not health.full(room)


def test_a_pace_follows_a_peak_at_once_and_sinks_slowly() -> None:
    pace = Pace()
    assert pace.expected(0) == 0
    pace.saw(0, 0.1)
    pace.saw(1, 2.0)
    assert pace.expected(1) == 2.0
    pace.saw(2, 0.1)
    assert 1.5 < pace.expected(2) < 2.0
    assert pace.expected(60) < 0.01


def test_p95_is_known_after_twenty_answers() -> None:
    pace = Pace()
    for number in range(19):
        pace.saw(number, 1.0)
    assert pace.p95() is None
    pace.saw(19, 9.0)
    assert pace.p95() == 1.0
    pace.saw(20, 9.0)
    assert pace.p95() == 9.0
    for number in range(100):
        pace.saw(30 + number, number / 100)
    assert pace.p95() == 0.94


def test_streams_and_whole_answers_have_a_pace_each() -> None:
    health = Health()
    health.pace(stream=True).saw(0, 0.5)
    assert health.pace(stream=False).expected(0) == 0


def test_a_view_tells_all_that_there_is() -> None:
    health = opened(0)
    health.begin(1)
    view = health.view(1)
    assert (view["breaker"], view["active"], view["ejections"], view["back_in"]) == ("open", 1, 1, 9.0)
    assert (view["waiting"], view["retries"], view["held"], view["first_event_p95"]) == (0, 0, False, None)
