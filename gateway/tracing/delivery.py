"""Finished requests as spans, and figures, to a collector by OpenTelemetry's own SDK. Imported where it is asked for.

Only the SDK's values and its exporters are used: its tracers and meters cost more than the requests that they watch.
"""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Callable, Sequence

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from gateway import __version__
from gateway.log import Record
from gateway.tracing import names
from gateway.tracing.context import SAMPLED
from gateway.tracing.figures import INSTRUMENTS, Labels, Point, Points, error_of, labels_of, method_of
from gateway.tracing.heard import Heard, hear
from gateway.tracing.messages import content
from gateway.tracing.trace import Span, Trace

Finished = tuple[Trace, Record]
Attributes = dict[str, AttributeValue]
CLIENT_LEFT = "client_disconnect"
TURN = 0.0005


class Delivery:
    """Sends to the collector at this endpoint; every call blocks, for ten seconds at the most.

    `skipped`: requests of which no spans could be made.
    """

    def __init__(self, endpoint: str) -> None:
        # What fails is told in the gateway's own log, once, and not here for every batch.
        logger = logging.getLogger("opentelemetry")
        logger.handlers, logger.propagate = [logging.NullHandler()], False
        # Encoding takes 0.15 ms a request in this thread, and the event loop would wait 5 ms for its turn.
        sys.setswitchinterval(TURN)
        base = endpoint.rstrip("/")
        self._spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces")
        self._metrics = OTLPMetricExporter(endpoint=f"{base}/v1/metrics")
        self._stops: tuple[Callable[[], object], ...] = (self._spans.shutdown, self._metrics.shutdown)
        self._resource = _resource()
        self.skipped = 0
        self._scope = InstrumentationScope("sluiceway", __version__, names.SCHEMA)

    def spans(self, batch: Sequence[Finished]) -> bool:
        """Send the spans of these requests; were they taken?"""
        spans = [span for trace, record in batch for span in self._made_of(trace, record)]
        return self._spans.export(spans) is SpanExportResult.SUCCESS

    def figures(self, points: Points, began: int, now: int) -> bool:
        """Send what was counted between these two times; was it taken?"""
        metrics = [
            Metric(name, INSTRUMENTS[name].about, INSTRUMENTS[name].unit, _histogram(name, found, began, now))
            for name, found in points.items()
        ]
        scopes = [ScopeMetrics(self._scope, metrics, names.SCHEMA)]
        data = MetricsData([ResourceMetrics(self._resource, scopes, names.SCHEMA)])
        return self._metrics.export(data) is MetricExportResult.SUCCESS

    def close(self) -> None:
        """Send nothing more, and end a wait for another try."""
        stops, self._stops = self._stops, ()
        for stop in stops:
            stop()

    def _made_of(self, trace: Trace, record: Record) -> list[ReadableSpan]:
        """The spans of a request; where something in it is odd beyond belief, without what was said."""
        try:
            return self._spans_of(trace, record)
        except Exception:  # clients and providers choose what stands there; the others of the batch are to arrive
            trace.forget()
        try:
            return self._spans_of(trace, record)
        except Exception:
            self.skipped += 1
            return []

    def _spans_of(self, trace: Trace, record: Record) -> list[ReadableSpan]:
        heard = hear(trace)
        own = _context(trace, trace.span)
        parent = _context(trace, trace.parent.span, remote=True) if trace.parent else None
        title = f"{method_of(record)} {trace.route}" if trace.route else method_of(record).replace(names.OTHER, "HTTP")
        spans = [self._made(title, SpanKind.SERVER, own, parent, _request(trace, record), trace, _status(record))]
        for number, span in enumerate(trace.spans):
            told = _attempt(span, record, number)
            if span is trace.winner:
                told |= _answer(span, record, heard)
                if trace.chat is not None:
                    told |= content(trace.chat, heard)
            status = Status(StatusCode.ERROR, span.code) if span.code else Status(StatusCode.UNSET)
            title = f"{names.CHAT} {span.attempt.target.model}"
            spans.append(self._made(title, SpanKind.CLIENT, _context(trace, span.id), own, told, span, status))
        return spans

    def _made(
        self,
        title: str,
        kind: SpanKind,
        own: SpanContext,
        parent: SpanContext | None,
        told: Attributes,
        times: Trace | Span,
        status: Status,
    ) -> ReadableSpan:
        return ReadableSpan(
            name=title,
            context=own,
            parent=parent,
            resource=self._resource,
            attributes=told,
            kind=kind,
            instrumentation_scope=self._scope,
            status=status,
            start_time=times.began,
            end_time=max(times.began, times.ended),
        )


