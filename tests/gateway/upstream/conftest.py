"""Both loops that a connection may run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def on_either(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Run one coroutine on a loop of either kind."""
    run: Callable[[Any], Any] = request.param
    return run
