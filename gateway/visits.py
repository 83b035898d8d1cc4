"""One attempt at an upstream as its health and limits count it, from the moment it is sent to its true end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from gateway.contract import Usage
from gateway.errors import Overloaded
from gateway.health import Health, Room
from gateway.quotas import Counts
from gateway.routes import Step
from gateway.traits import NO_SIZE, Size

NOTHING = Usage(0, 0)


class Ticket(Protocol):
    """What was taken of limits that several processes count together."""

    def settle(self, tokens: float | None, money: float | None) -> None:
        """So much was used; None where the estimate is to stand."""


class Visit:
    """A place at an upstream, taken when this is made and given back by `leave`. `began` is a time of the loop."""

    __slots__ = ("_counts", "_left", "_money", "_probe", "_retry", "_size", "_step", "_ticket", "began", "health")

    def __init__(self, health: Health, now: float, *, retry: bool, placed: bool) -> None:
        self.began = now
        self.health = health
        self._probe = health.begin(now, placed=placed)
        # The plan has counted the retry already, when it decided on it.
        self._retry = retry
        self._left = False
        self._step: Step | None = None
        self._size = NO_SIZE
        self._money = 0.0
        self._counts: Counts | None = None
        self._ticket: Ticket | None = None

    def pass_gates(self, step: Step, counts: Counts, size: Size, ticket: Ticket | None = None) -> None:
        """Take a request of about this size from the limits on its way; `ticket` is what others count of it."""
        self._step, self._counts, self._size, self._ticket = step, counts, size, ticket
        tariff = step.attempt.tariff
        self._money = tariff.estimate(*size) if tariff is not None else 0.0
        for gate in step.gates:
            counts.quota(gate.name).take(self.began, gate.rates, size.prompt)
            if gate.owner is not None:
                counts.purses[gate.owner].reserve(self._money)

    def answered(self) -> None:
        """The upstream has begun to answer: from here on it is no retry but a request like any other."""
        if self._retry:
            self._retry = False
            self.health.retries -= 1

    def leave(self, now: float, used: Usage | None = NOTHING) -> None:
        """It has come to its end, and used so much; None when nobody knows. Only the first end counts."""
        if self._left:
            return
        self._left = True
        self.health.end(retry=self._retry, probe=self._probe)
        if self._counts is not None:
            self._settle(self._counts, now, used)

    def _settle(self, counts: Counts, now: float, used: Usage | None) -> None:
        step, reserved = self._step, self._size.prompt
        assert step is not None
        tariff = step.attempt.tariff
        tokens = _tokens(used, reserved)
        cost = tariff.cost(used, reserved) if used is not None and tariff is not None else self._money
        if self._ticket is not None:
            self._ticket.settle(tokens, cost)
        for gate in step.gates:
            counts.quota(gate.name).end(now, gate.rates, reserved, reserved if tokens is None else tokens)
            if gate.owner is not None:
                counts.purses[gate.owner].settle(counts.purses.clock(), self._money, cost)


async def place_at(health: Health, room: Room) -> None:
    """Wait for a place at an upstream that is full; raises Overloaded when there is none in time."""
    message = "The upstream has all the requests that it may have at once; try again."
    if len(health.waiting) >= room.queue:
        raise Overloaded(message, retry_after=1)
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    health.waiting.append(waiter)
    try:
        async with asyncio.timeout(room.wait):
            await waiter
    except BaseException as error:
        if waiter.done() and not waiter.cancelled():
            # The place came in the same moment: it goes to the next.
            health.end(probe=False)
        else:
            with suppress(ValueError):
                health.waiting.remove(waiter)
        if isinstance(error, TimeoutError):
            raise Overloaded(message, retry_after=1) from error
        raise


def _tokens(usage: Usage | None, prompt: int) -> int | None:
    """All tokens that an answer took, of a request that has about so many; None when its usage is not known."""
    if usage is None or (usage.prompt is None and usage.completion is None):
        return None
    return (prompt if usage.prompt is None else usage.prompt) + (usage.completion or 0)
