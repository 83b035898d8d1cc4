"""A provider in a process of its own that does what the model's name says, thousands of times at once.

Run as a script it prints its port; `GET /` tells what it has seen. Models: `quick` answers, `silent` never does,
`headed` sends a head, `half` a part, `trickle` an event per 20 ms, `tick` one per second with its time, `flood` 1 GB,
`big` 8 MiB, `late` answers after 50 ms; `break` resets somewhere. `max_tokens` is the number of events.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import socket
import struct
import time
from typing import Any, cast

import uvloop

MODEL = re.compile(rb'"model":\s*"([^"]*)"')
EVENTS = re.compile(rb'"max_tokens":\s*(\d+)')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
FLOOD = 1 << 30


def chunk(text: str, finish: str | None = None) -> bytes:
    """One event in its own HTTP chunk."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    event = b"data: " + json.dumps(value).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def whole(text: str) -> bytes:
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    value = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


DONE = chunk("", "stop") + b"e\r\ndata: [DONE]\n\n\r\n" + LAST
QUICK = SSE + b"".join(chunk(f"word {number} ") for number in range(5)) + DONE
WHOLE = whole("Hello!")
BIG = whole("x" * (8 << 20))
FILLER = chunk("x" * 16_000)


class Seen:
    """What the provider has to tell."""

    def __init__(self) -> None:
        self.open = self.busy = self.requests = self.cut = self.written = self.paused = 0


class Peer(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._buffer = bytearray()
        self._needed = 0
        self._busy = False
        self._held = False
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._seen.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.open -= 1
        self._seen.cut += self._busy
        self._seen.busy -= self._busy
        self._seen.paused -= self._held
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._held = True
        self._seen.paused += 1

    def resume_writing(self) -> None:
        self._held = False
        self._seen.paused -= 1
        self._flood()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < self._needed:
            return
        head, mark, body = bytes(self._buffer).partition(b"\r\n\r\n")
        if not mark:
            return
        found = LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(body) < length:
            self._needed = len(head) + 4 + length
            return
        self._buffer.clear()
        self._needed = 0
        if head.startswith(b"GET"):
            told = json.dumps(vars(self._seen)).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
            return
        self._busy = True
        self._seen.busy += 1
        self._seen.requests += 1
        self._begin(body)

    def _begin(self, body: bytes) -> None:
        model = MODEL.search(body, 0, 1000)
        events = EVENTS.search(body, 0, 1000)
        self._left = int(events[1]) if events else 5
        stream = b'"stream":true' in body[:1000]
        act: Any = getattr(self, "_do_" + (model[1].decode() if model else "quick").partition("-")[0])
        act(stream)

    def _end(self, data: bytes) -> None:
        self._busy = False
        self._seen.busy -= 1
        self.transport.write(data)

    def _do_quick(self, stream: bool) -> None:
        self._end(QUICK if stream else WHOLE)

    def _do_big(self, stream: bool) -> None:
        self._end(BIG)

    def _do_silent(self, stream: bool) -> None:
        pass

    def _do_late(self, stream: bool) -> None:
        self._later(0.05, lambda: self._end(QUICK if stream else WHOLE))

    def _do_headed(self, stream: bool) -> None:
        self.transport.write(SSE if stream else WHOLE.partition(b"{")[0])

    def _do_half(self, stream: bool) -> None:
        self.transport.write(QUICK[:700] if stream else WHOLE[:-100])

    def _do_trickle(self, stream: bool) -> None:
        self.transport.write(SSE)
        self._event(0.02, "word ")

    def _do_tick(self, stream: bool) -> None:
        self.transport.write(SSE)
        self._later(random.random(), lambda: self._event(1.0, ""))

    def _do_flood(self, stream: bool) -> None:
        self._left = FLOOD
        self.transport.write(SSE)
        self._flood()

    def _do_break(self, stream: bool) -> None:
        answer = QUICK if stream else WHOLE
        # At a third before the head, between requests, or with everything sent; else anywhere in the answer.
        point = random.choice((0, len(answer), random.randrange(len(answer)), random.randrange(len(answer))))
        self.transport.write(answer[:point])
        if point == len(answer):
            self._end(b"")
        self._later(random.choice((0.0, 0.0, 0.002, 0.01)), self._reset)

    def _reset(self) -> None:
        if self.transport.is_closing():
            return
        linger = struct.pack("ii", random.getrandbits(1), 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    def _event(self, pause: float, text: str) -> None:
        if not self._left:
            self._end(DONE)
            return
        self._left -= 1
        self.transport.write(chunk(text or f"@{time.monotonic():.6f};"))
        self._later(pause, lambda: self._event(pause, text))

    def _flood(self) -> None:
        while self._left > 0 and not self._held and not self.transport.is_closing():
            self.transport.write(FILLER)
            self._left -= len(FILLER)
            self._seen.written += len(FILLER)

    def _later(self, pause: float, act: Any) -> None:
        self._timer = asyncio.get_running_loop().call_later(pause, act)


async def main() -> None:
    """Serve until killed."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Peer(seen), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