def _resource() -> Resource:
    """This process: the worker's own, as each of several sends for itself."""
    told = {names.SERVICE_VERSION: __version__, names.SERVICE_INSTANCE: str(uuid.uuid4())}
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create(told if named else {**told, names.SERVICE: "sluiceway"}, names.SCHEMA)


def _context(trace: Trace, span: str, *, remote: bool = False) -> SpanContext:
    state = TraceState.from_header([trace.parent.state]) if trace.parent and trace.parent.state else None
    return SpanContext(int(trace.id, 16), int(span, 16), remote, TraceFlags(trace.flags | SAMPLED), state)


def _status(record: Record) -> Status:
    error = error_of(record)
    # Whoever leaves has not failed, and nor have we.
    return Status(StatusCode.ERROR, error) if error and error != CLIENT_LEFT else Status(StatusCode.UNSET)


def _request(trace: Trace, record: Record) -> Attributes:
    """What the gateway knows of the request itself."""
    told: Attributes = {names.METHOD: method_of(record), names.SCHEME: trace.scheme, names.REQUEST_ID: record.id}
    for name, value in (
        (names.ROUTE, trace.route),
        (names.PATH, record.path if trace.route else ""),
        (names.STATUS, record.status),
        (names.ERROR, error_of(record)),
        (names.KEY, record.key),
        (names.ASKED_MODEL, record.model),
        (names.DEPLOYMENT, record.deployment),
        (names.ATTEMPTS, record.attempts),
        (names.CHOICE, record.choice),
        (names.CODE, record.code),
    ):
        if value:
            told[name] = value
    return told


def _attempt(span: Span, record: Record, number: int) -> Attributes:
    """What an attempt asked for, and how it ended."""
    told: Attributes = {**dict(labels_of(span.attempt)), names.MODEL: span.attempt.target.model}
    told[names.STREAM] = record.stream
    told[names.DEPLOYMENT] = span.attempt.name
    for name, attribute in names.PARAMETERS.items():
        value = span.asked.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            told[attribute] = int(value) if name in names.WHOLE else float(value)
    count = span.asked.get("n")
    if isinstance(count, int) and count != 1:
        told[names.CHOICES] = count
    for name, found in ((names.RESENT, number), (names.STATUS, span.status), (names.ERROR, span.code)):
        if found:
            told[name] = found
    if span.first and record.stream:
        told[names.FIRST_CHUNK] = (span.first - span.began) / 1e9
    if span.upstream_id:
        told[names.UPSTREAM_ID] = span.upstream_id
    return told


def _answer(span: Span, record: Record, heard: Heard) -> Attributes:
    """What the answer that the client got says of itself."""
    told: Attributes = {}
    if heard.id:
        told[names.ANSWER_ID] = heard.id
    # Where the answer bears the name that the client asked for, nobody knows who it was.
    if heard.model and not span.attempt.echo:
        told[names.ANSWERED_BY] = heard.model
    if reasons := heard.reasons:
        told[names.FINISH_REASONS] = reasons
    if usage := record.usage:
        told[names.USAGE_SOURCE] = usage.source
        for name, count in (
            (names.INPUT_TOKENS, usage.prompt),
            (names.OUTPUT_TOKENS, usage.completion),
            (names.CACHED_TOKENS, usage.cached),
            (names.CACHE_WRITTEN_TOKENS, usage.cache_written),
            (names.REASONING_TOKENS, usage.reasoning),
        ):
            if count is not None:
                told[name] = count
    return told


def _histogram(name: str, points: dict[Labels, Point], began: int, now: int) -> Histogram:
    made = [
        HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=began,
            time_unix_nano=now,
            count=sum(point.counts),
            sum=point.total,
            bucket_counts=point.counts,
            explicit_bounds=INSTRUMENTS[name].bounds,
            min=point.least,
            max=point.most,
        )
        for labels, point in points.items()
    ]
    return Histogram(made, AggregationTemporality.CUMULATIVE)
