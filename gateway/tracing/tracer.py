"""Traces while the gateway runs: begun for each request, counted at its end, sent by a thread of their own."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Protocol

from gateway.config.types import Otlp
from gateway.log import News, Record
from gateway.tracing.context import Parent
from gateway.tracing.figures import Figures, Points
from gateway.tracing.trace import Trace

# Requests that wait to be sent, and the bytes that are kept of them; beyond, spans are lost and counted.
QUEUE = 2_048
HELD = 32 * 1024 * 1024
BATCH = 128
INTERVAL = 1.0
FIGURES_INTERVAL = 15.0
# How long the process waits for the last spans at its end; and with a collector that took none before.
LAST, LAST_HOPE = 2.0, 0.5

Finished = tuple[Trace, Record]


class Carrier(Protocol):
    """Where spans and figures go; what it does blocks. False: they were not taken. `skipped` requests have no spans."""

    skipped: int

    def spans(self, batch: Sequence[Finished]) -> bool: ...
    def figures(self, points: Points, began: int, now: int) -> bool: ...
    def close(self) -> None: ...


class Tracer:
    """Traces for one collector; `scheme` is that of the requests."""

    def __init__(self, settings: Otlp, carrier: Carrier, news: News, routes: Collection[str]) -> None:
        self.settings = settings
        self.scheme = "http"
        self._carrier = carrier
        self._news = news
        self._routes = routes
        self._figures = Figures()
        self._began = time.time_ns()
        self._queue: deque[Finished] = deque()
        # Written by one thread each, so that no lock is needed.
        self._taken_in = self._turned_away = 0
        self._let_go = self._refused = 0
        self._outbox: Points | None = None
        self._due = 0.0
        self._interval = _interval()
        # What the collector did not take the last time: spans, figures.
        self._failing: frozenset[str] = frozenset()
        self._said = False
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Requests whose spans were lost."""
        return self._turned_away + self._refused + self._carrier.skipped

    def begin(self, parent: Parent | None) -> Trace:
        """A request has come."""
        return Trace(parent, self.settings.sample, content=self.settings.content)

    def finish(self, trace: Trace, record: Record) -> None:
        """It has ended."""
        trace.end(record.code, self._route(record.path))
        trace.scheme = self.scheme
        self._figures.count(trace, record)
        if not trace.sampled:
            return
        size = trace.size
        if len(self._queue) >= QUEUE or self._stopped:
            self._turned_away += 1
            return
        if self._taken_in - self._let_go + size > HELD:
            trace.forget()
            size = 0
        self._taken_in += size
        self._queue.append((trace, record))
        if len(self._queue) == BATCH:
            self._wake.set()

    def sweep(self, now: float) -> None:
        """Hand over the figures when it is time, and say how the collector does."""
        if now >= self._due:
            self._due = now + self._interval
            self._outbox = self._figures.points()
            self._wake.set()
        if (failing := self._failing) and not self._said:
            self._news("warning", "the collector refuses", endpoint=self.settings.endpoint, what=sorted(failing))
        elif self._said and not failing:
            self._news("info", "the collector takes everything again", dropped=self.dropped)
        self._said = bool(failing)

    async def close(self) -> None:
        """Send what is left, within two seconds."""
        self._outbox = self._figures.points()
        self._stopped = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join, LAST_HOPE if self._failing else LAST)
        if self._thread.is_alive():
            # It is a daemon: it ends with the process, if not before.
            self._carrier.close()

    def _route(self, path: str) -> str:
        if path in self._routes:
            return path
        parent = path.rpartition("/")[0]
        return f"{parent}/{{id}}" if parent in self._routes else ""

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(INTERVAL)
            self._wake.clear()
            self._send()
        # What came between the last look and the order to stop.
        self._send()
        self._carrier.close()

    def _send(self) -> None:
        points, self._outbox = self._outbox, None
        if points:
            self._attempt("figures", partial(self._carrier.figures, points, self._began, time.time_ns()))
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._let_go += sum(trace.size for trace, _ in batch)
            if not self._attempt("spans", partial(self._carrier.spans, batch)):
                self._refused += len(batch)

    def _attempt(self, what: str, send: Callable[[], bool]) -> bool:
        try:
            taken = send()
        except Exception:  # whatever it was, the thread lives on
            taken = False
        self._failing = self._failing - {what} if taken else self._failing | {what}
        return taken


class Tracing:
    """The tracer that the configuration in force asks for, if any."""

    def __init__(self, news: News, routes: Collection[str]) -> None:
        self.tracer: Tracer | None = None
        self._news = news
        self._routes = routes
        self._lost = 0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def dropped(self) -> int:
        """Requests whose spans were lost, since the start."""
        return self._lost + (self.tracer.dropped if self.tracer is not None else 0)

    async def adopt(self, settings: Otlp | None, *, secure: bool = False) -> Tracer | None:
        """The tracer for these settings: the one in force if they are its own. Raises ImportError without the extra.

        `secure`: the gateway serves by TLS.
        """
        await self._replace(settings)
        if self.tracer is not None:
            self.tracer.scheme = "https" if secure else "http"
        return self.tracer

    async def _replace(self, settings: Otlp | None) -> None:
        before = self.tracer
        if before is not None and before.settings == settings:
            return
        # In a thread, as the SDK takes a third of a second to import.
        self.tracer = await asyncio.to_thread(self._opened, settings) if settings is not None else None
        if before is not None:
            self._lost += before.dropped
            task = asyncio.create_task(before.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def sweep(self, now: float) -> None:
        """Four times a second."""
        if self.tracer is not None:
            self.tracer.sweep(now)

    async def close(self) -> None:
        """Send what is left."""
        if self.tracer is not None:
            await self.tracer.close()
        await asyncio.gather(*self._closing)

    def _opened(self, settings: Otlp) -> Tracer:
        carrier: Carrier = importlib.import_module("gateway.tracing.delivery").Delivery(settings.endpoint)
        return Tracer(settings, carrier, self._news, self._routes)


def _interval() -> float:
    """Seconds between two times that figures are sent, by the variable that every SDK reads."""
    text = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    return max(0.1, int(text) / 1000) if text.isdecimal() else FIGURES_INTERVAL
