"""How much one name may take, a client key's or a target's: requests and tokens per minute, requests at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.bucket import Bucket
from gateway.purses import Budget, Owner, Purses

# Nobody knows when a request in flight ends; this is what a client is told when only that would help.
SOON = 1.0
MOST_SAVED = 10.0


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of one name in one process; None is no limit."""

    rpm: float | None = None
    tpm: float | None = None
    parallel: int | None = None

    def share(self, workers: int) -> Rates:
        """What each of so many processes may grant; one request at once is the least."""
        return Rates(
            self.rpm / workers if self.rpm is not None else None,
            self.tpm / workers if self.tpm is not None else None,
            max(1, self.parallel // workers) if self.parallel is not None else None,
        )


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit on the way to an upstream: its rates and budget, and the names under which they are counted."""

    name: str
    rates: Rates = Rates()
    budget: Budget | None = None
    owner: Owner | None = None


class Quota:
    """What one name has taken; the clock is an argument.

    Tokens of running requests are `reserved` by an estimate; the bucket holds those that were truly used.
    """

    __slots__ = ("active", "requests", "reserved", "tokens")

    def __init__(self) -> None:
        self.active = 0
        self.reserved = 0
        self.requests = Bucket()
        self.tokens = Bucket()

    def obstacle(self, now: float, rates: Rates, tokens: int) -> tuple[float, str]:
        """The limit that keeps out a request of so many tokens for longest, and for how many seconds; 0 for none."""
        wait, limit = 0.0, ""
        if rates.parallel is not None and self.active >= rates.parallel:
            wait, limit = SOON, "parallel"
        if rates.rpm is not None and (needed := self.requests.wait(now, rates.rpm, 1)) > wait:
            wait, limit = needed, "requests"
        if rates.tpm is not None and (needed := self._wait_for_tokens(now, rates.tpm, tokens)) > wait:
            wait, limit = needed, "tokens"
        return wait, limit

    def take(self, now: float, rates: Rates, tokens: int) -> None:
        """A request of about so many tokens begins."""
        self.active += 1
        self.reserved += tokens
        if rates.rpm is not None:
            self.requests.take(now, rates.rpm, 1)

    def end(self, now: float, rates: Rates, reserved: int, used: int) -> None:
        """It has ended: those that it used count in place of those that were reserved for it."""
        self.active -= 1
        self.reserved -= reserved
        if rates.tpm is not None:
            self.tokens.take(now, rates.tpm, used)

    def left(self, now: float, tpm: float) -> int:
        """Tokens that a request may reserve."""
        return max(0, self.tokens.left(now, tpm) - self.reserved)

    def rescale(self, now: float, before: Rates, after: Rates) -> None:
        """Go on with other rates; what was used stays used."""
        if before.rpm is not None and after.rpm is not None:
            self.requests.rescale(now, before.rpm, after.rpm)
        if before.tpm is not None and after.tpm is not None:
            self.tokens.rescale(now, before.tpm, after.tpm)

    def _wait_for_tokens(self, now: float, tpm: float, tokens: int) -> float:
        """A request larger than its limit is let in when nothing else is under way and no token was used lately."""
        wait = self.tokens.wait(now, tpm, self.reserved + tokens)
        if self.reserved and self.reserved + tokens > tpm:
            return max(SOON, wait)
        return wait


class Allowance:
    """How often something extra may be done: each request earns a share of one, a few may be saved up."""

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        self._saved = 1.0

    def earn(self, share: float) -> None:
        """A request has come."""
        self._saved = min(MOST_SAVED, self._saved + share)

    def spend(self) -> bool:
        """Do it once, if there is enough for that."""
        # A thousandth less than one, so that ten shares of 10 % are one however they are added up.
        if self._saved < 0.999:
            return False
        self._saved -= 1
        return True


class Counts:
    """Quotas, allowances and money by name, as far as they were ever needed. They outlive a reload."""

    __slots__ = ("allowances", "purses", "quotas")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.quotas: dict[str, Quota] = {}
        self.allowances: dict[str, Allowance] = {}
        self.purses = Purses(clock)

    def quota(self, name: str) -> Quota:
        """What was taken of a limit."""
        return self.quotas.get(name) or self.quotas.setdefault(name, Quota())

    def allowance(self, name: str) -> Allowance:
        """What a routing may do beside its requests."""
        return self.allowances.get(name) or self.allowances.setdefault(name, Allowance())
