"""The limits of all gateways as one: what requests take is asked of Redis, and what they used is told to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway.config.types import State
from gateway.errors import GatewayError
from gateway.log import News
from gateway.sharing.charging import NANO
from gateway.sharing.courier import Courier, Entry
from gateway.sharing.holds import Holds
from gateway.sharing.link import Link
from gateway.sharing.script import Charge, Command, Reply, Verdict, Who, beat, heard, renew, settle, take, verdict

# What a process holds lasts so many seconds without a word from it: after a crash its places are free by then.
LEASE = 15.0
# So often it says again what it holds, and that it is alive.
RENEWED, BEAT = 5.0, 1.0
# Times every limit it is more than anybody uses.
BOUNDLESS = 1e9
# The header of an answer whose limits were counted without Redis.
DEGRADED: Mapping[str, str] = {"x-gateway-state": "degraded"}


@dataclass(slots=True)
class _Held:
    """Requests at once of one limit in this process, and when Redis was last told."""

    count: int = 0
    said: float = 0.0


class Ticket:
    """What one request has taken; `settle` must be called once. Without a verdict Redis was not asked."""

    __slots__ = ("_charges", "_shared", "_verdict", "verdict")

    def __init__(self, shared: Shared, charges: Sequence[Charge], granted: Verdict | None) -> None:
        self._shared = shared
        self._charges = charges
        self.verdict = granted

    def settle(self, tokens: float | None, money: float | None = None) -> None:
        """The request has ended, and used so much; None where the estimate is to stand."""
        used = {"tokens": tokens, "budget": None if money is None else money * NANO, "parallel": 0.0}
        more = [
            charge._replace(amount=0.0 if (truly := used.get(charge.what)) is None else truly - charge.amount)
            for charge in self._charges
        ]
        self._shared.end(more, self.verdict)


class Shared:
    """One process's part in the limits of all. While `up` is false they are counted here alone.

    `processes` is how many there were when Redis was last heard. Whoever wants to know of a change to that or to `up`
    puts a call into `listeners`.
    """

    def __init__(self, state: State, workers: int, holds: Holds, news: News) -> None:
        assert state.url is not None
        self.on_error = state.on_error
        self.processes = workers
        self.listeners: list[Callable[[], None]] = []
        self._least = workers
        self._holds = holds
        self._prefix = state.prefix
        self._who = Who(os.urandom(6).hex(), LEASE)
        self._held: dict[str, _Held] = {}
        self._loop = asyncio.get_running_loop()
        self._beat_at = 0.0
        self._courier = Courier(Link(state.url.reveal()), state.timeout, self._probe, self._chores, news)
        self._courier.turned = self._tell_listeners

    @property
    def up(self) -> bool:
        """Is it worth asking Redis?"""
        return self._courier.up

    async def start(self) -> None:
        """Begin; returns when Redis answers, or when it is known that it does not."""
        await self._courier.start()

    async def close(self) -> None:
        """Give back what this process holds."""
        last = [renew(self._who, key, 0) for key in self._held]
        await self._courier.close([*last, beat(self._who._replace(lease=0.0), self._prefix, {})])

    def key(self, tag: str, name: str, what: str) -> str:
        """The name in Redis of one limit; those with the same tag may be taken together."""
        return f"{self._prefix}:{{{tag}}}:{name}:{what}"

    async def take(self, charges: Sequence[Charge]) -> Ticket | Verdict:
        """A ticket for all of the charges; the verdict where one of them is refused.

        When Redis does not answer the ticket has no verdict: the caller decides by itself. Raises GatewayError where
        the configuration says that this is no time for requests.
        """
        if self.up:
            command = take(self._who, charges)
            waiter = self._courier.ask(command, late=lambda reply: self._undo(charges, reply))
            try:
                reply = await waiter
            except asyncio.CancelledError:
                # The client left in the very moment of the answer.
                if waiter.done() and not waiter.cancelled() and (reply := waiter.result()) is not None:
                    self._undo(charges, reply)
                raise
            if reply is not None:
                found = verdict(reply)
                if not found.granted:
                    return found
                self._hold(charges, said=self._loop.time())
                return Ticket(self, charges, found)
        if self.on_error == "refuse":
            message = "The gateway cannot count limits at the moment; try again."
            raise GatewayError(message, status=503, kind="overloaded_error", code="overloaded", retry_after=1)
        self._hold(charges, said=0.0)
        return Ticket(self, charges, None)

    def end(self, more: Sequence[Charge], granted: Verdict | None) -> None:
        """Correct what was taken by these amounts."""
        for charge in more:
            if charge.what == "parallel":
                held = self._held[charge.key]
                held.count -= 1
                if granted is None:
                    held.said = 0.0
        if granted is not None and (command := settle(self._who, more, granted)) is not None:
            self._courier.tell(command)

    def sweep(self, now: float) -> None:
        """Say something when it is time to, or when an upstream wants to be left alone."""
        if self.up and (now >= self._beat_at or self._holds.fresh(now)):
            self._beat_at = 0.0
            self._courier.nudge()

    @property
    def part(self) -> float:
        """Of every limit, how much this process may grant by itself: everything while Redis says what is left."""
        alone = not self.up and self.on_error == "local_share"
        return 1 / self.processes if alone else BOUNDLESS

    def vitals(self) -> dict[str, float]:
        """How this process gets along with Redis."""
        return {
            "state_degraded": not self.up,
            "state_failures_total": self._courier.failures,
            "state_lost_total": self._courier.lost,
        }

    def _hold(self, charges: Sequence[Charge], said: float) -> None:
        for charge in charges:
            if charge.what == "parallel":
                held = self._held.setdefault(charge.key, _Held())
                held.count += 1
                held.said = min(held.said, said) if held.count > 1 else said

    def _undo(self, charges: Sequence[Charge], reply: Reply) -> None:
        """Give back what was granted to a request that did not wait for it."""
        found = verdict(reply)
        back = settle(self._who, [charge._replace(amount=-charge.amount) for charge in charges], found)
        if found.granted and back is not None:
            self._courier.tell(back)

    def _chores(self) -> Iterator[Entry]:
        """A sign of life, and what is held, when it is time for that."""
        now = self._loop.time()
        for key, held in tuple(self._held.items()):
            if now - held.said >= RENEWED:
                yield Entry(renew(self._who, key, held.count))
                held.said = now
                if not held.count:
                    del self._held[key]
        if now >= self._beat_at:
            self._beat_at = now + BEAT
            waiter: asyncio.Future[Reply | None] = self._loop.create_future()
            waiter.add_done_callback(self._listen)
            yield Entry(self._beat(), waiter, late=self._hear)

    def _probe(self) -> Command:
        """A sign of life to a Redis that may have forgotten everything: what is held is said again at once."""
        for held in self._held.values():
            held.said = 0.0
        self._beat_at = 0.0
        return self._beat()

    def _beat(self) -> Command:
        return beat(self._who, self._prefix, self._holds.own(self._loop.time()))

    def _listen(self, waiter: asyncio.Future[Reply | None]) -> None:
        reply = waiter.result()
        if reply is not None:
            self._hear(reply)

    def _hear(self, reply: Reply) -> None:
        found = heard(reply)
        self._holds.learn(found.held, self._loop.time())
        processes = max(self._least, found.processes)
        if processes != self.processes:
            self.processes = processes
            self._tell_listeners()

    def _tell_listeners(self) -> None:
        for listener in self.listeners:
            listener()
