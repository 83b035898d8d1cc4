"""Carries what processes ask of Redis: in batches over one connection, each within a deadline, behind a breaker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.log import News
from gateway.sharing.link import Link, LinkLost
from gateway.sharing.script import Command, Reply

# So often in a row an answer may come too late before nothing is asked any more.
MISSES = 3
# For so long nothing is sent then; after it, Redis has to answer one question in time.
OPEN = 2.0
# What was sent may be answered so late, and so long may a connection take; nobody waits for it.
PATIENCE = 1.0
# Corrections that wait while Redis is away; with more, the oldest are lost, and the estimates stand.
KEPT = 10_000
BATCH = 100
# A timer that is late by more than this shows that this process stood still, which is not Redis' fault.
LATE = 0.005

Late = Callable[[Reply], None]


@dataclass(slots=True, eq=False)
class Entry:
    """A command on its way. `waiter` gets the reply, or None when there is none in time.

    `late` gets a reply that nobody waits for any more. `told`: it is a correction, which is not said again.
    """

    command: Command
    waiter: asyncio.Future[Reply | None] | None = None
    until: float = 0.0
    late: Late | None = None
    told: bool = False

    def answer(self, reply: Reply | None) -> None:
        """Hand over what Redis said."""
        if self.waiter is None:
            return
        if not self.waiter.done():
            self.waiter.set_result(reply)
        elif reply is not None and self.late is not None:
            self.late(reply)


class Courier:
    """`up` says whether it is worth asking; `turned` is called when that changes.

    `chores` are commands for the next batch, after everything told before.
    """

    def __init__(
        self,
        link: Link,
        deadline: float,
        probe: Callable[[], Command],
        chores: Callable[[], Iterable[Entry]],
        news: News,
    ) -> None:
        self.up = False
        self.turned: Callable[[], None] = lambda: None
        self.failures = 0
        self.lost = 0
        self._link = link
        self._deadline = deadline
        self._probe = probe
        self._chores = chores
        self._news = news
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._asked: deque[Entry] = deque()
        self._waiting: deque[Entry] = deque()
        self._told: deque[Entry] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._excused = False
        self._misses = 0
        self._away_since = self._loop.time()
        self._said_away = False
        self._closing = False
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns when Redis answers, or when it is known that it does not."""
        self._task = asyncio.create_task(self._run())
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * PATIENCE):
                await self._settled.wait()

    def ask(self, command: Command, late: Late | None = None) -> asyncio.Future[Reply | None]:
        """The reply to a command, or None when there is none in time; only while `up`."""
        waiter: asyncio.Future[Reply | None] = self._loop.create_future()
        entry = Entry(command, waiter, late=late)
        self._waiting.append(entry)
        self._expect(entry)
        self._wake.set()
        return waiter

    def tell(self, command: Command) -> None:
        """Send a command some time, without an answer."""
        if len(self._told) >= KEPT:
            self._told.popleft()
            self.lost += 1
        self._told.append(Entry(command, told=True))
        self._wake.set()

    def nudge(self) -> None:
        """There may be chores."""
        self._wake.set()

    async def close(self, last: Sequence[Command]) -> None:
        """Send what is left and these, as far as that goes quickly, and hang up."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            if self.up:
                await asyncio.wait([self._task], timeout=self._deadline)
            self._task.cancel()
            await asyncio.wait([self._task])
        if self.up:
            self.up = False
            rest = [entry.command for entry in (*self._told, *self._waiting) if entry.waiter is None]
            with suppress(LinkLost, TimeoutError):
                async with asyncio.timeout(self._deadline + LATE):
                    await self._link.call([*rest, *last])
        if self._timer is not None:
            self._timer.cancel()
        self._release()
        await self._link.close()

    async def _run(self) -> None:
        while not self._closing:
            try:
                if not self.up:
                    await self._return()
                await self._work()
            except LinkLost as error:
                self._fall(str(error))
                self._settled.set()
            except asyncio.CancelledError:
                raise
            except Exception as error:  # limits are counted without Redis then, and requests are served on
                self._fall(f"a fault in the gateway: {type(error).__name__}")
                self._settled.set()

    async def _return(self) -> None:
        """Connect, and see whether Redis answers in time."""
        if self._said_away:
            await asyncio.sleep(OPEN)  # one that does not answer is not asked at every turn
        try:
            async with asyncio.timeout(PATIENCE):
                await self._link.open()
                # The first call may have to bring the script along.
                await self._link.call([self._probe()])
                began = self._loop.time()
                if await self._link.call([self._probe()]) == [None]:
                    raise LinkLost("it refuses to run scripts")
        except TimeoutError:
            raise LinkLost("no answer") from None
        if self._loop.time() - began > self._deadline:
            raise LinkLost("it answers too slowly")
        self._rise()

    async def _work(self) -> None:
        while self.up and not self._closing:
            batch = self._batch()
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(PATIENCE):
                    replies = await self._link.call([entry.command for entry in batch])
            except (LinkLost, TimeoutError) as error:
                # Nobody knows whether Redis has carried them out, and what is done twice is counted twice.
                self.lost += sum(entry.told for entry in batch)
                raise error if isinstance(error, LinkLost) else LinkLost("no answer") from None
            refused = any(reply is None for reply in replies)
            self._deliver(batch, replies)
            await asyncio.sleep(0)  # whoever was granted something counts it before the next chores tell what is held
            if refused:
                raise LinkLost("it refuses to run the script")

    def _batch(self) -> list[Entry]:
        """What is sent next: what was told, chores once all of that is on its way, then questions."""
        batch = [self._told.popleft() for _ in range(min(BATCH, len(self._told)))]
        if not self._told:
            for chore in self._chores():
                batch.append(chore)
                if chore.waiter is not None:
                    self._expect(chore)
        while self._waiting and len(batch) < 2 * BATCH:
            entry = self._waiting.popleft()
            if entry.waiter is not None and not entry.waiter.done():
                batch.append(entry)
        return batch

    def _deliver(self, batch: Sequence[Entry], replies: Sequence[Any]) -> None:
        timely = False
        for entry, reply in zip(batch, replies, strict=True):
            timely |= entry.waiter is not None and not entry.waiter.done()
            entry.answer(reply)
        if timely:
            self._misses = 0

    def _expect(self, entry: Entry) -> None:
        entry.until = self._loop.time() + self._deadline
        self._asked.append(entry)
        if self._timer is None:
            self._timer = self._loop.call_at(entry.until, self._expire)

    def _expire(self) -> None:
        """Tell those that have waited long enough that there is no answer."""
        now = self._loop.time()
        asked, overdue = self._asked, 0
        while asked and asked[0].waiter is not None and asked[0].waiter.done():
            asked.popleft()
        if asked and now - asked[0].until > LATE and not self._excused:
            # Replies may lie in the socket already: they are read before this is called again.
            self._excused = True
            self._timer = self._loop.call_later(LATE / 2, self._expire)
            return
        self._excused = False
        while asked and asked[0].until <= now:
            entry = asked.popleft()
            if entry.waiter is not None and not entry.waiter.done():
                entry.answer(None)
                overdue += 1
        self._timer = self._loop.call_at(asked[0].until, self._expire) if asked else None
        if overdue:
            self.failures += overdue
            self._misses += 1
            if self._misses >= MISSES:
                self._fall("it answers too slowly")

    def _fall(self, why: str) -> None:
        if self.up or not self._said_away:
            self._away_since = self._loop.time()
            self._news("warning", "limits are counted without Redis", why=why)
        self.up = False
        self._said_away = True
        self._release()
        self.turned()

    def _rise(self) -> None:
        self.up = True
        self._misses = 0
        if self._said_away:
            self._said_away = False
            away = round(self._loop.time() - self._away_since, 1)
            self._news("info", "limits are counted in Redis again", away=away)
        self.turned()
        self._settled.set()

    def _release(self) -> None:
        """Nobody waits any longer."""
        self._waiting.clear()
        for entry in self._asked:
            if entry.waiter is not None and not entry.waiter.done():
                self.failures += 1
                entry.answer(None)
        self._asked.clear()
