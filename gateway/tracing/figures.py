"""The figures that the semantic conventions name, of all requests, sampled or not: histograms under bounded labels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from gateway.log import Record
from gateway.metrics import CANCELLED, CODES
from gateway.routes import Attempt
from gateway.tracing import names
from gateway.tracing.trace import Span, Trace

PORTS = {"http": 80, "https": 443}
Labels = tuple[tuple[str, str | int], ...]


@dataclass(frozen=True, slots=True)
class Instrument:
    """A histogram: its unit, what it says and its bounds."""

    unit: str
    about: str
    bounds: tuple[float, ...]


INSTRUMENTS: Mapping[str, Instrument] = {
    names.OPERATION_DURATION: Instrument("s", "from an attempt's begin to its end", names.SECONDS),
    names.TIME_TO_FIRST_CHUNK: Instrument("s", "from an attempt's begin to its first event", names.SECONDS),
    names.TOKEN_USAGE: Instrument("{token}", "tokens that providers reported", names.TOKENS),
    names.REQUEST_DURATION: Instrument("s", "from a request's head to the last byte", names.HTTP_SECONDS),
}


@dataclass(slots=True)
class Point:
    """What was measured under one set of labels."""

    counts: list[int]
    total: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def copy(self) -> Point:
        """The same, no longer counting."""
        return Point(self.counts.copy(), self.total, self.least, self.most)


Points = dict[str, dict[Labels, Point]]


class Figures:
    """Counts finished requests; `points` is what is counted so far."""

    def __init__(self) -> None:
        self._points: Points = {name: {} for name in INSTRUMENTS}

    def points(self) -> Points:
        """A copy that another thread may read."""
        return {
            name: {labels: point.copy() for labels, point in points.items()}
            for name, points in self._points.items()
            if points
        }

    def count(self, trace: Trace, record: Record) -> None:
        """Take in a request that has ended."""
        labels: Labels = ((names.METHOD, method_of(record)), (names.SCHEME, trace.scheme))
        if trace.route:
            labels += ((names.ROUTE, trace.route),)
        if record.status:
            labels += ((names.STATUS, record.status),)
        if error := error_of(record):
            labels += ((names.ERROR, bounded(error)),)
        self._observe(names.REQUEST_DURATION, labels, (trace.ended - trace.began) / 1e9)
        for span in trace.spans:
            self._count_attempt(span, record, won=span is trace.winner)

    def _count_attempt(self, span: Span, record: Record, *, won: bool) -> None:
        labels = labels_of(span.attempt)
        error: Labels = ((names.ERROR, bounded(span.code)),) if span.code else ()
        self._observe(names.OPERATION_DURATION, labels + error, (span.ended - span.began) / 1e9)
        if span.first and record.stream:
            self._observe(names.TIME_TO_FIRST_CHUNK, labels, (span.first - span.began) / 1e9)
        usage = record.usage
        # Of a stream that broke off nobody knows what it cost.
        if won and usage is not None and usage.source == "reported":
            for kind, count in ((names.INPUT_TYPE, usage.prompt), (names.OUTPUT_TYPE_OF_TOKENS, usage.completion)):
                if count is not None:
                    self._observe(names.TOKEN_USAGE, (*labels, (names.TOKEN_TYPE, kind)), count)

    def _observe(self, name: str, labels: Labels, value: float) -> None:
        points = self._points[name]
        bounds = INSTRUMENTS[name].bounds
        point = points.get(labels)
        if point is None:
            point = points[labels] = Point([0] * (len(bounds) + 1))
        point.counts[bisect_left(bounds, value)] += 1
        point.total += value
        point.least = min(point.least, value)
        point.most = max(point.most, value)


def labels_of(attempt: Attempt) -> Labels:
    """Where an attempt went. Behind a wildcard the model is the wildcard's name: clients choose what stands there."""
    return _labels(
        attempt.provider.name, attempt.target.base_url, attempt.deployment if attempt.open else attempt.target.model
    )


@lru_cache(maxsize=1024)
def _labels(kind: str, base_url: str, model: str) -> Labels:
    host, port = address_of(base_url)
    return (
        (names.OPERATION, names.CHAT),
        (names.PROVIDER, names.provider_name(kind, host)),
        (names.MODEL, model),
        (names.SERVER, host),
        (names.SERVER_PORT, port),
    )


@lru_cache(maxsize=1024)
def address_of(base_url: str) -> tuple[str, int]:
    """Host and port of an upstream."""
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)


def method_of(record: Record) -> str:
    """The request's method, if it is one."""
    return record.method if record.method in names.METHODS else names.OTHER


def error_of(record: Record) -> str:
    """What went wrong on our side or behind us; a request that we refused with 4xx is the client's error."""
    return "" if record.code == "ok" or 400 <= record.status < 500 else record.code


def bounded(code: str) -> str:
    """A code of ours; one that a provider made up is any other."""
    return code if code in CODES or code == CANCELLED else names.OTHER
