"""What is counted: requests, attempts, tokens and times, as plain numbers under names of the configuration."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal, NamedTuple

from gateway.contract import Usage
from gateway.log import Record

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
ERRORS_KEPT = 20
ATTEMPTS_KEPT = 1024
OTHER = "other"
# What the slower of two attempts at once comes to.
CANCELLED = "cancelled"
# The codes that requests end with; a code that a provider made up is counted as `other`.
CODES = frozenset(
    (
        *("ok", "client_disconnect", "client_write_timeout", "context_length_exceeded", "content_policy_violation"),
        *("forbidden", "headers_too_large", "insufficient_quota", "internal_error", "invalid_api_key"),
        *("invalid_image_url", "invalid_json", "invalid_request", "invalid_value", "method_not_allowed"),
        *("missing_required_parameter", "model_not_available", "model_not_found", "no_healthy_upstream", "not_found"),
        *("overloaded", "rate_limit_exceeded", "request_timeout", "request_too_large", "shutting_down"),
        *("tls_handshake_failed", "tls_required"),
        *("unknown_parameter", "unsupported_dialect", "unsupported_media_type", "unsupported_parameter"),
        *("unsupported_value", "upstream_auth_error", "upstream_bad_response", "upstream_connect_error"),
        *("upstream_connect_timeout", "upstream_dns_error", "upstream_error", "upstream_idle_timeout"),
        *("upstream_proxy_error", "upstream_reset", "upstream_timeout", "upstream_tls_error", "upstream_truncated"),
    )
)
STATUSES = frozenset(str(status.value) for status in HTTPStatus)
CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
# What clients alone can bring about is there from the start, so that none of them adds a series.
FROM_THE_START = ("invalid_api_key", "invalid_json", "invalid_request", "invalid_value", "model_not_found", "not_found")


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its kind, what it says, its labels, and the bounds of a histogram."""

    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "requests_total": Family("counter", "requests by how they ended", ("model", "status", "code")),
    "attempts_total": Family("counter", "attempts at upstreams by their result", ("deployment", "result")),
    "terminations_total": Family("counter", "requests by termination code", ("code",)),
    "tokens_total": Family(
        "counter", "tokens that providers reported, or that a broken stream showed", ("model", "kind")
    ),
    "cost_total": Family("counter", "money that requests have cost, where prices are known", ("model", "currency")),
    "key_cost_total": Family("counter", "the same by client key", ("key", "currency")),
    "limited_total": Family("counter", "requests that a key's limit refused", ("key", "limit")),
    "upstream_stale_retries_total": Family(
        "counter", "requests sent again because a reused connection was dead", ("provider",)
    ),
    "time_to_first_event_seconds": Family("histogram", "from the request's head to the answer", ("model",), SECONDS),
    "request_duration_seconds": Family("histogram", "from the request's head to the last byte", ("model",), SECONDS),
    "overhead_seconds": Family("histogram", "what the gateway adds to a request's only attempt", (), OVERHEAD),
    "budget": Family("gauge", "money that an owner may spend per day or month", ("kind", "name", "currency")),
    "budget_spent": Family("gauge", "money spent since the day or month began", ("kind", "name", "currency")),
    "upstream_active": Family("gauge", "requests in flight at an upstream", ("deployment",)),
    "upstream_waiting": Family("gauge", "requests that wait for room at an upstream", ("deployment",)),
    "upstream_held": Family("gauge", "processes that leave an upstream alone because it asked for it", ("deployment",)),
    "breaker_state": Family("gauge", "processes in which a breaker is in this state", ("deployment", "state")),
    "upstream_connections": Family("gauge", "connections to a provider", ("provider", "state")),
    "config_info": Family("gauge", "the configuration in force", ("digest",)),
    "build_info": Family("gauge", "what runs", ("version", "python", "aiohttp")),
}

Labels = tuple[str, ...]
Values = dict[Labels, float]


class Failure(NamedTuple):
    """A request that went wrong: when (Unix time), for which names, and how. Nothing that a client wrote."""

    at: float
    model: str
    deployment: str
    status: int
    code: str


@dataclass(slots=True)
class Figures:
    """Numbers by family and labels. Those of several processes, or of one after the other, add up.

    A histogram is its counts per bucket, then the sum. `gauges` are as they stand now.
    """

    counts: dict[str, Values] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, list[float]]] = field(default_factory=dict)
    gauges: dict[str, Values] = field(default_factory=dict)
    errors: deque[Failure] = field(default_factory=lambda: deque(maxlen=ERRORS_KEPT))

    def add(self, more: Figures) -> None:
        """Take these in as well."""
        for mine, others in ((self.counts, more.counts), (self.gauges, more.gauges)):
            for family, values in others.items():
                own = mine.setdefault(family, {})
                for labels, value in values.items():
                    own[labels] = own.get(labels, 0) + value
        for family, histograms in more.histograms.items():
            known = self.histograms.setdefault(family, {})
            for labels, buckets in histograms.items():
                before = known.get(labels)
                known[labels] = (
                    buckets.copy() if before is None else [a + b for a, b in zip(before, buckets, strict=True)]
                )
        self.errors.extend(more.errors)


# Records that wait to be counted hold their request's strings.
BATCH = 200


