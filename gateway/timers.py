"""The bounds of one upstream call, and how long to wait before the next."""

from __future__ import annotations

from dataclasses import dataclass

BACKOFF = 0.1
BACKOFF_CAP = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes that bound one call; `first_byte` and `total` are absolute, `idle` counts between events."""

    connect: float = 5.0
    first_byte: float = 120.0
    idle: float = 60.0
    total: float = 600.0
    max_response: int = 64 * 1024 * 1024
    max_event: int = 16 * 1024 * 1024
    stale_retry: bool = True


def backoff(retry: int, chance: float, base: float = BACKOFF) -> float:
    """Seconds before retry number `retry` (from 0): full jitter under an exponential cap; `chance` is within 0..1.

    `base` is the longest first wait; one above the cap is its own cap.
    """
    return chance * float(min(max(BACKOFF_CAP, base), base * 2**retry))
