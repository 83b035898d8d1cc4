"""gateway.upstream.sweep: one timer for everything that may be overdue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.upstream.sweep import INTERVAL, Sweep

Run = Callable[[Any], Any]


class Timed:
    def __init__(self, sweep: Sweep, *, breaks: bool = False, leaves: bool = False) -> None:
        self.times: list[float] = []
        self._sweep = sweep
        self._breaks = breaks
        self._leaves = leaves
        sweep.add(self)

    def sweep(self, now: float) -> None:
        self.times.append(now)
        if self._leaves:
            self._sweep.discard(self)
        if self._breaks:
            raise RuntimeError("broken")


def test_everything_registered_is_swept_with_the_loops_time_until_it_leaves(run: Run, until: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        sweep = Sweep()
        stays, leaves = Timed(sweep), Timed(sweep, leaves=True)
        assert len(sweep) == 2
        sweep.start()
        for count in range(1, 4):
            loop.advance(INTERVAL)
            await until(lambda count=count: len(stays.times) == count)
        assert stays.times == sorted(stays.times)
        assert stays.times[-1] <= loop.time()
        assert (len(leaves.times), len(sweep)) == (1, 1)
        sweep.stop()
        loop.advance(10 * INTERVAL)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(stays.times) == 3

    run(main())


def test_an_error_in_one_does_not_end_the_sweeping(run: Run, until: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        told: list[Any] = []
        loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
        sweep = Sweep()
        broken = Timed(sweep, breaks=True)
        sweep.start()
        for count in range(1, 3):
            loop.advance(INTERVAL)
            await until(lambda count=count: len(broken.times) == count)
        sweep.stop()
        assert len(told) == 2

    run(main())


def test_a_sweep_that_never_started_can_be_stopped() -> None:
    Sweep().stop()
