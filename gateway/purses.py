"""Money that was spent of budgets, by owner and by day of UTC; the clock is an argument, in Unix seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

DAY = 86_400
EPOCH = date(1970, 1, 1).toordinal()
# A millionth of a millionth is an error of rounding.
SLACK = 1e-12


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of money per day or month, UTC."""

    amount: float
    currency: str
    per: Literal["day", "month"]

    def __str__(self) -> str:
        return f"{self.amount:g} {self.currency} per {self.per}"


class Owner(NamedTuple):
    """Whose money it is: a client key, a deployment or a target of a routing, and in which currency."""

    kind: Literal["key", "deployment", "target"]
    name: str
    currency: str


class Spent(NamedTuple):
    """What was spent on one day."""

    owner: Owner
    day: int
    amount: float


class Sums(NamedTuple):
    """What an owner has spent by the end of one day, on that day and in its month."""

    day: int
    today: float
    month: float


class Shortage(NamedTuple):
    """Why a budget does not bear a request: what is left of it, and for how long that stays so.

    `busy`: the money is there, but requests under way may need it.
    """

    left: float
    wait: float
    busy: bool


def day_of(now: float) -> int:
    """The day of a moment, counted from the first of 1970."""
    return int(now // DAY)


def date_of(day: int) -> date:
    """The date of a day."""
    return date.fromordinal(EPOCH + day)


def ends_in(now: float, per: Literal["day", "month"]) -> float:
    """Seconds until a budget begins anew."""
    day = day_of(now) + 1
    if per == "month":
        today = date_of(day_of(now))
        month = today.year * 12 + today.month
        day = date(month // 12, month % 12 + 1, 1).toordinal() - EPOCH
    return day * DAY - now


def worth_saying(wait: float) -> float | None:
    """Seconds for a `retry-after`; None for more than a day, which no client waits."""
    return wait if wait <= DAY else None


def span(wait: float) -> str:
    """A long wait in words that say enough: 3d4h, 5h12m, 7m."""
    minutes = max(1, math.ceil(wait / 60))
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days}d{hours}h"
    return f"{hours}h{rest}m" if hours else f"{rest}m"


class Purse:
    """What one owner has spent today and this month, and what requests under way may cost.

    Spending that was not written down yet is kept by day, until `take` hands it out.
    """

    __slots__ = ("_day", "_fresh", "_month", "_this_month", "_today", "reserved")

    def __init__(self) -> None:
        self.reserved = 0.0
        self._day = self._this_month = -1
        self._today = self._month = 0.0
        self._fresh: dict[int, float] = {}

    def spent(self, now: float, per: Literal["day", "month"]) -> float:
        """What was spent since the day or the month began."""
        self._turn(now)
        return self._today if per == "day" else self._month

    def shortage(self, now: float, budget: Budget, amount: float, share: float = 1.0) -> Shortage | None:
        """What keeps out a request that may cost so much; None for nothing. `share` is our part of the budget."""
        left = budget.amount * share - self.spent(now, budget.per)
        if left > SLACK and amount <= left - self.reserved + SLACK:
            return None
        busy = left > SLACK and amount <= left + SLACK
        return Shortage(max(0.0, left), ends_in(now, budget.per), busy)

    def reserve(self, amount: float) -> None:
        """A request begins that may cost so much."""
        self.reserved += amount

    def settle(self, now: float, reserved: float, cost: float) -> None:
        """A request has ended: what it cost counts in place of what was reserved for it."""
        self.reserved -= reserved
        if not self.reserved > SLACK:
            self.reserved = 0.0
        if cost:
            self._turn(now)
            self._today += cost
            self._month += cost
            self._fresh[self._day] = self._fresh.get(self._day, 0.0) + cost

    @property
    def fresh(self) -> bool:
        """Was anything spent that is not written down?"""
        return bool(self._fresh)

    def take(self) -> dict[int, float]:
        """What was spent here and is not written down, by day; it is the caller's to write down, or to give back."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def give_back(self, day: int, amount: float) -> None:
        """So much of what was taken could not be written down."""
        self._fresh[day] = self._fresh.get(day, 0.0) + amount

    def learn(self, now: float, sums: Sums) -> None:
        """This is what all processes have written down, everything included that was taken here before."""
        self._turn(now)
        if sums.day == self._day:
            fresh = self._fresh.get(self._day, 0.0)
            month = sum(amount for day, amount in self._fresh.items() if _month(day) == self._this_month)
            self._today, self._month = sums.today + fresh, sums.month + month

    def _turn(self, now: float) -> None:
        """Begin another day or month."""
        day = day_of(now)
        if day == self._day:
            return
        self._day = day
        self._today = 0.0
        month = _month(day)
        if month != self._this_month:
            self._this_month = month
            self._month = 0.0


class Purses:
    """The purses of all owners that have, or had, a budget. They outlive a reload.

    `processes` serve the same configuration; `shared`: each knows what all of them have spent. `share` is this
    process's part of each budget, less than 1 when several know nothing of each other.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.processes = 1
        self.shared = False
        self.share = 1.0
        self.budgets: Mapping[Owner, Budget] = {}
        self._purses: dict[Owner, Purse] = {}

    def __getitem__(self, owner: Owner) -> Purse:
        purse = self._purses.get(owner)
        return self._purses.setdefault(owner, Purse()) if purse is None else purse

    def adopt(self, budgets: Mapping[Owner, Budget]) -> None:
        """These are the budgets of the configuration."""
        self.budgets = budgets
        for owner in budgets:
            self._purses.setdefault(owner, Purse())

    @property
    def fresh(self) -> bool:
        """Was anything spent that is not written down?"""
        return any(purse.fresh for purse in self._purses.values())

    def take(self) -> list[Spent]:
        """What was spent and is not written down."""
        return [
            Spent(owner, day, amount) for owner, purse in self._purses.items() for day, amount in purse.take().items()
        ]

    def give_back(self, spent: Iterable[Spent]) -> None:
        """This could not be written down."""
        for each in spent:
            self[each.owner].give_back(each.day, each.amount)

    def learn(self, sums: Mapping[Owner, Sums]) -> None:
        """This is what all processes have written down."""
        now = self.clock()
        for owner, each in sums.items():
            if (purse := self._purses.get(owner)) is not None:
                purse.learn(now, each)

    def standing(self) -> Iterator[tuple[Owner, Budget, float]]:
        """Each budget of the configuration, and what was spent of it."""
        now = self.clock()
        for owner, budget in self.budgets.items():
            yield owner, budget, self[owner].spent(now, budget.per)


def _month(day: int) -> int:
    found = date_of(day)
    return found.year * 12 + found.month
