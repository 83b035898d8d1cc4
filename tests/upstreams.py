"""Providers for tests: the demo, and a scripted TCP server that does exactly what a list of steps says."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import gzip
import re
import socket
import ssl
import struct
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import orjson
import trustme
from tasks import Tasks

from gateway.demo import Demo, start_demo

Step = Mapping[str, Any]
Tls = Literal["good", "wrong_name", "expired", "plain", "hang"]
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@contextlib.asynccontextmanager
async def demo(pace: float = 0, record: int = 100) -> AsyncIterator[Demo]:
    """The demo upstream on a free port of loopback, without pauses."""
    running = await start_demo("127.0.0.1", 0, pace=pace, record=record)
    try:
        yield running
    finally:
        await running.stop()


def chunk(**delta: Any) -> dict[str, Any]:
    """A chat.completion.chunk with this delta."""
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def event(value: object) -> str:
    """A value as a server-sent event."""
    return "data: " + orjson.dumps(value).decode() + "\n\n"


_FINISH = chunk()
_FINISH["choices"][0]["finish_reason"] = "stop"
_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
OK_BODY = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
).decode()


def answer(body: str, status: str = "200 OK", **headers: str) -> str:
    """A whole HTTP/1.1 JSON answer."""
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body.encode())), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n{body}"


SSE_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
# What stands for {{NAME}} in a script.
NAMES = {
    "OK": answer(OK_BODY),
    "OKBODY": OK_BODY,
    "OKLEN": str(len(OK_BODY)),
    "SSE": SSE_HEAD,
    "D1": event(chunk(role="assistant", content="")),
    "D2": event(chunk(content="Hel")),
    "D3": event(chunk(content="lo")),
    "FIN": event(_FINISH),
    "USAGE": event({**chunk(), "choices": [], "usage": _USAGE}),
    "DONE": "data: [DONE]\n\n",
    "64K": "x" * 65536,
}


class Certificates:
    """An authority for tests with a certificate of every sort; `ca_file` is what a client trusts."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        with tempfile.NamedTemporaryFile(suffix=".pem", delete=False) as file:
            self.ca_file = file.name
        self.authority.cert_pem.write_to_path(self.ca_file)

    def server(self, sort: Tls) -> ssl.SSLContext:
        """A server's context with a certificate that is good, of another name, or expired."""
        name = "other.example" if sort == "wrong_name" else "127.0.0.1"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued = self.authority.issue_cert(name, "localhost" if sort != "wrong_name" else name, not_after=_end(sort))
        issued.configure_cert(context)
        return context


def _end(sort: Tls) -> datetime.datetime | None:
    return PAST if sort == "expired" else None


@functools.cache
def certificates() -> Certificates:
    """The authority of this test process."""
    return Certificates()


@dataclass(eq=False)
class Connection:
    """What one connection saw. `closed` is set when the peer has gone (or the script closed it)."""

    number: int
    requests: list[bytes] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    eof: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None


class ScriptedUpstream:
    """A TCP server on loopback; the n-th request of all runs the n-th script, later ones the last script.

    Steps, one key each: `t` text (latin-1, {{NAMES}} replaced), `x` hex, `chunk` text in chunked framing, `end` the
    last chunk, `rep {t|x|chunk, n}`, `drip {t, every}`, `sleep` seconds, `stall` (seconds, or true for ever), `fin`,
    `rst`, `gzip_ok`, `gzip_bomb {mib}`, `wait` an asyncio.Event, `set` an asyncio.Event, `eof` (wait until the
    peer has closed its side). `on_accept` steps run as soon as a connection is there. `names` adds to NAMES. With
    `refuses`, connections are refused until `listen`.
    """

    def __init__(
        self,
        *scripts: Sequence[Step],
        on_accept: Sequence[Step] = (),
        tls: Tls | None = None,
        names: Mapping[str, str] | None = None,
        refuses: bool = False,
    ) -> None:
        self.refuses = refuses
        self.scripts = [list(script) for script in scripts]
        self.on_accept = on_accept
        self.tls = tls
        self.names = {**NAMES, **(names or {})}
        self.connections: list[Connection] = []
        self.arrived = asyncio.Event()
        self.port = 0
        self._served = 0
        self._tasks = Tasks()
        self._transports: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    @property
    def requests(self) -> list[bytes]:
        """Every whole request of every connection, head and body."""
        return [request for connection in self.connections for request in connection.requests]

    @property
    def url(self) -> str:
        """The address as a base URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> ScriptedUpstream:
        context = None if self.tls in (None, "plain", "hang") else certificates().server(self.tls)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Peer(self), "127.0.0.1", 0, ssl=context, start_serving=not self.refuses
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._tasks.cancel()
        for transport in list(self._transports):
            transport.abort()
        await asyncio.sleep(0)

    async def listen(self) -> None:
        """Refuse connections no longer."""
        assert self._server is not None
        await self._server.start_serving()

    async def request_count(self, count: int) -> None:
        """Wait until so many whole requests have arrived."""
        while len(self.requests) < count:
            self.arrived.clear()
            await self.arrived.wait()

    def next_script(self) -> Sequence[Step]:
        """The steps for the request that has just arrived."""
        self._served += 1
        return self.scripts[min(self._served, len(self.scripts)) - 1] if self.scripts else ()

    def start(self, peer: _Peer, steps: Sequence[Step]) -> None:
        """Run steps on a connection."""
        self._tasks.start(peer.run(steps))

    def opened(self, transport: asyncio.Transport) -> Connection:
        """Remember a connection."""
        self._transports.add(transport)
        self.connections.append(Connection(len(self.connections)))
        return self.connections[-1]

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget a connection that has ended."""
        self._transports.discard(transport)


