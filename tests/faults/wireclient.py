"""A client made of bytes: the steps of a case on one connection, and what came back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httptools

Step = Mapping[str, Any]
# So long nothing may come before an open connection is held to stay open.
QUIET = 0.15
BLOCK = 256 * 1024


@dataclass
class Response:
    """One answer; `complete` says that its framing came to an end."""

    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def header(self, name: str) -> str:
        """The value of a header; empty where there is none."""
        return next((value for key, value in self.headers if key == name), "")

    def json(self) -> Any:
        """The body as a value; None when it is no JSON."""
        with contextlib.suppress(ValueError):
            return json.loads(self.body)
        return None

    @property
    def streams(self) -> bool:
        return self.header("content-type").startswith("text/event-stream")

    @property
    def events(self) -> list[str]:
        """The data of each whole server-sent event."""
        found = []
        whole, mark, _ = self.body.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n").rpartition("\n\n")
        for block in (whole + mark).split("\n\n"):
            data = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
            found += ["\n".join(data)] if data else []
        return found

    @property
    def values(self) -> list[dict[str, Any]]:
        """The events that are JSON objects."""
        values = []
        for event in self.events:
            with contextlib.suppress(ValueError):
                values.append(json.loads(event))
        return [value for value in values if isinstance(value, dict)]

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the answer, or of the stream's last event; empty without one."""
        last = (self.values or [{}])[-1] if self.streams else self.json()
        error = last.get("error") if isinstance(last, dict) else None
        return error if isinstance(error, dict) else {}

    @property
    def texts(self) -> dict[int, str]:
        """What a client puts together, by choice."""
        texts: dict[int, str] = {}
        for value in self.values:
            for choice in value.get("choices") or ():
                index = choice.get("index", 0)
                texts[index] = texts.get(index, "") + ((choice.get("delta") or {}).get("content") or "")
        return texts


class _Parser:
    """A foreign parser's view of the bytes: the answers, one after the other."""

    def __init__(self, raw: bytes) -> None:
        self.found: list[Response] = []
        self._parser = httptools.HttpResponseParser(self)
        with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(raw)

    def on_message_begin(self) -> None:
        self.found.append(Response())

    def on_status(self, reason: bytes) -> None:
        self.found[-1].reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found[-1].headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.found[-1].status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.found[-1].body += data

    def on_message_complete(self) -> None:
        self.found[-1].complete = True


@dataclass
class Seen:
    """What the client saw. `closed` is fin or rst when the gateway closed; `left` is when the client itself did."""

    raw: bytes
    closed: str
    began: float
    sent: float
    ended: float
    left: float | None
    arrivals: list[tuple[float, int]]
    interim: list[int] = field(init=False)
    responses: list[Response] = field(init=False)

    def __post_init__(self) -> None:
        found = [each for each in _Parser(self.raw).found if each.status]
        self.interim = [each.status for each in found if each.status < 200]
        self.responses = [each for each in found if each.status >= 200]

    @property
    def last(self) -> Response | None:
        return self.responses[-1] if self.responses else None

    def arrived(self, part: bytes) -> float:
        """When the bytes up to the end of this part had come."""
        end = self.raw.index(part) + len(part)
        return next(at for at, size in self.arrivals if size >= end)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.raw = bytearray()
        self.arrivals: list[tuple[float, int]] = []
        self.closed = ""
        self.gone = asyncio.Event()
        self.moved = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.raw += data
        self.arrivals.append((time.monotonic(), len(self.raw)))
        self.moved.set()

    def eof_received(self) -> bool:
        self.closed = "fin"
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.closed or ("rst" if exc else "fin")
        self.arrivals.append((time.monotonic(), len(self.raw)))
        for event in (self.gone, self.moved, self._writable):
            event.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def send(self, data: bytes) -> None:
        """Write once the gateway takes bytes."""
        await self._writable.wait()
        if not self.transport.is_closing():
            self.transport.write(data)

    async def wait_for(self, claim: Callable[[], bool]) -> None:
        """Wait until what came satisfies the claim, or the connection is gone."""
        while not self.gone.is_set() and not claim():
            self.moved.clear()
            await self.moved.wait()


