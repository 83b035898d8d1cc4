"""gateway.statefile: money outlives the process, several add up, and no file however bad stops anything."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.purses import DAY, Budget, Owner, Purses
from gateway.statefile import INTERVAL, LEFT_ALONE, StateFile

ME, YOU = Owner("key", "me", "USD"), Owner("deployment", "you", "EUR")
# Noon of the 30th of November 2026.
NOON = 1_796_040_000.0


class Process:
    """A gateway, as far as money goes. `ticks` is its loop's time."""

    def __init__(self, now: float = NOON, processes: int = 1) -> None:
        self.now = now
        self.ticks = 0.0
        self.news: list[str] = []
        self.purses = Purses(lambda: self.now)
        self.purses.processes = processes
        self.purses.adopt({ME: Budget(10, "USD", "day"), YOU: Budget(100, "EUR", "month")})
        self.file = StateFile(self.purses, lambda level, message, **fields: self.news.append(f"{level}: {message}"))

    def pay(self, amount: float, owner: Owner = ME) -> None:
        self.purses[owner].settle(self.now, 0, amount)

    def spent(self, owner: Owner = ME) -> float:
        return self.purses[owner].spent(self.now, self.purses.budgets[owner].per)

    async def tick(self, seconds: float = INTERVAL) -> None:
        """Let time pass, and what is begun by it come to its end."""
        self.ticks += seconds
        self.file.sweep(self.ticks)
        async with asyncio.timeout(10):
            while self.file.busy:  # noqa: ASYNC110 - a thread is waited for
                await asyncio.sleep(0.001)


def amounts(path: Path) -> dict[tuple[str, str], float]:
    with sqlite3.connect(path) as file:
        return {(name, day): amount for name, day, amount in file.execute("SELECT name, day, amount FROM spent")}