class _Peer(asyncio.Protocol):
    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self._turn = asyncio.Lock()
        self.transport: asyncio.Transport
        self.seen: Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, as uvloop's transport is none of asyncio's by its class.
        self.transport = cast("asyncio.Transport", transport)
        self.seen = self._upstream.opened(self.transport)
        if self._upstream.on_accept:
            self._upstream.start(self, self._upstream.on_accept)

    def data_received(self, data: bytes) -> None:
        self.seen.raw += data
        self._buffer += data
        if self._upstream.tls == "hang":
            return
        while length := _request_length(self._buffer):
            self.seen.requests.append(bytes(self._buffer[:length]))
            del self._buffer[:length]
            self._upstream.arrived.set()
            self._upstream.start(self, self._upstream.next_script())

    def eof_received(self) -> bool:
        self.seen.eof.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.error = exc
        self.seen.eof.set()
        self.seen.closed.set()
        self._writable.set()
        self._upstream.closed(self.transport)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def run(self, steps: Sequence[Step]) -> None:
        """Do the steps, one request after the other."""
        async with self._turn:
            for step in steps:
                if self.transport.is_closing():
                    return
                ((name, value),) = step.items()
                await self._do(name, value)

    async def _do(self, name: str, value: Any) -> None:
        if name in ("t", "x", "chunk", "end", "gzip_ok"):
            await self._write(self._bytes(name, value))
        elif name == "rep":
            await self._repeat(value)
        elif name == "drip":
            for byte in self._bytes("t", value["t"]):
                await self._write(bytes((byte,)))
                await asyncio.sleep(value["every"])
        elif name == "gzip_bomb":
            for piece in _bomb(value["mib"]):
                await self._write(piece)
        elif name == "fin":
            self.transport.close()
        elif name == "rst":
            _reset(self.transport)
        elif name == "set":
            value.set()
        else:
            await self._wait(name, value)

    async def _wait(self, name: str, value: Any) -> None:
        if name == "sleep":
            await asyncio.sleep(value)
        elif name == "wait":
            await value.wait()
        elif name == "eof":
            await self.seen.eof.wait()
        elif name == "stall":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.seen.closed.wait(), None if value is True else value)
        else:
            raise ValueError(f"no such step: {name}")

    async def _repeat(self, value: Mapping[str, Any]) -> None:
        piece = b"".join(self._bytes(name, value[name]) for name in ("t", "x", "chunk") if name in value)
        once = max(65536 // max(len(piece), 1), 1)
        for start in range(0, value["n"], once):
            if self.transport.is_closing():
                return
            await self._write(piece * min(once, value["n"] - start))

    async def _write(self, data: bytes) -> None:
        await self._writable.wait()
        if not self.transport.is_closing():
            self.transport.write(data)

    def _bytes(self, name: str, value: Any) -> bytes:
        if name == "x":
            return bytes.fromhex(value)
        if name == "end":
            return b"0\r\n\r\n"
        if name == "gzip_ok":
            body = gzip.compress(OK_BODY.encode())
            head = answer("", Content_Encoding="gzip", Content_Length=str(len(body))).replace(
                "Content-Length: 0\r\n", ""
            )
            return head.encode() + body
        text = re.sub(r"\{\{(\w+)\}\}", lambda found: self._upstream.names.get(found[1], found[0]), value)
        data = _latin(text)
        return b"%x\r\n%s\r\n" % (len(data), data) if name == "chunk" else data


def _latin(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def _request_length(buffer: bytearray) -> int:
    """The bytes of the first whole request in the buffer; 0 while it is incomplete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = bytes(buffer[:end]).lower()
    start = end + 4
    if re.search(rb"\r\ntransfer-encoding:\s*chunked", head):
        last = buffer.find(b"0\r\n\r\n", start)
        return last + 5 if last >= 0 else 0
    found = re.search(rb"\r\ncontent-length:\s*(\d+)", head)
    whole = start + (int(found[1]) if found else 0)
    return whole if len(buffer) >= whole else 0


def _reset(transport: asyncio.Transport) -> None:
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _bomb(mib: int) -> Iterator[bytes]:
    """An answer of a few bytes that unpacks to so many MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for _ in range(mib):
        if piece := packer.compress(bytes(1024 * 1024)):
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
    piece = packer.flush()
    yield b"%x\r\n%s\r\n0\r\n\r\n" % (len(piece), piece)
