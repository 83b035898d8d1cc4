"""A provider that fails in every way that can be scripted: what `chaos.py` puts behind the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import re
import socket
import struct
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

ID = re.compile(rb'"user":\s*"([^"]+)"')
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
WORDS = 12
STALL = 30.0
HUGE = 2 * 1024 * 1024
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def words(name: str) -> list[str]:
    """What is said to the request of this name: its client can tell whether the answer is its own, and whole."""
    return [f"{name}:{number} " for number in range(WORDS)]


def event(value: Any) -> bytes:
    """An event in a chunk of its own."""
    data = f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(name: str) -> list[bytes]:
    """A good stream's events, the last `[DONE]` included."""
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    parts = [
        {**base, "choices": [{"index": 0, "delta": {"content": each}, "finish_reason": None}]} for each in words(name)
    ]
    end = {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [event(part) for part in (*parts, end, "[DONE]")]


def body_of(name: str) -> bytes:
    """A good whole answer's body."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "".join(words(name))}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": WORDS, "total_tokens": WORDS + 3}
    value = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(value).encode()


def whole(
    body: bytes, status: str = "200 OK", *headers: str, kind: str = "application/json", length: int = -1
) -> bytes:
    """A whole HTTP answer."""
    lines = "".join(f"{line}\r\n" for line in (f"content-type: {kind}", *headers))
    size = len(body) if length < 0 else length
    return f"HTTP/1.1 {status}\r\n{lines}content-length: {size}\r\n\r\n".encode() + body


def refusal(status: str, *headers: str) -> bytes:
    """An error as OpenAI words it."""
    value = {"error": {"message": f"no: {status}", "type": "said_by_provider", "param": None, "code": None}}
    return whole(json.dumps(value).encode(), status, *headers)


class Exchange:
    """One request at the provider, and what may be done with it. `name` is the request's, given by its client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, *, stream: bool) -> None:
        self._reader = reader
        self._writer = writer
        self.name = name
        self.stream = stream

    @property
    def good(self) -> bytes:
        """What a sound provider would send."""
        return SSE + b"".join(events(self.name)) + LAST if self.stream else whole(body_of(self.name))

    async def send(self, data: bytes) -> None:
        """Bytes, as far as they are taken."""
        self._writer.write(data)
        await self._writer.drain()

    async def sent_and(self, data: bytes, *, reset: bool = False, stall: bool = False) -> None:
        """Bytes, then the end in one of three ways."""
        await self.send(data)
        if stall:
            await self.wait()
        if reset:
            await asyncio.sleep(random.choice((0, 0.005)))
            self.reset()
        self._writer.close()

    async def wait(self) -> None:
        """Say nothing until the gateway goes."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reader.read(1), STALL)

    def reset(self) -> None:
        """Close with a reset."""
        found = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError, ValueError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def part(self) -> bytes:
        """A good answer cut somewhere after its head, and before what makes it whole."""
        good = self.good
        start = good.index(b"\r\n\r\n") + 5
        end = good.index(b'"finish_reason": "stop"') if self.stream else len(good) - 1
        return good[: random.randrange(start, end)]

    def events_then(self, *last: bytes) -> bytes:
        """Some good events, then something else."""
        good = events(self.name)
        return SSE + b"".join(good[: random.randrange(1, WORDS)]) + b"".join(last)


Act = Callable[[Exchange], Awaitable[None]]


def sends(what: bytes | Callable[[Exchange], bytes], **end: bool) -> Act:
    """Send something; with an end given, the connection ends so, else it is kept."""

    def make(each: Exchange) -> bytes:
        return what if isinstance(what, bytes) else what(each)

    if not end:
        return lambda each: each.send(make(each))
    return lambda each: each.sent_and(make(each), **end)


async def drip(each: Exchange) -> None:
    """Everything is sound and slow, cut anywhere."""
    good, size = each.good, random.randrange(20, 400)
    for start in range(0, len(good), size):
        await each.send(good[start : start + size])
        await asyncio.sleep(0.01)


def packed_short(each: Exchange) -> bytes:
    """A gzip body that ends too early."""
    body = gzip.compress(body_of(each.name))[:-12]
    return whole(body, "200 OK", "content-encoding: gzip")


ERROR = event({"error": {"message": "it broke", "type": "server_error", "param": None, "code": "boom"}})
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
# What may be done to any request.
BOTH: dict[str, Act] = {
    "good": sends(lambda each: each.good),
    "drip": drip,
    "reset": sends(b"", reset=True),
    "eof": sends(b"", reset=False),
    "half a head": sends(lambda each: each.good[: random.randrange(1, 30)], reset=bool(random.getrandbits(1))),
    "stall": sends(b"", stall=True),
    "stall after head": sends(lambda each: each.good.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", stall=True),
    "stall in the middle": sends(Exchange.part, stall=True),
    "cut": sends(Exchange.part, reset=False),
    "cut by reset": sends(Exchange.part, reset=True),
    "400": sends(refusal("400 Bad Request")),
    "401": sends(refusal("401 Unauthorized")),
    "404": sends(refusal("404 Not Found")),
    "408": sends(refusal("408 Request Timeout")),
    "429": sends(refusal("429 Too Many Requests")),
    "429 with a time": sends(refusal("429 Too Many Requests", "retry-after-ms: 150")),
    "500": sends(refusal("500 Internal Server Error")),
    "503": sends(refusal("503 Service Unavailable", "retry-after-ms: 150")),
    "529": sends(refusal("529 Overloaded")),
    "html": sends(whole(HTML, kind="text/html")),
    "html 502": sends(whole(HTML, "502 Bad Gateway", kind="text/html")),
    "no http": sends(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", reset=False),
    "302": sends(whole(b"", "302 Found", "location: http://127.0.0.1:1/")),
}
WHOLE: dict[str, Act] = {
    "short length": sends(lambda each: whole(body_of(each.name), length=len(body_of(each.name)) - 20), reset=False),
    "truncated gzip": sends(packed_short, reset=False),
    "error with 200": sends(refusal("200 OK")),
}
STREAM: dict[str, Act] = {
    "error event first": sends(SSE + ERROR + LAST),
    "error event": sends(lambda each: each.events_then(ERROR, LAST)),
    "bad chunk": sends(lambda each: each.events_then(b"zz\r\nnot a size\r\n"), reset=False),
    "huge event": sends(lambda each: each.events_then(event("x" * HUGE)), stall=True),
    "no finish": sends(lambda each: each.events_then(LAST)),
    "no done": sends(lambda each: SSE + b"".join(events(each.name)[:-1]) + LAST),
    "comments only": sends(SSE + b"b\r\n: waiting\n\n\r\n" * 3, stall=True),
}


class Faulty:
    """A provider on loopback. Of its answers, `share` are sound; `did` tells which request met what, in order."""

    def __init__(self, share: float) -> None:
        self.port = 0
        self.share = share
        self.did: defaultdict[str, list[str]] = defaultdict(list)
        self.counts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, str] = {}

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and cut those that are open."""
        assert self._server is not None
        self._server.close()
        for writer, name in tuple(self._open.items()):
            if name:
                self.did[name].append("outage")
            writer.transport.abort()
        self.counts["outage"] += 1
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = ""
        with contextlib.suppress(OSError, EOFError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                found = LENGTH.search(head)
                body = await reader.readexactly(int(found[1]) if found else 0)
                await self._answer(reader, writer, body)
        del self._open[writer]
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
        name = ID.search(body)
        stream = b'"stream":true' in body.replace(b" ", b"")
        each = Exchange(reader, writer, name[1].decode() if name else "", stream=stream)
        acts = {**BOTH, **(STREAM if stream else WHOLE)}
        chosen = "good" if random.random() < self.share else random.choice(list(acts))
        self.did[each.name].append(chosen)
        self.counts[chosen] += 1
        self._open[writer] = each.name
        try:
            await acts[chosen](each)
        finally:
            self._open[writer] = ""
