"""One attempt at an upstream as its health and limits count it, from the moment it is sent to its true end."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.contract import Usage
from gateway.health import Health
from gateway.quotas import Counts, Gate


class Visit:
    """A place at an upstream, taken when this is made and given back once by `leave`. `began` is a time of the loop."""

    __slots__ = ("_counts", "_gates", "_probe", "_retry", "_tokens", "began", "health")

    def __init__(self, health: Health, now: float, *, retry: bool, placed: bool) -> None:
        self.began = now
        self.health = health
        self._probe = health.begin(now, placed=placed)
        # The plan has counted the retry already, when it decided on it.
        self._retry = retry
        self._gates: Sequence[Gate] = ()
        self._tokens = 0
        self._counts: Counts | None = None

    def pass_gates(self, gates: Sequence[Gate], counts: Counts, tokens: int) -> None:
        """Take a request of about so many tokens from limits."""
        self._gates, self._counts, self._tokens = gates, counts, tokens
        for gate in gates:
            counts.quota(gate.name).take(self.began, gate.rates, tokens)

    def answered(self) -> None:
        """The upstream has begun to answer: from here on it is no retry but a request like any other."""
        if self._retry:
            self._retry = False
            self.health.retries -= 1

    def leave(self, now: float, used: int | None = 0) -> None:
        """It has come to its end, and used so many tokens; None when nobody knows."""
        self.health.end(retry=self._retry, probe=self._probe)
        if self._counts is not None:
            reserved = self._tokens
            for gate in self._gates:
                self._counts.quota(gate.name).end(now, gate.rates, reserved, reserved if used is None else used)


def tokens_of(usage: Usage | None) -> int | None:
    """All tokens that an answer took; None when its usage is not known."""
    if usage is None or (usage.prompt is None and usage.completion is None):
        return None
    return (usage.prompt or 0) + (usage.completion or 0)
