"""What the gateway writes down: one JSON line per request and the news of its own life, from a thread of its own."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.contract import Usage

INTERVAL = 0.1
# Lines kept while the reader of the log does not read; more are counted and dropped.
QUEUE = 20_000


@dataclass(slots=True)
class Record:
    """One request, filled in on its way and written when it has ended. Times are the event loop's, in seconds."""

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
    sent: int = 0
    first_byte: float = 0.0
    code: str = "ok"
    upstream_id: str = ""
    usage: Usage | None = None


class Log:
    """Lines to stdout, stderr or a file. `write` never blocks: a full disk or a reader that sleeps costs lines, not time.

    `dropped` counts the lines that were lost.
    """

    def __init__(self, to: str = "stdout", *, access: bool = True, text: bool = False) -> None:
        self.dropped = 0
        self._to = to
        self._access = access
        self._format = _as_text if text else _as_json
        self._queue: deque[tuple[float, float, Record | dict[str, Any]]] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._reopen = False
        self._fd = _open(to)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def record(self, record: Record, ended: float) -> None:
        """Write down a request that has ended at this loop time."""
        if self._access:
            self._put((time.time(), ended, record))

    def news(self, level: str, message: str, **fields: Any) -> None:
        """Write down something about the gateway itself; no field may hold a secret or a client's bytes."""
        self._put((time.time(), 0.0, {"level": level, "message": message, **fields}))

    def reopen(self) -> None:
        """Open the file anew, after it was rotated by renaming."""
        self._reopen = True

    def close(self, timeout: float = 1.0) -> None:
        """Write what is left, within `timeout` seconds."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _put(self, line: tuple[float, float, Record | dict[str, Any]]) -> None:
        if len(self._queue) >= QUEUE:
            self.dropped += 1
            return
        self._queue.append(line)

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(INTERVAL)
            self._flush()
        self._flush()

    def _flush(self) -> None:
        if self._reopen:
            self._reopen = False
            self._fd = _reopened(self._to, self._fd)
        while self._queue:
            lines = [self._queue.popleft() for _ in range(min(len(self._queue), 1000))]
            data = b"".join([self._format(*line) for line in lines])
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                self.dropped += len(lines)


def _open(to: str) -> int:
    if to == "stdout":
        return sys.stdout.fileno()
    if to == "stderr":
        return sys.stderr.fileno()
    return os.open(to, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _reopened(to: str, fd: int) -> int:
    if to in {"stdout", "stderr"}:
        return fd
    try:
        fresh = _open(to)
    except OSError:
        return fd
    os.close(fd)
    return fresh


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
        "first_byte_ms": round((record.first_byte - record.began) * 1000, 1) if record.first_byte else None,
        "duration_ms": round((ended - record.began) * 1000, 1),
        "code": record.code,
    }
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
    return line


def _as_json(at: float, ended: float, what: Record | dict[str, Any]) -> bytes:
    line = fields(what, ended) if isinstance(what, Record) else what
    stamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return orjson.dumps({"time": stamp, **line}, default=str, option=orjson.OPT_APPEND_NEWLINE)


def _as_text(at: float, ended: float, what: Record | dict[str, Any]) -> bytes:
    line = fields(what, ended) if isinstance(what, Record) else what
    stamp = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
    parts = [
        f"{name}={orjson.dumps(value, default=str).decode()}" for name, value in line.items() if value not in ("", None)
    ]
    return f"{stamp} {' '.join(parts)}\n".encode()


News = Callable[..., None]