class Talk:
    """One connection and its steps. `fill` turns a step's text into the bytes that it stands for."""

    def __init__(self, port: int, fill: Callable[[str], bytes]) -> None:
        self._port = port
        self._fill = fill
        self._wire = _Connection()
        self._sent = 0.0
        self._left: float | None = None

    async def run(self, steps: Sequence[Step], patience: float, *, closes: bool = False, quiet: float = QUIET) -> Seen:
        """Do the steps, then wait for the end: the closing if it `closes`, else an answer and silence after it."""
        loop = asyncio.get_running_loop()
        began = self._sent = time.monotonic()
        await loop.create_connection(lambda: self._wire, "127.0.0.1", self._port)
        wire = self._wire
        for step in steps:
            if wire.gone.is_set():
                break
            ((name, value),) = step.items()
            await getattr(self, f"_{name}")(value)
        if self._left is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._sent + patience - time.monotonic())):
                    await (wire.gone.wait() if closes else self._silence(quiet))
        ended = wire.arrivals[-1][0] if wire.arrivals else time.monotonic()
        seen = Seen(
            bytes(wire.raw),
            wire.closed if self._left is None else "",
            began,
            self._sent,
            ended,
            self._left,
            wire.arrivals,
        )
        wire.transport.abort()
        return seen

    async def _silence(self, quiet: float) -> None:
        wire = self._wire
        while not wire.gone.is_set():
            size = len(wire.raw)
            answers = Seen(bytes(wire.raw), "", 0, 0, 0, None, []).responses if size < BLOCK else []
            pending = not size or (size < BLOCK and not (answers and answers[-1].complete))
            wire.moved.clear()
            try:
                async with asyncio.timeout(None if pending else quiet):
                    await wire.moved.wait()
            except TimeoutError:
                return

    async def _write(self, data: bytes) -> None:
        await self._wire.send(data)
        self._sent = time.monotonic()

    async def _t(self, text: str) -> None:
        await self._write(self._fill(text))

    async def _x(self, text: str) -> None:
        await self._write(bytes.fromhex(text))

    async def _data(self, data: bytes) -> None:
        await self._write(data)

    async def _rep(self, what: Step) -> None:
        piece = bytes.fromhex(what["x"]) if "x" in what else self._fill(what["t"])
        once = max(1, BLOCK // len(piece))
        for start in range(0, what["n"], once):
            if self._wire.gone.is_set():
                return
            await self._write(piece * min(once, what["n"] - start))

    async def _drip(self, what: Step) -> None:
        for byte in self._fill(what["t"]):
            if self._wire.gone.is_set():
                return
            await self._write(bytes((byte,)))
            await self._sleep(what["every"])

    async def _gzip_bomb(self, what: Step) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        pieces = [packer.compress(bytes(1024 * 1024)) for _ in range(what["mib"])]
        body = b"".join(pieces) + packer.flush()
        await self._write(b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), BLOCK):
            await self._write(body[start : start + BLOCK])

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wire.gone.wait(), seconds)

    async def _read(self, events: int) -> None:
        await self._wire.wait_for(lambda: self._wire.raw.count(b"data:") >= events)

    async def _shutdown(self, _: str) -> None:
        self._wire.transport.write_eof()

    async def _close(self, how: str) -> None:
        self._left = time.monotonic()
        if how == "rst":
            reset = struct.pack("ii", 1, 0)
            self._wire.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            self._wire.transport.abort()
        else:
            self._wire.transport.close()


async def ask(port: int, request: bytes, patience: float = 15.0) -> Seen:
    """Send one request and wait for its answer."""
    return await Talk(port, str.encode).run([{"data": request}], patience, quiet=0)
