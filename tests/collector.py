"""An OpenTelemetry collector on loopback that understands what it is sent: OTLP over HTTP, in protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Taken:
    """A span: ids in hexadecimal digits, times in nanoseconds; `resource` is what it says of its process."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    state: str
    began: int
    ended: int
    status: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """What came, in order; `points` are the last of each figure by its name. With `hold`, no request is answered."""

    url: str = ""
    hold: bool = False
    spans: list[Taken] = field(default_factory=list)
    points: dict[str, list[Any]] = field(default_factory=dict)
    schemas: set[str] = field(default_factory=set)
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()
        if self.hold:
            await self.over.wait()
        self.raw.append(body)
        if request.path == "/v1/traces":
            self._take_spans(ExportTraceServiceRequest.FromString(body))
        elif request.path == "/v1/metrics":
            self._take_points(ExportMetricsServiceRequest.FromString(body))
        else:
            return web.Response(status=404)
        return web.Response(content_type="application/x-protobuf")

    def _take_spans(self, told: Any) -> None:
        for each in told.resource_spans:
            resource = values(each.resource.attributes)
            for scope in each.scope_spans:
                self.schemas.add(scope.schema_url)
                for span in scope.spans:
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.trace_state)
                    times = (span.start_time_unix_nano, span.end_time_unix_nano)
                    attributes = values(span.attributes)
                    self.spans.append(Taken(span.name, span.kind, *ids, *times, span.status.code, attributes, resource))

    def _take_points(self, told: Any) -> None:
        for each in told.resource_metrics:
            for scope in each.scope_metrics:
                for metric in scope.metrics:
                    self.points[metric.name] = list(metric.histogram.data_points)

    def tree(self, **wanted: Any) -> tuple[Taken, list[Taken]]:
        """The server span with these attributes (`_` for a dot), and its children by their begin."""
        sought = {name.replace("_", "."): value for name, value in wanted.items()}
        found = [span for span in self.spans if span.kind == SERVER and sought.items() <= dotted(span).items()]
        assert len(found) == 1, [span.attributes for span in self.spans if span.kind == SERVER]
        children = [span for span in self.spans if span.parent == found[0].id]
        return found[0], sorted(children, key=lambda span: span.began)

    def count(self, name: str, **wanted: Any) -> int:
        """How often a figure with these labels was measured, by the last that came of it."""
        sought = {label.replace("_", "."): value for label, value in wanted.items()}
        found = [(labels_of(point), point.count) for point in self.points.get(name, ())]
        return sum(count for labels, count in found if sought.items() <= labels.items())

    async def until(self, claim: Callable[[], bool]) -> None:
        """Wait until the claim holds of what came."""
        async with asyncio.timeout(15):
            while not claim():  # noqa: ASYNC110 - what comes sets no event
                await asyncio.sleep(0.02)


SERVER, CLIENT = 2, 3
UNSET, FAILED = 0, 2


def dotted(span: Taken) -> dict[str, Any]:
    """The attributes by names in which every mark between words is a dot."""
    return {name.replace("_", "."): value for name, value in span.attributes.items()}


def labels_of(point: Any) -> dict[str, Any]:
    """The labels of a point, by names of the same sort."""
    return {name.replace("_", "."): value for name, value in values(point.attributes).items()}


def values(attributes: Iterable[Any]) -> dict[str, Any]:
    """Attributes as plain values."""
    found: dict[str, Any] = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [inner.string_value for inner in value.values] if kind == "array_value" else value
    return found


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A collector that listens."""
    made = Collector()
    runner = web.ServerRunner(web.Server(made.handle, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        made.over.set()
        await runner.cleanup()
