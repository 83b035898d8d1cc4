"""Figures as Prometheus' text, a piece at a time, so that a scrape never holds up the streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from gateway.metrics import FAMILIES, Family, Figures, Labels
from gateway.vitals import VITALS, Vitals

PREFIX = "sluiceway_"
KIND = CONTENT_TYPE_PLAIN_0_0_4
# So many lines are made at once: 150 take about 1 ms.
LINES = 150
STATES = ("closed", "open", "half-open")

T = TypeVar("T")
Values = Mapping[Labels, float]
Histograms = Mapping[Labels, list[float]]


async def exposition(figures: Figures, vitals: Vitals) -> bytes:
    """The whole text; the event loop turns between two pieces of it."""
    pieces = []
    for piece in pieces_of(figures, vitals):
        pieces.append(piece)
        await asyncio.sleep(0)  # streams go on between two families
    return b"".join(pieces)


def pieces_of(figures: Figures, vitals: Vitals) -> Iterator[bytes]:
    """The text in pieces of at most 150 lines or one histogram; what is counted meanwhile may or may not be in it."""
    for name, vital in VITALS.items():
        if name in vitals:
            family = Family(vital.kind, vital.about)
            yield from _family(vital.full or PREFIX + name, family, {(): vitals[name]})
    for name, family in FAMILIES.items():
        if family.kind == "histogram":
            yield from _histograms(PREFIX + name, family, figures.histograms.get(name, {}))
        else:
            yield from _family(PREFIX + name, family, _values(name, figures))


def _values(name: str, figures: Figures) -> Values:
    if name == "terminations_total":
        codes: dict[Labels, float] = {}
        for (_, _, code), count in figures.counts.get("requests_total", {}).items():
            codes[(code,)] = codes.get((code,), 0) + count
        return codes
    if name == "breaker_state":
        known = figures.gauges.get(name, {})
        return {(each, state): known.get((each, state), 0) for each, _ in known for state in STATES}
    return figures.counts.get(name) or figures.gauges.get(name, {})


def _family(name: str, family: Family, values: Values) -> Iterator[bytes]:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    for number, some in enumerate(_cut(list(values.items()), LINES)):
        metric = kind(name, family.about, labels=family.labels)
        for labels, value in some:
            metric.add_metric(labels, value)
        yield _text(metric, with_head=not number)


def _histograms(name: str, family: Family, histograms: Histograms) -> Iterator[bytes]:
    for number, some in enumerate(_cut(list(histograms.items()), LINES // (len(family.bounds) + 3))):
        metric = HistogramMetricFamily(name, family.about, labels=family.labels)
        for labels, numbers in some:
            metric.add_metric(labels, _cumulated(family.bounds, numbers), numbers[-1])
        yield _text(metric, with_head=not number)


def _cumulated(bounds: tuple[float, ...], numbers: list[float]) -> list[tuple[str, float]]:
    total = 0.0
    buckets = []
    for bound, count in zip((*map(str, bounds), "+Inf"), numbers, strict=False):
        total += count
        buckets.append((bound, total))
    return buckets


def _cut(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _text(metric: Metric, *, with_head: bool) -> bytes:
    """The lines of one metric; its two lines of comment stand before its first piece only."""
    text = generate_latest(_Only(metric))
    return text if with_head else text.split(b"\n", 2)[2]


class _Only(Collector):
    """A registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        """The metric."""
        return (self._metric,)
