"""A rate per minute as one number, the time at which it will be whole again (GCRA); the clock is an argument."""

from __future__ import annotations

MINUTE = 60.0
# A thousandth of one is forgiven, so that sums of fractions let exactly as many pass as the limit says.
SLACK = 0.001


class Bucket:
    """Holds a minute's worth and fills steadily. Times are the event loop's, in seconds."""

    __slots__ = ("full_at",)

    def __init__(self) -> None:
        self.full_at = 0.0

    def wait(self, now: float, per_minute: float, amount: float) -> float:
        """Seconds until it holds the amount, 0 when it does; what is more than a minute's worth needs a full one."""
        if per_minute <= 0:
            return MINUTE
        each = MINUTE / per_minute
        wait = max(self.full_at, now) + min(amount, per_minute) * each - MINUTE - now
        return wait if wait > SLACK * each else 0.0

    def take(self, now: float, per_minute: float, amount: float) -> None:
        """Take the amount, even if that is more than it holds."""
        if per_minute > 0:
            self.full_at = max(self.full_at, now) + amount * MINUTE / per_minute

    def rescale(self, now: float, before: float, after: float) -> None:
        """Go on with another rate; what was taken stays taken."""
        if after > 0:
            self.full_at = now + self.back_in(now) * before / after

    def left(self, now: float, per_minute: float) -> int:
        """The amount that it holds."""
        return max(0, int((MINUTE - self.back_in(now)) * per_minute / MINUTE + SLACK))

    def back_in(self, now: float) -> float:
        """Seconds until it is whole again."""
        return max(0.0, self.full_at - now)
