"""A gateway whose lane can be looked at, and a client connection that stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
from livegateway import Live, Reply, gateway_before, read_reply
from upstreams import ScriptedUpstream, answer

from gateway.lane import Lane
from gateway.proxy import Proxy

Run = Callable[[Any], Any]
KEY = "sk-lane"
KEYS = {"app": {"hash": "sha256:2accd56f86ee3a31be4fc28a128915946f5bf810d05f20fa5f68c8d5bc432110"}}
WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "upstream-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
GOOD = [{"t": answer(orjson.dumps(WHOLE).decode())}]


@dataclass
class Line:
    """A client's connection that stays."""

    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *pieces: bytes) -> None:
        self.writer.writelines(pieces)

    async def reply(self) -> Reply:
        """One whole answer with a length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return read_reply(head + await self.reader.readexactly(length))

    async def asks(self, body: bytes, **headers: str) -> Reply:
        self.send(self.request(body, **headers))
        return await self.reply()

    def request(self, body: bytes, **headers: str) -> bytes:
        lines: Mapping[str, str] = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + body


def body(text: str = "Hello!", **more: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more})


class Seen(Lane):
    """The lane of the gateway that was made last: nothing leads to it from outside."""

    last: Lane

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy)
        Seen.last = self


def rides() -> int:
    """How many requests have taken the lane."""
    return Seen.last.rides


@asynccontextmanager
async def lane(folder: Path, url: str, keys: Any = KEYS, **options: Any) -> AsyncIterator[tuple[Live, Line]]:
    """A gateway before the provider at `url`, and a connection to it."""
    content = {"keys": keys, **options.pop("content", {})}
    with patch("gateway.serving.Lane", Seen):
        async with gateway_before(folder, url, content=content, **options) as live:
            line = Line(live.port, *await asyncio.open_connection("127.0.0.1", live.port))
            yield live, line
            line.writer.close()


def driven(run: Run, folder: Path, act: Callable[[Live, Line], Awaitable[None]], *scripts: Any, **options: Any) -> Any:
    """Run `act` behind a first good answer, which has taught the lane the connection's head.

    Returns the requests that the provider saw after it.
    """

    async def main() -> list[bytes]:
        async with (
            ScriptedUpstream(GOOD, *scripts, GOOD) as upstream,
            lane(folder, upstream.url, **options) as (live, line),
        ):
            assert (await line.asks(body())).status == 200
            assert rides() == 0
            await act(live, line)
            return upstream.requests[1:]

    return run(main())
