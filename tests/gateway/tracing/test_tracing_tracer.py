"""The tracer's thread: what waits is bounded, what fails is counted, and nobody waits for it long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.config.types import Otlp
from gateway.log import Record
from gateway.tracing import tracer as module
from gateway.tracing.context import Parent
from gateway.tracing.figures import Points
from gateway.tracing.tracer import BATCH, QUEUE, Finished, Tracer, Tracing

SETTINGS = Otlp(endpoint="http://127.0.0.1:1")
PARENT = Parent("a" * 32, "b" * 16, 1)


class Fake:
    """A collector's side: it takes, refuses, breaks, or stands still until it is let go."""

    def __init__(self, *, takes: bool = True, breaks: bool = False, stands: bool = False) -> None:
        self.takes, self.breaks = takes, breaks
        self.go = threading.Event()
        if not stands:
            self.go.set()
        self.reached = threading.Event()
        self.batches: list[int] = []
        self.points: list[Points] = []
        self.closed = self.skipped = 0

    def spans(self, batch: Sequence[Finished]) -> bool:
        self.reached.set()
        self.go.wait(20)
        if self.breaks:
            raise ValueError("broken")
        self.batches.append(len(batch))
        return self.takes

    def figures(self, points: Points, began: int, now: int) -> bool:
        assert began <= now
        self.points.append(points)
        return self.takes

    def close(self) -> None:
        self.closed += 1


def made(carrier: Fake, news: Callable[..., None] = lambda *args, **fields: None) -> Tracer:
    return Tracer(SETTINGS, carrier, news, ("/v1/models",))


def finish(tracer: Tracer, count: int = 1, body: bytes = b"", path: str = "/v1/models") -> None:
    for _ in range(count):
        trace = tracer.begin(PARENT)
        trace.body = body
        tracer.finish(trace, Record(0.0, method="GET", path=path, status=200))


def test_requests_that_wait_are_bounded_and_the_others_counted(run: Callable[..., Any]) -> None:
    fake = Fake(stands=True)
    tracer = made(fake)
    finish(tracer, BATCH)
    assert fake.reached.wait(10)
    finish(tracer, QUEUE + 100)
    assert tracer.dropped == 100
    fake.go.set()
    run(tracer.close())
    assert sum(fake.batches) == QUEUE + BATCH
    assert max(fake.batches) <= BATCH
    assert fake.closed == 1
    # A request that ends after that is lost, and counted.
    finish(tracer)
    assert tracer.dropped == 101


def test_what_was_said_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    monkeypatch.setattr(module, "HELD", 1_000)
    fake = Fake(stands=True)
    tracer = made(fake)
    finish(tracer, BATCH, b"x" * 7)
    assert fake.reached.wait(10)
    kept = [tracer.begin(PARENT) for _ in range(4)]
    for trace in kept:
        trace.body = b"x" * 300
        tracer.finish(trace, Record(0.0))
    assert [len(trace.body) for trace in kept] == [300, 300, 300, 0]
    fake.go.set()
    run(tracer.close())
    assert (sum(fake.batches), tracer.dropped) == (BATCH + 4, 0)


def test_a_broken_carrier_costs_spans_and_not_the_thread(run: Callable[..., Any]) -> None:
    fake = Fake(breaks=True)
    tracer = made(fake)
    finish(tracer, 3)
    run(tracer.close())
    assert tracer.dropped == 3
    assert fake.points, "the figures went out all the same"


def test_the_end_waits_for_a_hanging_collector_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, "LAST", 0.1)
    fake = Fake(stands=True)
    tracer = made(fake)
    finish(tracer, BATCH)
    assert fake.reached.wait(10)
    began = time.monotonic()
    run(tracer.close())
    assert time.monotonic() - began < 10
    assert fake.closed == 1
    fake.go.set()


def test_a_refusing_collector_is_told_once_and_its_recovery_too(
    run: Callable[..., Any], until: Callable[[Callable[[], bool]], Any]
) -> None:
    told: list[tuple[str, str]] = []
    fake = Fake(takes=False)
    tracer = made(fake, lambda level, message, **fields: told.append((level, message)))

    async def main() -> None:
        now = 0.0
        for takes in (False, False, True):
            fake.takes = takes
            sent = len(fake.batches)
            finish(tracer, BATCH)
            await until(lambda sent=sent: len(fake.batches) > sent)
            now += 100.0
            figures = len(fake.points)
            tracer.sweep(now)
            await until(lambda figures=figures: len(fake.points) > figures)
            await until(lambda takes=takes: bool(tracer._failing) is not takes)
            tracer.sweep(now)
        await tracer.close()

    run(main())
    assert told == [("warning", "the collector refuses"), ("info", "the collector takes everything again")]
    assert tracer.dropped == 2 * BATCH


def test_figures_go_out_at_their_interval_and_are_those_of_all_requests(run: Callable[..., Any]) -> None:
    fake = Fake()
    tracer = made(fake)
    unsampled = tracer.begin(Parent("a" * 32, "b" * 16, 0))
    tracer.finish(unsampled, Record(0.0, method="BREW", path="/elsewhere", status=404, code="a-code-of-a-stranger"))
    finish(tracer, 2, path="/v1/models/some")

    async def main() -> None:
        await tracer.close()

    run(main())
    (points,) = [point for each in fake.points for point in each.values()]
    counts = {tuple(dict(labels).values()): sum(point.counts) for labels, point in points.items()}
    assert counts == {("_OTHER", "http", 404): 1, ("GET", "http", "/v1/models/{id}", 200): 2}


def test_a_reload_with_the_same_settings_keeps_the_tracer(run: Callable[..., Any]) -> None:
    async def main() -> None:
        tracing = Tracing(lambda *args, **fields: None, ())
        assert await tracing.adopt(None) is None
        first = await tracing.adopt(SETTINGS)
        assert await tracing.adopt(Otlp(endpoint="http://127.0.0.1:1"), secure=True) is first
        assert first is not None
        trace = first.begin(PARENT)
        first.finish(trace, Record(0.0, method="GET"))
        assert trace.scheme == "https"
        other = await tracing.adopt(Otlp(endpoint="http://127.0.0.1:2"))
        assert other is not first
        assert other is not None
        other._turned_away = 3
        assert await tracing.adopt(None) is None
        assert tracing.dropped == 3
        await tracing.close()

    run(main())


def test_the_interval_is_that_of_every_sdk(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    for text, seconds in (("2500", 2.5), ("1", 0.1), ("soon", 15.0), ("", 15.0)):
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", text)
        tracer = made(Fake())
        assert tracer._interval == seconds
        asyncio.run(tracer.close())
