"""How much one target takes: requests and tokens per minute, requests at once; the clock is an argument."""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60.0
# Nobody knows when a request in flight ends; this is what a client is told when only that would help.
SOON = 1.0
MOST_SAVED = 10.0


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of one target; None is no limit."""

    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit on the way to an upstream: its rates, and the name under which they are counted."""

    name: str
    rates: Rates


class Quota:
    """What one target has taken. Each rate is a bucket that holds a minute's worth and fills steadily.

    A bucket is one number, the time at which it will be full again (the generic cell rate algorithm).
    """

    __slots__ = ("_requests_full", "_tokens_full", "active")

    def __init__(self) -> None:
        self.active = 0
        self._requests_full = 0.0
        self._tokens_full = 0.0

    def wait(self, now: float, rates: Rates, tokens: int) -> float:
        """Seconds until it takes a request of so many tokens; 0 when it does so now."""
        wait = 0.0
        if rates.parallel is not None and self.active >= rates.parallel:
            wait = SOON
        if rates.rpm is not None:
            wait = max(wait, _wait(now, self._requests_full, rates.rpm, 1))
        if rates.tpm is not None:
            wait = max(wait, _wait(now, self._tokens_full, rates.tpm, tokens))
        return wait

    def take(self, now: float, rates: Rates, tokens: int) -> float:
        """A request begins; returns what `end` needs to know of it."""
        self.active += 1
        if rates.rpm is not None:
            self._requests_full = max(self._requests_full, now) + MINUTE / rates.rpm
        if rates.tpm is not None:
            self._tokens_full = max(self._tokens_full, now) + tokens * MINUTE / rates.tpm
        return self._tokens_full

    def end(self, now: float, rates: Rates, more_tokens: int, taken_until: float) -> None:
        """It has ended, and took so many tokens more than was thought.

        A negative number gives some back, except for what time has filled up since then.
        """
        self.active -= 1
        if rates.tpm is None:
            return
        seconds = more_tokens * MINUTE / rates.tpm
        if seconds < 0:
            self._tokens_full -= min(-seconds, max(0.0, taken_until - now))
        else:
            self._tokens_full = max(self._tokens_full, now) + seconds


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
    """Quotas and allowances by name, as far as they were ever needed. They outlive a reload."""

    __slots__ = ("allowances", "quotas")

    def __init__(self) -> None:
        self.quotas: dict[str, Quota] = {}
        self.allowances: dict[str, Allowance] = {}

    def quota(self, name: str) -> Quota:
        """What was taken of a limit."""
        return self.quotas.get(name) or self.quotas.setdefault(name, Quota())

    def allowance(self, name: str) -> Allowance:
        """What a routing may do beside its requests."""
        return self.allowances.get(name) or self.allowances.setdefault(name, Allowance())


def _wait(now: float, full_at: float, per_minute: int, amount: int) -> float:
    """Seconds until the bucket holds the amount; what is more than a minute's worth needs a full one."""
    needed = min(amount, per_minute) * MINUTE / per_minute
    wait = max(full_at, now) + needed - MINUTE - now
    # Below a microsecond it is an error of rounding.
    return wait if wait > 1e-6 else 0.0
