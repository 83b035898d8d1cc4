"""Loops like the served one for tests with real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop


@pytest.fixture
def served() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run one coroutine on uvloop, as `sluiceway serve` does."""

    def run_it(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)

    return run_it
