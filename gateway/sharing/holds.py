"""Upstreams that asked to be left alone (429 with a time): what this process has heard, and what others have."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.health import Health

# What others have heard comes back with every sign of life; only what goes beyond it by so much is news.
NEWS = 0.25


class Holds:
    """Looks at the upstreams' own health, so that nothing on the way of a request has to know of this."""

    def __init__(self, health: dict[str, Health]) -> None:
        self._health = health
        self._known: dict[str, float] = {}

    def own(self, now: float) -> dict[str, float]:
        """Those that no other process may know of, and for how many seconds; they are taken as told from now on."""
        found = {name: until - now for name, until in self._fresh(now)}
        for name, left in found.items():
            self._known[name] = now + left
        return found

    def fresh(self, now: float) -> bool:
        """Is there one that no other process may know of?"""
        return any(True for _ in self._fresh(now))

    def learn(self, held: Mapping[str, float], now: float) -> None:
        """Leave these alone as well, for so many seconds."""
        self._known = {name: now + left for name, left in held.items()}
        for name, left in held.items():
            health = self._health.get(name)
            if health is None:
                health = self._health[name] = Health()
            health.hold(now, left)

    def _fresh(self, now: float) -> list[tuple[str, float]]:
        return [
            (name, health.held_until)
            for name, health in self._health.items()
            if health.held_until > max(now, self._known.get(name, 0.0) + NEWS)
        ]
