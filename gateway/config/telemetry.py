"""What traces need beyond the types of their options: an address, and the packages that send them."""

from __future__ import annotations

from importlib.util import find_spec

from gateway.config.document import Node
from gateway.config.findings import Findings
from gateway.config.types import Otlp
from gateway.config.urls import url_problem

EXTRA = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_otlp(settings: Otlp | None, tree: Node, found: Findings) -> None:
    """Add an error for an endpoint that is none, and for traces without the packages that send them."""
    node = tree.get("telemetry", "otlp")
    if settings is None or node is None:
        return
    if settings.endpoint and (problem := url_problem(settings.endpoint)):
        if "@" in settings.endpoint:
            problem = "must not hold credentials: put headers into OTEL_EXPORTER_OTLP_HEADERS"
        mark = (node.get("endpoint") or node).mark
        found.error(mark, "telemetry.otlp.endpoint", problem)
    if not all(_installed(name) for name in EXTRA):
        found.error(node.mark, "telemetry.otlp", "a package is missing: pip install 'sluiceway[otel]'")


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
