"""Limits as charges: under which names Redis knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.purses import Budget, Owner, date_of, day_of
from gateway.quotas import Rates
from gateway.sharing.script import Charge

if TYPE_CHECKING:
    from gateway.sharing.shared import Shared

# Redis counts money in whole numbers: a token may cost a few billionths.
NANO = 1e9
# An amount outlives its day or month by a day: not all clocks are right.
LASTS = {"day": 2 * 86_400.0, "month": 32 * 86_400.0}


def rates_of(shared: Shared, tag: str, name: str, rates: Rates, tokens: int) -> list[Charge]:
    """What one request of so many tokens takes of these rates."""
    charges: list[Charge] = []
    if rates.rpm is not None:
        charges.append(Charge("requests", shared.key(tag, name, "rpm"), rates.rpm, 1))
    if rates.tpm is not None:
        charges.append(Charge("tokens", shared.key(tag, name, "tpm"), rates.tpm, tokens))
    if rates.parallel is not None:
        charges.append(Charge("parallel", shared.key(tag, name, "parallel"), rates.parallel, 1))
    return charges


def budget_of(shared: Shared, tag: str, owner: Owner, budget: Budget, money: float, now: float) -> Charge:
    """What a request that may cost so much takes of a budget; the name tells the day or the month of `now`."""
    date = date_of(day_of(now)).isoformat()
    period = date if budget.per == "day" else date[: len("2000-01")]
    key = shared.key(tag, owner.name, f"budget:{owner.currency}:{period}")
    return Charge("budget", key, budget.amount * NANO, money * NANO, LASTS[budget.per])
