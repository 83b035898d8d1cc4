"""What was spent, in a small SQLite file: written by a thread of its own, added up over all processes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from queue import SimpleQueue

from gateway.log import News
from gateway.purses import Owner, Purses, Spent, Sums, date_of, day_of

# Between two writes; budgets of several workers are right to within so many seconds.
INTERVAL = 1.0
# What the event loop waits for the file: at the start, at a reload, and for the last write.
PATIENCE = 2.0
# What the thread waits for another process that writes, and how long it leaves a file alone that is no good.
BUSY, LEFT_ALONE = 1.0, 10.0
KEPT_DAYS = 100

SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (
    kind TEXT NOT NULL, name TEXT NOT NULL, currency TEXT NOT NULL, day TEXT NOT NULL, amount REAL NOT NULL,
    PRIMARY KEY (kind, name, currency, day)
) WITHOUT ROWID
"""
ADD = """
INSERT INTO spent VALUES (?, ?, ?, ?, ?)
ON CONFLICT (kind, name, currency, day) DO UPDATE SET amount = amount + excluded.amount
"""
SUM = """
SELECT kind, name, currency, total(amount) FILTER (WHERE day = :today), total(amount) FROM spent
WHERE day BETWEEN :first AND :today GROUP BY kind, name, currency
"""


class _Job:
    """What the thread is to write down, and the sums that it has read afterwards; `error` says why it could not."""

    __slots__ = ("day", "error", "path", "spent", "sums")

    def __init__(self, path: str, day: int, spent: list[Spent]) -> None:
        self.path = path
        self.day = day
        self.spent = spent
        self.sums: dict[Owner, Sums] = {}
        self.error = ""


class StateFile:
    """Keeps purses in a file. One that cannot be read or written costs nothing but the memory of a restart.

    With several processes the sums of all come back from the file; without it each may spend its part.
    """

    def __init__(self, purses: Purses, news: News) -> None:
        self._purses = purses
        self._news = news
        self._path: str | None = None
        self._due = 0.0
        self._under_way: asyncio.Future[None] | None = None
        self._broken = self._warned = False
        self._jobs: SimpleQueue[tuple[_Job, Callable[[], object]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Is something being written?"""
        return self._under_way is not None

    async def adopt(self, path: str | None) -> None:
        """Use this file from now on; returns when what is in it is known, or after two seconds."""
        self._path = path
        if not self._purses.budgets:
            return
        if path is not None:
            # Should the file not answer in time, each process spends its part.
            self._know(shared=self._purses.shared)
            await self._settled()
            return
        self._know(shared=False)
        if not self._warned:
            self._warned = True
            self._news("warning", "a restart forgets what was spent of budgets: set state.file")

    def sweep(self, now: float) -> None:
        """Write down what was spent, once a second, and learn what others have spent."""
        if self._path is None or self._under_way is not None or now < self._due or not self._purses.budgets:
            return
        if self._purses.processes == 1 and not self._purses.fresh:
            return  # what is in the file is our own
        self._due = now + (LEFT_ALONE if self._broken else INTERVAL)
        self._begin(self._path)

    async def close(self) -> None:
        """Write down the rest; takes two seconds at most, and as long again where a write is under way."""
        if self._thread is None:
            return
        await self._settled()
        self._jobs.put(None)

    async def _settled(self) -> None:
        """One whole write that begins now."""
        if self._under_way is not None:
            await asyncio.wait((self._under_way,), timeout=PATIENCE)
        if self._under_way is None and self._path is not None:
            await asyncio.wait((self._begin(self._path),), timeout=PATIENCE)

    def _begin(self, path: str) -> asyncio.Future[None]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="state", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        job = _Job(path, day_of(self._purses.clock()), self._purses.take())
        self._under_way = done = loop.create_future()
        self._jobs.put((job, lambda: loop.call_soon_threadsafe(self._end, job, done)))
        return done

    def _end(self, job: _Job, done: asyncio.Future[None]) -> None:
        self._under_way = None
        if job.error:
            self._purses.give_back(job.spent)
            if not self._broken:
                self._news("error", "the state file cannot be used; budgets are kept in memory", reason=job.error)
        else:
            self._purses.learn(job.sums)
            if self._broken:
                self._news("info", "the state file can be used again")
        self._broken = bool(job.error)
        self._know(shared=not job.error)
        if not done.done():
            done.set_result(None)

    def _know(self, *, shared: bool) -> None:
        self._purses.shared = shared
        self._purses.share = 1.0 if shared else 1.0 / self._purses.processes

    def _run(self) -> None:
        while (asked := self._jobs.get()) is not None:
            job, tell = asked
            try:
                _write(job)
            except (sqlite3.Error, OSError, ValueError) as error:
                job.error = f"{type(error).__name__}: {error}"
            try:
                tell()
            except RuntimeError:
                return  # the loop is closed: nobody waits for it


def _write(job: _Job) -> None:
    """Add what was spent to the file, and read what all have spent."""
    # A connection for each write: a file that was moved, replaced or mended in between is no surprise then.
    with closing(sqlite3.connect(job.path, timeout=BUSY, isolation_level=None)) as file:
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("BEGIN IMMEDIATE")
        with file:
            file.execute(SCHEMA)
            file.executemany(ADD, _rows(job.spent))
            file.execute("DELETE FROM spent WHERE day < ?", (date_of(job.day - KEPT_DAYS).isoformat(),))
            today = date_of(job.day)
            days = {"today": today.isoformat(), "first": today.replace(day=1).isoformat()}
            for kind, name, currency, on_the_day, in_the_month in file.execute(SUM, days):
                job.sums[Owner(kind, name, currency)] = Sums(job.day, on_the_day, in_the_month)


def _rows(spent: Iterable[Spent]) -> Iterable[tuple[str, str, str, str, float]]:
    return [(*each.owner, date_of(each.day).isoformat(), each.amount) for each in spent]
