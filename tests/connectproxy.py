"""An HTTP proxy for tests that only knows CONNECT."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import Mapping

from tasks import Tasks

READ = 65536


class ConnectProxy:
    """Opens tunnels; `asked` are the heads of the requests, `hosts` what they named.

    `names` are addresses for names that only the proxy knows. With `login` (name:password) it asks for that.
    """

    def __init__(self, names: Mapping[str, tuple[str, int]] | None = None, login: str = "") -> None:
        self.asked: list[bytes] = []
        self.port = 0
        self._names = names or {}
        self._login = login
        self._server: asyncio.Server | None = None
        self._tasks = Tasks()

    @property
    def hosts(self) -> list[str]:
        """What each request named, as host:port."""
        return [head.split(b" ")[1].decode() for head in self.asked]

    @property
    def url(self) -> str:
        """The proxy as an option of a provider entry."""
        login = self._login.replace("@", "%40").replace("/", "%2F")
        return f"http://{login}@127.0.0.1:{self.port}" if login else f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> ConnectProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._tasks.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            if self._login and b"\r\nproxy-authorization: Basic " + b64encode(self._login.encode()) not in head:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n<html>")
                await writer.drain()
                return
            host, _, port = self.hosts[-1].rpartition(":")
            there = await asyncio.open_connection(*self._names.get(host, (host.strip("[]"), int(port))))
            try:
                writer.write(b"HTTP/1.1 200 Connection established\r\nProxy-Agent: test\r\n\r\n")
                await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
            finally:
                there[1].transport.abort()
        finally:
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(READ):
            writer.write(data)
            await writer.drain()
    if not writer.is_closing():
        writer.write_eof() if writer.can_write_eof() else writer.close()
