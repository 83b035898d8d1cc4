"""gateway.visits: what an attempt takes of its limits, and what of it comes back."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.types import Retry
from gateway.contract import Usage
from gateway.health import Health
from gateway.prices import Tariff
from gateway.purses import Budget, Owner
from gateway.quotas import Counts, Gate, Rates
from gateway.routes import Attempt, Step
from gateway.timers import Limits
from gateway.traits import Size
from gateway.visits import NOTHING, Visit
from plugins.openai import PROVIDER

NOON = 1_796_040_000.0
# A dollar for a thousand tokens of input, two for a thousand of output.
TARIFF = Tariff(1000, 2000, 100, 1250)
DEPLOYMENT, TARGET = Owner("deployment", "a", "USD"), Owner("target", "r -> a", "USD")
RATES = Rates(tpm=10_000)
SIZE = Size(100, 50)


def visit(tariff: Tariff | None = TARIFF) -> tuple[Visit, Counts]:
    limits: Any = Limits()
    attempt = Attempt("a", PROVIDER, "p", None, limits, limits, Retry(), tariff=tariff)  # type: ignore[arg-type]  # nobody looks at the target
    gates = (
        Gate("r -> a", Rates(), Budget(10, "USD", "day"), TARGET),
        Gate("a", RATES, Budget(100, "USD", "month"), DEPLOYMENT),
    )
    counts = Counts(lambda: NOON)
    found = Visit(Health(), 0.0, retry=False, placed=False)
    found.pass_gates(Step(attempt, gates), counts, SIZE)
    return found, counts


def money(counts: Counts) -> set[tuple[float, float]]:
    """What is reserved and what is spent, in each purse."""
    purses = [counts.purses[owner] for owner in (DEPLOYMENT, TARGET)]
    return {(round(purse.reserved, 9), round(purse.spent(NOON, "day"), 9)) for purse in purses}


@pytest.mark.parametrize(
    ("used", "tokens", "cost"),
    [
        (NOTHING, 0, 0),
        (Usage(80, 30), 110, 0.14),
        (Usage(80, 30, cached=50), 110, 0.095),
        (Usage(completion=30, source="partial"), 130, 0.16),
        (None, 100, 0.2),
    ],
)
def test_the_true_usage_counts_in_every_limit_on_the_way(used: Usage | None, tokens: int, cost: float) -> None:
    found, counts = visit()
    assert money(counts) == {(0.2, 0)}
    assert counts.quota("a").left(0.0, 10_000) == 9_900
    found.leave(0.0, used)
    assert money(counts) == {(0, cost)}
    assert counts.quota("a").left(0.0, 10_000) == 10_000 - tokens
    assert counts.quota("r -> a").active == counts.quota("a").active == 0


def test_what_has_no_price_costs_nothing() -> None:
    found, counts = visit(None)
    found.leave(0.0, Usage(80, 30))
    assert money(counts) == {(0, 0)}


def test_a_visit_without_gates_is_only_the_healths() -> None:
    health = Health()
    found = Visit(health, 0.0, retry=False, placed=False)
    assert health.active == 1
    found.leave(1.0)
    assert health.active == 0
