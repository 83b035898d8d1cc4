"""gateway.plan: which attempt comes next; time is a number."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from gateway.config.types import Retry
from gateway.errors import BudgetSpent, NoHealthyUpstream, RateLimited, UpstreamError
from gateway.health import BreakerRule, Health, Room
from gateway.plan import Plan, may_repeat, wait_at_same
from gateway.prices import Tariff
from gateway.purses import Budget, Owner, Purse
from gateway.quotas import SOON, Counts, Gate, Rates
from gateway.routes import Attempt, Route, Step
from gateway.timers import Limits
from gateway.traits import Size
from plugins.openai import PROVIDER

TOTAL = 100.0
# A request of ten tokens is thought to cost a dollar.
TARIFF = Tariff(100_000, 0, 0, 0)
# Noon of the 30th of November 2026.
NOON = 1_796_040_000.0


class Fleet:
    """A route over upstreams of these names, and a plan for each request."""

    def __init__(self, *names: str, most: int = 3, at_one: int = 2, retry: Retry | None = None, **attempt: Any) -> None:
        self.health = {name: Health() for name in names}
        self.counts = Counts(lambda: NOON)
        self.gates: dict[str, tuple[Gate, ...]] = {}
        self.steps = {name: Step(self._attempt(name, attempt)) for name in names}
        self.retry = retry or Retry()
        self.most, self.at_one = most, at_one

    @staticmethod
    def _attempt(name: str, options: dict[str, Any]) -> Attempt:
        limits = Limits()
        return Attempt(name, PROVIDER, "p", None, limits, limits, Retry(), deployment=name, **options)  # type: ignore[arg-type]  # no plan looks at the target

    def limit(self, name: str, rates: Rates) -> None:
        self.steps[name] = Step(self.steps[name].attempt, (Gate(name, rates),))

    def afford(self, name: str, amount: float, tariff: Tariff | None = TARIFF) -> Purse:
        """Give an upstream a budget per day."""
        owner = Owner("deployment", name, "USD")
        gate = Gate(name, Rates(), Budget(amount, "USD", "day"), owner)
        self.steps[name] = Step(replace(self.steps[name].attempt, tariff=tariff), (gate,))
        return self.counts.purses[owner]

    def open(self, name: str, at: float = 0.0) -> None:
        while not self.health[name].fail(at, BreakerRule(open=30), 0.5):
            pass

    def plan(self) -> Plan:
        route = Route(list(self.steps.values()), self.retry, self.most, self.at_one, TOTAL)
        return Plan(route, self.health.__getitem__, self.counts, Size(10, 0), TOTAL, lambda: 1.0)


def error(cause: Any = "5xx", retry_after: float | None = None, code: str = "e") -> UpstreamError:
    return UpstreamError("failed", cause=cause, retry_after=retry_after, code=code)


def name(step: Step | None) -> str | None:
    return step.attempt.name if step else None


def journey(plan: Plan, *errors: UpstreamError, now: float = 0.0) -> list[tuple[str, float]]:
    """What is tried when the attempts fail like this: each name, and the seconds waited before it."""
    step = plan.pick(now)
    assert step
    way = [(step.attempt.name, 0.0)]
    for made, failure in enumerate(errors, 1):
        plan.failed(step, failure, now)
        following = plan.following(failure, made, now)
        if following is None:
            break
        step, wait, _ = following
        now += wait
        way.append((step.attempt.name, round(wait, 6)))
    return way


def test_the_other_upstream_comes_before_a_second_try_at_the_same() -> None:
    assert journey(Fleet("a", "b").plan(), error(), error(), error()) == [("a", 0), ("b", 0), ("a", 0.1)]


def test_without_a_word_there_are_two_attempts_at_one_upstream() -> None:
    assert journey(Fleet("a").plan(), error(), error(), error()) == [("a", 0), ("a", 0.1)]


def test_the_waits_grow_with_each_retry_at_the_same() -> None:
    plan = Fleet("a", most=4, at_one=4).plan()
    assert journey(plan, error(), error(), error(), error()) == [("a", 0), ("a", 0.1), ("a", 0.2), ("a", 0.4)]


def test_no_request_makes_more_attempts_than_it_may() -> None:
    assert len(journey(Fleet(*"abcdef").plan(), *[error()] * 9)) == 3
    assert len(journey(Fleet("a", "b", most=1).plan(), error())) == 1


@pytest.mark.parametrize("cause", ["request", "answer", "timeout", "reset", "auth"])
def test_what_may_have_run_or_is_nobodys_fault_is_never_repeated(cause: str) -> None:
    assert len(journey(Fleet("a", "b").plan(), error(cause))) == 1


@pytest.mark.parametrize("cause", ["timeout", "auth"])
def test_by_option_another_upstream_is_asked_but_never_the_same(cause: Any) -> None:
    fleet = Fleet("a", "b", retry=Retry(on=(cause,)))
    assert journey(fleet.plan(), error(cause), error(cause)) == [("a", 0), ("b", 0)]


@pytest.mark.parametrize("retry", [Retry(unsafe=True), Retry(on=("reset",))])
def test_by_option_a_reset_is_repeated(retry: Retry) -> None:
    assert journey(Fleet("a", retry=retry).plan(), error("reset")) == [("a", 0), ("a", 0.1)]


def test_unsafe_repeats_a_timeout_at_the_same_upstream() -> None:
    retry = Retry(unsafe=True, on=("timeout",))
    assert journey(Fleet("a", retry=retry).plan(), error("timeout")) == [("a", 0), ("a", 0.1)]


def test_a_429_is_waited_for_only_if_it_says_how_long_and_there_is_time() -> None:
    assert journey(Fleet("a").plan(), error("429", 5.0)) == [("a", 0), ("a", 5.0)]
    assert journey(Fleet("a").plan(), error("429")) == [("a", 0)]
    assert journey(Fleet("a").plan(), error("429", TOTAL)) == [("a", 0)]
    assert journey(Fleet("a").plan(), error("429", 5.0), now=96.0) == [("a", 0)]


def test_no_waiting_brings_money_back() -> None:
    assert wait_at_same(error("429", 1.0, "insufficient_quota"), Retry(), 0, 1.0) == inf


def test_of_two_upstreams_the_one_that_is_ready_sooner_is_asked_again() -> None:
    assert journey(Fleet("a", "b").plan(), error("429", 9.0), error("429", 2.0)) == [("a", 0), ("b", 0), ("b", 2.0)]


def test_after_the_deadline_nothing_follows() -> None:
    plan = Fleet("a", "b").plan()
    step = plan.pick(0)
    assert step
    plan.failed(step, error(), TOTAL)
    assert plan.following(error(), 1, TOTAL) is None


def test_a_retry_is_counted_from_the_decision_on() -> None:
    fleet = Fleet("a")
    decided = []
    for _ in range(5):
        plan = fleet.plan()
        step = plan.pick(0)
        assert step
        plan.failed(step, error(), 0)
        decided.append(plan.following(error(), 1, 0) is not None)
    assert decided == [True, True, True, False, False]
    assert fleet.health["a"].retries == 3


def test_an_upstream_whose_breaker_has_opened_gets_no_retries() -> None:
    fleet = Fleet("a")
    plan = fleet.plan()
    step = plan.pick(0)
    assert step
    fleet.open("a")
    plan.failed(step, error(), 0)
    assert plan.following(error(), 1, 0) is None


def test_an_ejected_upstream_is_passed_over() -> None:
    fleet = Fleet("a", "b")
    fleet.open("a")
    assert journey(fleet.plan(), error()) == [("b", 0), ("b", 0.1)]


def test_with_more_than_half_ejected_their_past_is_ignored() -> None:
    fleet = Fleet("a", "b", "c")
    fleet.open("a")
    assert name(fleet.plan().pick(0)) == "b"
    fleet.open("b")
    assert name(fleet.plan().pick(0)) == "a"


def test_the_last_upstream_is_asked_though_it_is_ejected() -> None:
    fleet = Fleet("a", "b")
    fleet.open("a")
    fleet.health["b"].hold(0, 10)
    assert name(fleet.plan().pick(0)) == "a"


def test_a_hard_breaker_refuses_even_the_last() -> None:
    fleet = Fleet("a", rule=BreakerRule(hard=True))
    fleet.open("a")
    plan = fleet.plan()
    assert plan.pick(10) is None
    refusal = plan.refusal(10)
    assert isinstance(refusal, NoHealthyUpstream)
    assert (refusal.status, refusal.retry_after) == (503, 20)
    assert name(fleet.plan().pick(31)) == "a"


def test_while_the_probe_is_under_way_others_go_elsewhere() -> None:
    fleet = Fleet("a", "b")
    fleet.open("a")
    assert name(fleet.plan().pick(31)) == "a"
    fleet.health["a"].begin(31)
    assert name(fleet.plan().pick(31)) == "b"


def test_what_asked_to_be_left_alone_is_left_alone() -> None:
    fleet = Fleet("a", "b")
    fleet.health["a"].hold(0, 10)
    assert name(fleet.plan().pick(9)) == "b"
    assert name(fleet.plan().pick(10)) == "a"


def test_the_only_upstream_is_asked_once_though_it_asked_for_a_pause() -> None:
    fleet = Fleet("a")
    fleet.health["a"].hold(0, 10)
    plan = fleet.plan()
    step = plan.pick(1)
    assert name(step) == "a"
    error = UpstreamError("no", status=503)
    error.cause = "5xx"
    assert plan.final(error, 1).retry_after is None
    assert plan.pick(1) is None


def test_with_all_of_them_held_the_client_is_told_the_shortest_wait() -> None:
    fleet = Fleet("a", "b")
    fleet.health["a"].hold(0, 10)
    fleet.health["b"].hold(0, 7)
    plan = fleet.plan()
    assert plan.pick(1) is None
    refusal = plan.refusal(1)
    assert isinstance(refusal, RateLimited)
    assert (refusal.status, refusal.code, refusal.retry_after) == (429, "rate_limit_exceeded", 6)


def test_a_target_over_its_limit_is_passed_over() -> None:
    fleet = Fleet("a", "b")
    fleet.limit("a", Rates(rpm=1))
    fleet.counts.quota("a").take(0, Rates(rpm=1), 10)
    assert name(fleet.plan().pick(0)) == "b"
    fleet.limit("b", Rates(tpm=5))
    fleet.counts.quota("b").take(0, Rates(tpm=5), 5)
    fleet.counts.quota("b").end(0, Rates(tpm=5), 5, 5)
    plan = fleet.plan()
    assert plan.pick(30) is None
    assert plan.refusal(30).retry_after == pytest.approx(30)


def test_a_target_whose_budget_is_spent_is_passed_over() -> None:
    fleet = Fleet("a", "b")
    fleet.afford("a", 2).settle(NOON, 0, 1.5)
    assert name(fleet.plan().pick(0)) == "b"
    fleet.afford("b", 5).settle(NOON, 0, 5)
    plan = fleet.plan()
    assert plan.pick(0) is None
    refusal = plan.refusal(0)
    assert isinstance(refusal, BudgetSpent)
    assert (refusal.status, refusal.code, refusal.retry_after) == (402, "insufficient_quota", 43_200)
    assert refusal.message.endswith("the first begins anew in 12h0m.")


def test_money_that_requests_under_way_may_need_is_waited_for_like_a_rate() -> None:
    fleet = Fleet("a")
    fleet.afford("a", 2).reserve(1.5)
    plan = fleet.plan()
    assert plan.pick(0) is None
    refusal = plan.refusal(0)
    assert (refusal.status, refusal.retry_after) == (429, SOON)


def test_a_model_without_a_price_has_no_money_left() -> None:
    fleet = Fleet("a")
    fleet.afford("a", 1_000_000, None)
    plan = fleet.plan()
    assert plan.pick(0) is None
    assert plan.refusal(0).status == 402


def test_a_rate_that_will_be_free_is_told_before_a_budget_that_is_spent() -> None:
    fleet = Fleet("a", "b")
    fleet.afford("a", 0)
    fleet.limit("b", Rates(rpm=60))
    for _ in range(60):
        fleet.counts.quota("b").take(0, Rates(rpm=60), 0)
    plan = fleet.plan()
    assert plan.pick(0) is None
    assert (plan.refusal(0).status, plan.refusal(0).retry_after) == (429, pytest.approx(1))


def test_where_there_is_no_room_another_is_asked_and_only_then_waited() -> None:
    fleet = Fleet("a", "b", room=Room(parallel=1))
    fleet.health["a"].begin(0)
    assert name(fleet.plan().pick(0)) == "b"
    fleet.health["b"].begin(0)
    assert name(fleet.plan().pick(0)) == "a"


def test_a_step_that_is_to_be_repeated_comes_first() -> None:
    fleet = Fleet("a", "b")
    plan = fleet.plan()
    step = plan.pick(0)
    assert step
    plan.again(step)
    assert plan.pick(0) is step


def test_a_hedge_takes_what_is_free_at_once() -> None:
    fleet = Fleet("a", "b", "c")
    fleet.health["b"].hold(0, 5)
    plan = fleet.plan()
    plan.pick(0)
    assert name(plan.second(0)) == "c"
    assert plan.second(0) is None


def test_a_hedge_stays_within_the_retry_budget() -> None:
    fleet = Fleet("a", "b")
    fleet.health["b"].retries = 3
    plan = fleet.plan()
    plan.pick(0)
    assert plan.second(0) is None


def test_the_client_is_told_the_shortest_wait_of_all_candidates() -> None:
    plan = Fleet("a", "b").plan()
    journey(plan, error("429", 60.0), error("429", 200.0))
    assert plan.final(error("429", 200.0), 2).retry_after == 60


@pytest.mark.parametrize(
    ("failure", "made", "told"),
    [
        (error(), 1, False),
        (error(), 2, True),
        (error("429", 5.0), 2, False),
        (error("429", code="insufficient_quota"), 1, True),
    ],
)
def test_a_client_is_told_not_to_retry_what_was_retried_and_no_time_cures(
    failure: UpstreamError, made: int, told: bool
) -> None:
    assert Fleet("a").plan().final(failure, made).no_retry is told


def test_the_causes_that_lead_on_are_those_of_the_rule() -> None:
    rule = Retry(on=("connect", "5xx"))
    assert [may_repeat(error(cause), rule) for cause in ("connect", "5xx", "429", "request")] == [
        True,
        True,
        False,
        False,
    ]
