"""What a supervisor and its workers say to each other: frames over a socket pair that only these two hold."""

from __future__ import annotations

import asyncio
import io
import pickle
import socket
import struct
from typing import Any

from gateway.config.secrets import Secret

HEAD = struct.Struct("!I")


class _Pickler(pickle.Pickler):
    """Secrets refuse to be pickled; between two processes of one gateway they must be."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Secret):
            return Secret, (value.reveal(), value.source)
        return NotImplemented


class Line:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Line:
        """The line over this socket."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, kind: str, value: Any = None) -> None:
        """Say something; a peer that is gone hears nothing."""
        out = io.BytesIO()
        _Pickler(out, pickle.HIGHEST_PROTOCOL).dump((kind, value))
        data = out.getvalue()
        if not self._writer.is_closing():
            self._writer.write(HEAD.pack(len(data)) + data)

    async def receive(self) -> tuple[str, Any] | None:
        """What the peer says next; None when it is gone."""
        try:
            (size,) = HEAD.unpack(await self._reader.readexactly(HEAD.size))
            data = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            return None
        said: tuple[str, Any] = pickle.loads(data)
        return said

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