def test_what_was_spent_is_known_after_a_restart(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def main() -> None:
        path = tmp_path / "state.sqlite"
        first = Process(NOON - DAY)
        await first.file.adopt(str(path))
        first.pay(3)
        first.pay(5, YOU)
        await first.file.close()
        second = Process()
        await second.file.adopt(str(path))
        assert (second.spent(), second.spent(YOU)) == (0, 5)
        second.pay(2)
        second.pay(1, YOU)
        await second.file.close()
        third = Process()
        await third.file.adopt(str(path))
        assert (third.spent(), third.spent(YOU)) == (2, 6)
        assert amounts(path) == {
            ("me", "2026-11-29"): 3,
            ("you", "2026-11-29"): 5,
            ("me", "2026-11-30"): 2,
            ("you", "2026-11-30"): 1,
        }
        assert first.news == second.news == third.news == []
        await third.file.close()

    run(main())


def test_it_is_written_once_a_second_at_most_and_only_when_there_is_something(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    async def main() -> None:
        path = tmp_path / "state.sqlite"
        process = Process()
        await process.file.adopt(str(path))
        process.pay(1)
        await process.tick()
        process.pay(1)
        await process.tick(INTERVAL / 2)
        assert amounts(path) == {("me", "2026-11-30"): 1}
        await process.tick(INTERVAL / 2)
        assert amounts(path) == {("me", "2026-11-30"): 2}
        path.unlink()
        await process.tick()
        assert not path.exists()
        await process.file.close()

    run(main())


def test_several_processes_add_up_within_a_second(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def main() -> None:
        path = tmp_path / "state.sqlite"
        workers = [Process(processes=3) for _ in range(3)]
        for worker in workers:
            await worker.file.adopt(str(path))
        for round_ in range(1, 6):
            for number, worker in enumerate(workers, 1):
                worker.pay(number / 10)
            for worker in (*workers, *workers):
                await worker.tick()
            assert [worker.spent() for worker in workers] == [pytest.approx(0.6 * round_)] * 3
        assert {worker.purses.share for worker in workers} == {1.0}
        for worker in workers:
            await worker.file.close()

    run(main())


def test_without_a_file_each_of_several_grants_its_part_and_one_says_so(run: Callable[..., Any]) -> None:
    async def main() -> None:
        process = Process(processes=4)
        await process.file.adopt(None)
        await process.file.adopt(None)
        assert process.purses.share == 0.25
        assert process.news == ["warning: a restart forgets what was spent of budgets: set state.file"]
        process.pay(1)
        await process.tick()
        await process.file.close()
        assert process.spent() == 1

    run(main())


def test_without_budgets_there_is_no_file_and_no_word(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def main() -> None:
        process = Process()
        process.purses.adopt({})
        await process.file.adopt(str(tmp_path / "state.sqlite"))
        await process.tick()
        await process.file.close()
        await process.file.adopt(None)
        assert os.listdir(tmp_path) == []
        assert process.news == []

    run(main())


@pytest.mark.parametrize("bad", ["garbage", "directory", "missing", "other"])
def test_a_file_that_is_no_good_is_reported_once_and_left_as_it_is(
    tmp_path: Path, bad: str, run: Callable[..., Any]
) -> None:
    async def main() -> None:
        path = tmp_path / "state.sqlite"
        if bad == "garbage":
            path.write_bytes(b"not a database " * 1000)
        elif bad == "directory":
            path.mkdir()
        elif bad == "missing":
            path = tmp_path / "gone" / "state.sqlite"
        else:
            with sqlite3.connect(path) as file:
                file.execute("CREATE TABLE spent (something TEXT)")
        before = path.read_bytes() if path.is_file() else None
        process = Process(processes=2)
        await process.file.adopt(str(path))
        for _ in range(3):
            process.pay(1)
            await process.tick(LEFT_ALONE)
        assert process.spent() == 3
        assert process.purses.share == 0.5
        assert process.news == ["error: the state file cannot be used; budgets are kept in memory"]
        assert (path.read_bytes() if path.is_file() else None) == before
        # Somebody mends it: nothing that was spent meanwhile is lost.
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        await process.tick(LEFT_ALONE)
        assert process.news[1:] == ["info: the state file can be used again"]
        assert amounts(path) == {("me", "2026-11-30"): 3}
        assert process.purses.share == 1
        await process.file.close()

    run(main())


def test_a_file_that_somebody_locks_is_written_later(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def main() -> None:
        path = tmp_path / "state.sqlite"
        process = Process()
        await process.file.adopt(str(path))
        await process.tick()
        process.pay(1)
        await process.tick()
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            process.pay(1)
            await process.tick()
            assert process.spent() == 2
            assert process.news == ["error: the state file cannot be used; budgets are kept in memory"]
            other.execute("ROLLBACK")
        other.close()
        await process.tick(LEFT_ALONE)
        assert amounts(path) == {("me", "2026-11-30"): 2}
        await process.file.close()

    run(main())


def test_the_event_loop_turns_while_a_write_waits_for_a_lock(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def main() -> None:
        path = tmp_path / "state.sqlite"
        process = Process()
        await process.file.adopt(str(path))
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            process.pay(1)
            process.file.sweep(10)
            turns = 0
            while process.file.busy:
                await asyncio.sleep(0.001)
                turns += 1
            other.execute("ROLLBACK")
        other.close()
        assert turns > 10
        await process.file.close()

    run(main())


def test_another_file_begins_with_what_it_holds(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def main() -> None:
        old, new = tmp_path / "old", tmp_path / "new"
        process = Process()
        await process.file.adopt(str(old))
        process.pay(4)
        await process.tick()
        shutil.copy(old, new)
        await process.file.adopt(str(new))
        process.pay(1)
        await process.file.close()
        assert (amounts(old), amounts(new)) == ({("me", "2026-11-30"): 4}, {("me", "2026-11-30"): 5})

    run(main())


def test_days_of_long_ago_are_forgotten(tmp_path: Path, run: Callable[..., Any]) -> None:
    async def main() -> None:
        path = tmp_path / "state.sqlite"
        for days in (150, 70, 0):
            process = Process(NOON - days * DAY)
            await process.file.adopt(str(path))
            process.pay(1)
            await process.file.close()
        assert len(amounts(path)) == 2

    run(main())
