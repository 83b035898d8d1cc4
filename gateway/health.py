"""How an upstream has been doing: breaker, holds and retry budget; the clock is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MAX_EJECTION = 300.0
MAX_HOLD = 120.0
JITTER = 0.1
SHARE = 0.85
SHARE_OVER = 50
BUDGET_FLOOR = 3


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Open after `failures` in a row within `window` seconds, for `open` seconds times the number of openings in a row."""

    failures: int = 5
    window: float = 30.0
    open: float = 30.0


class Health:
    """One upstream's state. Client errors, 429 and aborts are no failures; a half-open breaker lets one probe through."""

    __slots__ = (
        *("_ejections", "_in_a_row", "_open_until", "_probing", "_recent", "_since"),
        *("active", "held_until", "retries"),
    )

    def __init__(self) -> None:
        self.active = 0
        self.retries = 0
        self.held_until = 0.0
        self._in_a_row = 0
        self._since = 0.0
        self._ejections = 0
        self._open_until = 0.0
        self._probing = False
        self._recent: deque[tuple[float, bool]] = deque(maxlen=500)

    def state(self, now: float) -> str:
        """`closed`, `open` or `half-open`."""
        if not self._open_until:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def available(self, now: float) -> bool:
        """May a request be sent there, as far as its past tells?"""
        if now < self.held_until:
            return False
        state = self.state(now)
        return state == "closed" or (state == "half-open" and not self._probing)

    def begin(self, now: float, *, retry: bool = False) -> None:
        """An attempt is sent; in the half-open state it is the probe."""
        self.active += 1
        self.retries += retry
        if self.state(now) == "half-open":
            self._probing = True

    def end(self, *, retry: bool = False) -> None:
        """The attempt is over, whatever came of it."""
        self.active -= 1
        self.retries -= retry
        self._probing = False

    def succeed(self, now: float) -> None:
        """It came to its true end well."""
        self._in_a_row = self._ejections = 0
        self._open_until = 0.0
        self._recent.append((now, True))

    def fail(self, now: float, rule: BreakerRule, chance: float) -> bool:
        """It failed by the upstream's fault; returns whether that opened the breaker. `chance` is within 0..1."""
        if not self._in_a_row or now - self._since > rule.window:
            self._in_a_row, self._since = 0, now
        self._in_a_row += 1
        self._recent.append((now, False))
        state = self.state(now)
        probed = state == "half-open"
        if state == "open" or not (probed or self._in_a_row >= rule.failures or self._mostly_fails(now, rule)):
            return False
        self._ejections += 1
        self._in_a_row = 0
        spread = 1 - JITTER + 2 * JITTER * chance
        self._open_until = now + min(MAX_EJECTION, rule.open * self._ejections) * spread
        return True

    def hold(self, now: float, seconds: float) -> None:
        """It asked to be left alone for a while (429 with Retry-After)."""
        self.held_until = max(self.held_until, now + min(seconds, MAX_HOLD))

    def may_retry(self, share: float) -> bool:
        """Is there room for one more retry in the budget of active requests?"""
        return self.retries < max(BUDGET_FLOOR, share * self.active)

    def _mostly_fails(self, now: float, rule: BreakerRule) -> bool:
        while self._recent and now - self._recent[0][0] > rule.window:
            self._recent.popleft()
        failed = sum(1 for _, good in self._recent if not good)
        return len(self._recent) >= SHARE_OVER and failed >= SHARE * len(self._recent)