class Metrics:
    """Counts the requests of one process. `figures` holds what was counted when `fold` was last called.

    The request's own path appends one pair; counting takes place four times a second and before somebody looks.
    """

    def __init__(self) -> None:
        self.figures = Figures()
        self._names: Collection[str] = ()
        self._fresh: list[tuple[Record, float]] = []
        self._attempts: dict[str, tuple[Labels, ...]] = {}
        self._begin()

    def adopt(self, names: Collection[str]) -> None:
        """These are the models of the configuration; every other name is counted as none."""
        self.fold()
        self._attempts.clear()
        self._names = frozenset(names)

    def record(self, record: Record, ended: float) -> None:
        """A request has ended at this loop time."""
        self._fresh.append((record, ended))
        if len(self._fresh) >= BATCH:
            self.fold()

    def sweep(self, now: float) -> None:
        """Count what has come."""
        self.fold()

    def fold(self) -> None:
        """Count what has come."""
        fresh, self._fresh = self._fresh, []
        for record, ended in fresh:
            self._count(record, ended)

    def retried(self, provider: str, count: int) -> None:
        """So many requests were sent again on fresh connections."""
        _more(self.figures.counts.setdefault("upstream_stale_retries_total", {}), (provider,), count)

    def take(self) -> Figures:
        """What was counted since this was last called; counting begins anew."""
        self.fold()
        taken, self.figures = self.figures, Figures()
        self._begin()
        return taken

    def _begin(self) -> None:
        figures = self.figures
        blank: Values = {("", "4xx", code): 0.0 for code in FROM_THE_START}
        self._requests: Values = figures.counts.setdefault("requests_total", blank)
        self._tries: Values = figures.counts.setdefault("attempts_total", {})
        self._tokens: Values = figures.counts.setdefault("tokens_total", {})
        self._first = figures.histograms.setdefault("time_to_first_event_seconds", {})
        self._whole = figures.histograms.setdefault("request_duration_seconds", {("",): _empty(SECONDS)})
        self._overhead = figures.histograms.setdefault("overhead_seconds", {(): _empty(OVERHEAD)})[()]

    def _count(self, record: Record, ended: float) -> None:
        model = self._label(record)
        code = record.code if record.code in CODES else OTHER
        key = (model, CLASSES[record.status // 100], code)
        self._requests[key] = self._requests.get(key, 0) + 1
        _observe(self._whole, (model,), ended - record.began)
        if record.first_byte:
            _observe(self._first, (model,), record.first_byte - record.began)
            if spent := record.overhead:
                self._overhead[bisect_left(OVERHEAD, spent)] += 1
                self._overhead[-1] += spent
        if attempts := record.attempts:
            for labels in self._attempts.get(attempts) or self._parsed(attempts):
                self._tries[labels] = self._tries.get(labels, 0) + 1
        if record.usage is not None:
            self._use(model, record.usage)
            if record.cost:
                self._spend(model, record, record.cost)
        if code != "ok":
            self._fail(record, model, code)

    def _label(self, record: Record) -> str:
        """The model under a name of the configuration: a wildcard's stands for all that it takes."""
        if record.model in self._names:
            return record.model
        return record.deployment if record.deployment in self._names else ""

    def _use(self, model: str, usage: Usage) -> None:
        tokens = self._tokens
        for kind, count in (
            ("prompt", usage.prompt),
            ("completion", usage.completion),
            ("cached", usage.cached),
            ("reasoning", usage.reasoning),
        ):
            if count:
                key = (model, kind)
                tokens[key] = tokens.get(key, 0) + count

    def _spend(self, model: str, record: Record, cost: float) -> None:
        assert record.tariff is not None
        currency = record.tariff.currency
        counts = self.figures.counts
        _more(counts.setdefault("cost_total", {}), (model, currency), cost)
        if record.key:
            _more(counts.setdefault("key_cost_total", {}), (record.key, currency), cost)

    def _fail(self, record: Record, model: str, code: str) -> None:
        if record.limited:
            _more(self.figures.counts.setdefault("limited_total", {}), (record.key, record.limited), 1)
        self.figures.errors.append(Failure(time.time(), model, record.deployment, record.status, code))

    def _parsed(self, attempts: str) -> tuple[Labels, ...]:
        """Names and results of `grok=503,claude=200`."""
        if len(self._attempts) >= ATTEMPTS_KEPT:
            self._attempts.clear()
        found = [attempt.rpartition("=") for attempt in attempts.split(",")]
        labels = tuple((name if name in self._names else "", _result(result)) for name, _, result in found)
        self._attempts[attempts] = labels
        return labels


def _result(result: str) -> str:
    return result if result in STATUSES or result in CODES or result == CANCELLED else OTHER


def _empty(bounds: tuple[float, ...]) -> list[float]:
    return [0] * (len(bounds) + 1) + [0.0]


def _observe(histograms: dict[Labels, list[float]], labels: Labels, seconds: float) -> None:
    buckets = histograms.get(labels)
    if buckets is None:
        buckets = histograms[labels] = _empty(SECONDS)
    buckets[bisect_left(SECONDS, seconds)] += 1
    buckets[-1] += seconds


def _more(values: Values, labels: Labels, count: float) -> None:
    values[labels] = values.get(labels, 0) + count
