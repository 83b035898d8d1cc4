"""What the gateway writes down: one JSON line per request and the news of its own life, from a thread of its own."""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from msgspec import Struct

from gateway.contract import Usage
from gateway.prices import Tariff

# Lines kept while the reader of the log does not read; more are counted and dropped.
QUEUE = 50_000
BATCH = 200
# Parts of a unit of money that are told apart: a token may cost a hundredth of a millionth.
CENTS = 1_000_000_000


class Record(Struct):
    """One request, filled in on its way and written when it has ended. Times are the event loop's, in seconds.

    A struct, since one is made for every request: in 0.2 µs, where a dataclass of this size takes 1.5.
    """

    began: float
    id: str = ""
    method: str = ""
    path: str = ""
    key: str = ""
    model: str = ""
    deployment: str = ""
    attempts: str = ""
    stream: bool = False
    status: int = 0
    received: int = 0
    reserved: int = 0
    # By the clock of `time.perf_counter`, since uvloop's own has milliseconds: when the body was read, and
    # the seconds since that the only attempt spent in the gateway; 0 when that is not known.
    read: float = 0.0
    overhead: float = 0.0
    # Which limit of its key refused it, and what the client is told about those limits.
    limited: str = ""
    allowance: Mapping[str, str] | None = None
    # What the answer's headers say to a browser, where pages may call.
    marks: Mapping[str, str] | None = None
    sent: int = 0
    first_byte: float = 0.0
    code: str = "ok"
    upstream_id: str = ""
    usage: Usage | None = None
    # What tokens cost where the answer came from, and what this one cost; None where nobody knows.
    tariff: Tariff | None = None
    cost: float | None = None
    choice: str = ""
    mirror: bool = False

    trace_id: str = ""
    # A `gateway.tracing.trace.Trace`, where traces are sent: a room above this one.
    trace: Any = None

    def reckon(self, prompt: int) -> None:
        """Say what it cost, as far as that is known; its request has about so many tokens."""
        if self.tariff is not None and self.usage is not None:
            self.cost = self.tariff.cost(self.usage, prompt)


class Log:
    """Lines to stdout, stderr or a file. Nothing blocks: a full disk or a reader that sleeps costs lines, not time.

    Lines are formatted in batches by `sweep`, four times a second, and written by a thread that does nothing else.
    `dropped` counts the lines that were lost.
    """

    def __init__(self, to: str = "stdout", *, access: bool = True, text: bool = False) -> None:
        self.dropped = 0
        self._to = to
        self._access = access
        self._format = _as_text if text else _as_json
        self._fresh: list[tuple[float, float, Record | dict[str, Any]]] = []
        self._queue: deque[bytes] = deque()
        self._waiting = 0
        self._wake = threading.Event()
        self._stopped = False
        self._reopen = False
        self._fd = _open(to)
        self._atomic = _is_shared(self._fd)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def record(self, record: Record, ended: float) -> None:
        """Write down a request that has ended at this loop time."""
        if self._access:
            self._fresh.append((time.time(), ended, record))
            if len(self._fresh) >= BATCH:
                self.sweep(ended)

    def news(self, level: str, message: str, **fields: Any) -> None:
        """Write down something about the gateway itself; no field may hold a secret or a client's bytes."""
        self._fresh.append((time.time(), 0.0, {"level": level, "message": message, **fields}))

    def sweep(self, now: float) -> None:
        """Format what has come and hand it to the writer."""
        lines, self._fresh = self._fresh, []
        if not lines:
            return
        if self._waiting + len(lines) > QUEUE:
            self.dropped += len(lines)
            return
        self._waiting += len(lines)
        for start in range(0, len(lines), BATCH):
            batch = lines[start : start + BATCH]
            self._queue.append(b"".join([self._format(*line) for line in batch]))
        self._wake.set()

    def reopen(self) -> None:
        """Open the file anew, after it was rotated by renaming."""
        self._reopen = True
        self._wake.set()

    def redirect(self, to: str, *, access: bool, text: bool) -> None:
        """Write on to another place or in another form; a file is opened anew."""
        self._to, self._access = to, access
        self._format = _as_text if text else _as_json
        self.reopen()

    def close(self, timeout: float = 1.0) -> None:
        """Write what is left, within `timeout` seconds."""
        self.sweep(0.0)
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait()
            self._wake.clear()
            if self._reopen:
                self._reopen = False
                self._fd, self._atomic = _reopened(self._to, self._fd)
            self._write()
        # What came between the last look and the order to stop.
        self._write()

    def _write(self) -> None:
        while self._queue:
            data = self._queue.popleft()
            count = data.count(b"\n")
            try:
                while data:
                    data = data[os.write(self._fd, data[: self._piece(data)]) :]
            except OSError:
                self.dropped += data.count(b"\n")
            self._waiting -= count

    def _piece(self, data: bytes) -> int:
        """How much to write at once: whole lines that a pipe takes in one piece, as other workers write there too."""
        if not self._atomic or len(data) <= select.PIPE_BUF:
            return len(data)
        return data.rfind(b"\n", 0, select.PIPE_BUF) + 1 or data.index(b"\n") + 1


