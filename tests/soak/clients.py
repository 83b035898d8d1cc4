"""Clients that are many, slow, or gone in the middle, each a few bytes of protocol."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import cast

STAMP = re.compile(rb"@(\d+\.\d+);")
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")


class Wire(asyncio.Protocol):
    """One connection with what came on it; `over` is set when an answer is whole, or the connection is gone."""

    def __init__(self) -> None:
        self.seen = b""
        self.whole = False
        self.gone = False
        self.over = asyncio.Event()
        self.some = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.over.set()
        self.some.set()

    def data_received(self, data: bytes) -> None:
        self.seen += data
        self.some.set()
        if self._is_whole():
            self.whole = True
            self.over.set()

    @property
    def status(self) -> int:
        """The answer's status, 0 before there is one."""
        return int(self.seen[9:12] or 0)

    async def ask(self, request: bytes) -> bool:
        """Send a request on this connection; returns whether its answer came whole, with status 200."""
        self.seen, self.whole = b"", False
        self.over.clear()
        self.transport.write(request)
        await self.over.wait()
        return self.whole and self.status == 200

    def leave(self, *, reset: bool) -> None:
        """Go: with a FIN, or with a reset."""
        if reset and not self.gone:
            found = self.transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def _is_whole(self) -> bool:
        head, mark, body = self.seen.partition(b"\r\n\r\n")
        if not mark:
            return False
        found = LENGTH.search(head)
        return len(body) >= int(found[1]) if found else self.seen.endswith(END)


class Ticks(Wire):
    """A client that keeps only how late each event came, and how the stream ended."""

    def __init__(self, late: list[float]) -> None:
        super().__init__()
        self._late = late
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.some.is_set():
            self.seen = data[:12]
            self.some.set()
        self._late.extend(now - float(found) for found in STAMP.findall(data))
        self._tail = (self._tail + data)[-len(END) :]
        if self._tail == END:
            self.whole = True
            self.over.set()


async def connected(port: int, wire: Callable[[], Wire] = Wire) -> Wire:
    """A fresh connection to the gateway."""
    _, made = await asyncio.get_running_loop().create_connection(wire, "127.0.0.1", port)
    return made


async def stalled(port: int, request: bytes) -> socket.socket:
    """A client that sends a request and never reads, with a receive buffer of 8 KiB."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, ("127.0.0.1", port))
    await loop.sock_sendall(made, request)
    return made


async def crowd(count: int, at_once: int, act: Callable[[int], Awaitable[None]]) -> None:
    """Do something many times, so many at once."""
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            await act(number)

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


async def moment(most: float = 0.02) -> None:
    """A random short while: a client that goes does not ask when it would be convenient."""
    await asyncio.sleep(random.random() * most)
