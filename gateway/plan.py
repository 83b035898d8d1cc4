"""Which attempt of a route comes next, and when: the rules of retry and fallback; the clock is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf

from gateway.config.types import Retry
from gateway.errors import BudgetSpent, GatewayError, NoHealthyUpstream, RateLimited, UpstreamError
from gateway.purses import span, worth_saying
from gateway.quotas import SOON, Counts, Gate
from gateway.routes import HealthOf, Route, Step
from gateway.strategies import Chance
from gateway.timers import backoff
from gateway.traits import Size

# A provider says so when the account has no money left: no waiting cures that.
FOR_GOOD = frozenset(("insufficient_quota",))


class Obstacle(Enum):
    """Why a step cannot be taken now."""

    HELD = "asked to be left alone"
    LIMIT = "over its limit"
    SPENT = "its budget is spent"
    EJECTED = "ejected"
    SHUT = "ejected, and its breaker is hard"
    FULL = "no room"


@dataclass(slots=True)
class _Failed:
    """A step that was taken and failed: how often, and when it may be taken again."""

    step: Step
    count: int = 0
    ready_at: float = inf


class Plan:
    """The way of one request through its route: steps in order; one that cannot be taken now is passed over."""

    __slots__ = (
        "_chance",
        "_counts",
        "_deadline",
        "_failed",
        "_fresh",
        "_health_of",
        "_route",
        "_size",
        "_spent",
        "_waits",
    )

    def __init__(
        self, route: Route, health_of: HealthOf, counts: Counts, size: Size, deadline: float, chance: Chance
    ) -> None:
        self._route = route
        self._health_of = health_of
        self._counts = counts
        self._size = size
        self._deadline = deadline
        self._chance = chance
        self._fresh: list[Step] = list(route.steps)
        self._failed: list[_Failed] = []
        self._waits: list[float] = []
        # Seconds until budgets begin anew; nobody waits for that.
        self._spent: list[float] = []

    def pick(self, now: float) -> Step | None:
        """The best step that was not taken yet and can be; None when there is none."""
        met: dict[Obstacle, Step] = {}
        for step in self._fresh:
            obstacle = self._obstacle(step, now)
            if obstacle is None or (obstacle is Obstacle.EJECTED and self._panics(now)):
                self._fresh.remove(step)
                return step
            met.setdefault(obstacle, step)
        # The last resorts: to wait for room, and, before anything was tried, an upstream that has failed a lot, or the
        # only one although it asked for a pause: whether that is for this request too is its own to say.
        last = met.get(Obstacle.FULL) or (None if self._failed else met.get(Obstacle.EJECTED))
        if last is None and len(self._route.steps) == 1 and (last := met.get(Obstacle.HELD)) is not None:
            self._waits.clear()
        if last is not None:
            self._fresh.remove(last)
        return last

    def take(self, step: Step) -> None:
        """This one is taken already."""
        self._fresh.remove(step)

    def refusal(self, now: float) -> GatewayError:
        """Why nothing can be picked: the answer of a request that was never sent."""
        if self._waits:
            message = "Every upstream of this model is at its limit; try again later."
            return RateLimited(message, retry_after=min(self._waits))
        if self._spent:
            wait = min(self._spent)
            message = f"The budget of every upstream of this model is spent; the first begins anew in {span(wait)}."
            return BudgetSpent(message, retry_after=worth_saying(wait))
        back = [self._health_of(step.attempt.deployment).back_in(now) for step in self._fresh]
        message = "Every upstream of this model has failed too often lately; try again later."
        return NoHealthyUpstream(message, retry_after=min(back, default=1.0))

    def passed(self, wait: float, *, spent: bool) -> None:
        """What was picked could not be taken: somebody else was sooner, or the money is spent."""
        (self._spent if spent else self._waits).append(wait)

    def again(self, step: Step) -> None:
        """Take this one next: its failure told how to do better."""
        self._fresh.insert(0, step)

    def failed(self, step: Step, error: UpstreamError, now: float) -> None:
        """Take note of a failure."""
        entry = next((each for each in self._failed if each.step is step), None)
        if entry is None:
            entry = _Failed(step)
            self._failed.append(entry)
        entry.count += 1
        retry = self._route.retry
        entry.ready_at = now + wait_at_same(error, retry, entry.count - 1, self._chance())
        if entry.count >= self._route.at_one:
            entry.ready_at = inf
        if error.retry_after is not None:
            self._waits.append(error.retry_after)

    def following(self, error: UpstreamError, made: int, now: float) -> tuple[Step, float, bool] | None:
        """What follows a failure: a step, seconds to wait before it, and whether it is a retry at the same upstream.

        A retry is counted in its upstream's budget from now on. None when the client is to have the error.
        """
        if made >= self._route.most or now >= self._deadline or not may_repeat(error, self._route.retry):
            return None
        if (step := self.pick(now)) is not None:
            return step, 0.0, False
        for entry in sorted(self._failed, key=lambda entry: entry.ready_at):
            if entry.ready_at >= self._deadline:
                return None
            health = self._health_of(entry.step.attempt.deployment)
            # Once the breaker is open, only first attempts go there: a dead upstream is not called thrice as often.
            if not health.ejected(now) and health.may_retry(self._route.retry.budget):
                health.retries += 1
                return entry.step, max(0.0, entry.ready_at - now), True
        return None

    def second(self, now: float) -> Step | None:
        """A step for a hedge: one that is not taken yet, and free at once."""
        for step in self._fresh:
            health = self._health_of(step.attempt.deployment)
            if self._obstacle(step, now) is None and health.may_retry(self._route.retry.budget):
                self._fresh.remove(step)
                return step
        return None

    def final(self, error: UpstreamError, made: int) -> UpstreamError:
        """The error for the client: it is told the shortest wait of all, and not to multiply our retries by its own."""
        if self._waits and error.cause in {"429", "5xx", "connect"}:
            error.retry_after = min(self._waits)
        if error.code in FOR_GOOD or (made > 1 and error.retry_after is None):
            error.no_retry = True
        return error

    def _obstacle(self, step: Step, now: float) -> Obstacle | None:
        attempt = step.attempt
        health = self._health_of(attempt.deployment)
        if now < health.held_until:
            self._waits.append(health.held_until - now)
            return Obstacle.HELD
        for gate in step.gates:
            wait, _ = self._counts.quota(gate.name).obstacle(now, gate.rates, self._size.prompt)
            if wait:
                self._waits.append(wait)
                return Obstacle.LIMIT
            if gate.budget is not None and (obstacle := self._shortage(gate, step)):
                return obstacle
        if health.ejected(now):
            return Obstacle.SHUT if attempt.rule.hard else Obstacle.EJECTED
        return Obstacle.FULL if health.full(attempt.room) else None

    def _shortage(self, gate: Gate, step: Step) -> Obstacle | None:
        """Does the budget of a gate not bear this request?"""
        purses, tariff = self._counts.purses, step.attempt.tariff
        assert gate.budget is not None
        assert gate.owner is not None
        now = purses.clock()
        # Without a price, which only a wildcard's model may be, nobody could say when the budget is spent.
        amount = tariff.estimate(*self._size) if tariff is not None else inf
        short = purses[gate.owner].shortage(now, gate.budget, amount, purses.share)
        if short is None:
            return None
        if short.busy:
            self._waits.append(SOON)
            return Obstacle.LIMIT
        self._spent.append(short.wait)
        return Obstacle.SPENT

    def _panics(self, now: float) -> bool:
        """With more than half of a route's upstreams ejected their past is ignored (Envoy's threshold)."""
        return _ejected(self._route.steps, self._health_of, now) * 2 > len(self._route.steps)


def may_repeat(error: UpstreamError, retry: Retry) -> bool:
    """May another attempt follow this failure, there or elsewhere?"""
    if error.cause == "reset":
        return retry.unsafe or "reset" in retry.on
    return error.cause in retry.on


def wait_at_same(error: UpstreamError, retry: Retry, earlier: int, chance: float) -> float:
    """Seconds until the same upstream may be asked again; infinite where it may not.

    After a timeout it may be working on the request still; a credential that was refused stays so; and a 429 that does
    not say how long is no invitation.
    """
    if error.cause == "auth" or (error.cause == "timeout" and not retry.unsafe) or error.code in FOR_GOOD:
        return inf
    if error.retry_after is not None:
        return error.retry_after
    return inf if error.cause == "429" else backoff(earlier, chance, retry.backoff)


def _ejected(steps: Sequence[Step], health_of: HealthOf, now: float) -> int:
    return sum(health_of(step.attempt.deployment).ejected(now) for step in steps)