def _open(to: str) -> int:
    if to == "stdout":
        return sys.stdout.fileno()
    if to == "stderr":
        return sys.stderr.fileno()
    return os.open(to, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _is_shared(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _reopened(to: str, fd: int) -> tuple[int, bool]:
    """The descriptor for the place; the one before serves on when the place cannot be opened."""
    standard = (sys.stdout.fileno(), sys.stderr.fileno())
    try:
        fresh = _open(to)
    except OSError:
        fresh = fd
    if fresh != fd and fd not in standard:
        os.close(fd)
    return fresh, _is_shared(fresh)


def fields(record: Record, ended: float) -> dict[str, Any]:
    """A request as the keys of its line; milliseconds for times."""
    line: dict[str, Any] = {
        "id": record.id,
        "method": record.method,
        "path": record.path,
        "key": record.key,
        "model": record.model,
        "deployment": record.deployment,
        "attempts": record.attempts,
        "stream": record.stream,
        "status": record.status,
        "bytes_in": record.received,
        "bytes_out": record.sent,
        "first_byte_ms": _milliseconds(record.first_byte - record.began) if record.first_byte else None,
        "duration_ms": _milliseconds(ended - record.began),
        "code": record.code,
    }
    if record.trace_id:
        line["trace_id"] = record.trace_id
    if record.choice:
        line["choice"] = record.choice
    if record.mirror:
        line["mirror"] = True
    if record.upstream_id:
        line["upstream_id"] = record.upstream_id
    if usage := record.usage:
        line["tokens"] = {
            "prompt": usage.prompt,
            "completion": usage.completion,
            "cached": usage.cached,
            "reasoning": usage.reasoning,
            "source": usage.source,
        }
    if record.cost is not None and record.tariff is not None:
        line["cost"] = int(record.cost * CENTS + 0.5) / CENTS
        line["currency"] = record.tariff.currency
    return line


def _as_json(at: float, ended: float, what: Record | dict[str, Any]) -> bytes:
    line = fields(what, ended) if isinstance(what, Record) else what
    second = int(at)
    return b'{"time":"%b.%03dZ",%b\n' % (_second(second), (at - second) * 1000, _dumped(line)[1:])


def _milliseconds(seconds: float) -> float:
    """To a tenth; `round` takes three times as long."""
    return int(seconds * 10_000 + 0.5) / 10


def _dumped(value: object) -> bytes:
    try:
        return orjson.dumps(value, default=str)
    except TypeError:
        # A lone surrogate (a path whose bytes are not UTF-8), or a number of more than 64 bits.
        return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")


@lru_cache(maxsize=4)
def _second(at: int) -> bytes:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def _as_text(at: float, ended: float, what: Record | dict[str, Any]) -> bytes:
    line = fields(what, ended) if isinstance(what, Record) else what
    stamp = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
    parts = [f"{name}={_dumped(value).decode()}" for name, value in line.items() if value not in ("", None)]
    return f"{stamp} {' '.join(parts)}\n".encode()


News = Callable[..., None]
