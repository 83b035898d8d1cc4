"""How an upstream has been doing: breaker, holds, retry budget, room and pace; the clock is an argument."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

MAX_EJECTION = 300.0
MAX_HOLD = 120.0
JITTER = 0.1
SHARE = 0.85
SHARE_OVER = 50
BUDGET_FLOOR = 3
# A time to first event is half forgotten after seven seconds.
DECAY = 10.0
KEPT = 100
ENOUGH = 20


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Open after `failures` in a row within `window` seconds, for `open` seconds times the number of openings in a row.

    An upstream whose rule is `hard` gets nothing while it is open, even when there is no other.
    """

    failures: int = 5
    window: float = 30.0
    open: float = 30.0
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """How many requests an upstream bears at once, how many may wait for it, and for how many seconds."""

    parallel: int = 1024
    queue: int = 128
    wait: float = 1.0


class Waiter(Protocol):
    """A future in whose place a test may put something simpler."""

    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> None: ...


class Pace:
    """How soon an upstream begins to answer: an average that follows a peak at once, and the last hundred times."""

    __slots__ = ("_at", "_average", "_recent")

    def __init__(self) -> None:
        self._at = 0.0
        self._average = 0.0
        self._recent: deque[float] = deque(maxlen=KEPT)

    def saw(self, now: float, seconds: float) -> None:
        """An answer began after so many seconds."""
        old = self.expected(now)
        left = math.exp(min(0.0, self._at - now) / DECAY)
        self._average = seconds if seconds > old else self._average * left + seconds * (1 - left)
        self._at = now
        self._recent.append(seconds)

    def expected(self, now: float) -> float:
        """Seconds to the next first event, 0 while unknown. It sinks with time: a slow upstream is tried again."""
        return self._average * math.exp(min(0.0, self._at - now) / DECAY)

    def p95(self) -> float | None:
        """What 95 % of the last answers did not exceed; None while there are too few of them."""
        if len(self._recent) < ENOUGH:
            return None
        return sorted(self._recent)[math.ceil(len(self._recent) * 0.95) - 1]


class Health:
    """One upstream's state. Client errors, 429 and aborts are no failures; a half-open breaker lets one probe through.

    `active` counts requests to their true end, a stream's last byte included; `retries` those that are sent again, from
    the decision to the first event. `waiting` are those for which there was no room.
    """

    __slots__ = (
        *("_ejections", "_in_a_row", "_open_until", "_opened_at", "_probing", "_recent", "_resting_until", "_since"),
        *("active", "held_until", "retries", "streams", "waiting", "wholes"),
    )

    def __init__(self) -> None:
        self.active = 0
        self.retries = 0
        self.held_until = 0.0
        self.streams = Pace()
        self.wholes = Pace()
        self.waiting: deque[Waiter] = deque()
        self._in_a_row = 0
        self._since = 0.0
        self._ejections = 0
        self._opened_at = 0.0
        self._open_until = 0.0
        self._resting_until = 0.0
        self._probing = False
        self._recent: deque[tuple[float, bool]] = deque(maxlen=500)

    def state(self, now: float) -> str:
        """`closed`, `open` or `half-open`."""
        if not self._open_until:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def ejected(self, now: float) -> bool:
        """Is it left alone because of its failures? A half-open breaker is so while its probe is under way."""
        if now < self._resting_until:
            return True
        return bool(self._open_until) and (now < self._open_until or self._probing)

    def available(self, now: float) -> bool:
        """May a request be sent there, as far as its past tells?"""
        return now >= self.held_until and not self.ejected(now)

    def back_in(self, now: float) -> float:
        """Seconds until it may be available again; 0 when it is."""
        return max(0.0, self.held_until - now, self._open_until - now, self._resting_until - now)

    def begin(self, now: float, *, retry: bool = False, placed: bool = False) -> bool:
        """An attempt is sent; returns whether it is the probe of a half-open breaker. Who has waited has its place."""
        self.active += not placed
        self.retries += retry
        if not self._open_until or now < self._open_until or self._probing:
            return False
        self._probing = True
        return True

    def end(self, *, retry: bool = False, probe: bool = True) -> None:
        """The attempt is over, whatever came of it. Whoever waits first gets its place."""
        self.retries -= retry
        if probe:
            self._probing = False
        while self.waiting:
            waiter = self.waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.active -= 1

    def clear(self, now: float, room: Room) -> bool:
        """Is there nothing at all against sending a request there?"""
        return (
            now >= self.held_until
            and not self._open_until
            and now >= self._resting_until
            and self.active < room.parallel
            and not self.waiting
        )

    def full(self, room: Room) -> bool:
        """Would one more have to wait?"""
        return self.active >= room.parallel or bool(self.waiting)

    def succeed(self, now: float, began: float = math.inf) -> None:
        """It came to its true end well; what began before the breaker opened does not close it."""
        self._recent.append((now, True))
        if not self._open_until or began >= self._opened_at:
            self._in_a_row = self._ejections = 0
            self._open_until = 0.0

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
        self._opened_at = now
        self._open_until = now + min(MAX_EJECTION, rule.open * self._ejections) * spread
        return True

    def hold(self, now: float, seconds: float) -> None:
        """It asked to be left alone for a while (429 with Retry-After)."""
        self.held_until = max(self.held_until, now + min(seconds, MAX_HOLD))

    def rest(self, now: float, seconds: float) -> None:
        """Leave it alone for a while, as far as there is another."""
        self._resting_until = max(self._resting_until, now + seconds)

    def may_retry(self, share: float) -> bool:
        """Is there room for one more retry in the budget of active requests?"""
        return self.retries < max(BUDGET_FLOOR, share * self.active)

    def pace(self, *, stream: bool) -> Pace:
        """Its pace: a stream's first event comes sooner than a whole answer."""
        return self.streams if stream else self.wholes

    def view(self, now: float) -> dict[str, object]:
        """All of it for a page that shows it; seconds for times."""
        return {
            "breaker": self.state(now),
            "active": self.active,
            "waiting": len(self.waiting),
            "retries": self.retries,
            "ejections": self._ejections,
            "back_in": round(self.back_in(now), 3),
            "held": now < self.held_until,
            "first_event_p95": self.streams.p95(),
            "whole_answer_p95": self.wholes.p95(),
        }

    def _mostly_fails(self, now: float, rule: BreakerRule) -> bool:
        while self._recent and now - self._recent[0][0] > rule.window:
            self._recent.popleft()
        failed = sum(1 for _, good in self._recent if not good)
        return len(self._recent) >= SHARE_OVER and failed >= SHARE * len(self._recent)
