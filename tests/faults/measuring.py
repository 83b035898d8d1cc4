"""What a case costs the gateway: memory, processor time, and how long its event loop was held up."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from faults.serving import Gateway

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """Milliseconds that a caller of the admin listener waited, MiB of growth, seconds of processor."""

    wait_ms: float
    p99_ms: float
    growth_mib: float
    cpu_s: float
    asked: int


async def measured(
    gateway: Gateway, act: Callable[[], Awaitable[T]], request: str = "", port: int = 0
) -> tuple[T, Measured]:
    """Do something while the gateway is watched from another process."""
    request = request or f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{gateway.admin}\r\n\r\n"
    watcher = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("watcher.py"))),
        *(str(gateway.process.pid), str(port or gateway.admin), request),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert watcher.stdout is not None
    assert await watcher.stdout.readline() == b"ready\n"
    try:
        result = await act()
    finally:
        told, _ = await watcher.communicate(b"\n")
    return result, Measured(**json.loads(told))
