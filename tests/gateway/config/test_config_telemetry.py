"""Traces need an address and packages; the check says what is missing of them."""

from __future__ import annotations

import sys

import pytest
from config_samples import BASE, loaded, messages

SIMPLE = "telemetry: {otlp: {endpoint: '%s'}}\n"


def test_a_collector_with_its_defaults_is_right() -> None:
    result = loaded(BASE + SIMPLE % "http://collector.observability:4318/some/path")
    assert result.config is not None
    otlp = result.config.telemetry.otlp
    assert otlp is not None
    assert (otlp.sample, otlp.content) == (1.0, False)


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("collector:4318", "must begin with https:// or http://"),
        ("http://user:secret@collector", "must not hold credentials: put headers into OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://collector?key=secret", "must not have a query or a fragment"),
        ("http://", "has no valid host"),
    ],
)
def test_an_endpoint_that_is_none_is_told_without_its_text(endpoint: str, problem: str) -> None:
    (finding,) = messages(BASE + SIMPLE % endpoint)
    assert finding.endswith(f"error: telemetry.otlp.endpoint: {problem}")
    assert "secret" not in finding


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in (missing, *(each for each in sys.modules if each.startswith(f"{missing}."))):
        monkeypatch.setitem(sys.modules, name, None)
    (finding,) = messages(BASE + SIMPLE % "http://collector:4318")
    assert finding.endswith("error: telemetry.otlp: a package is missing: pip install 'sluiceway[otel]'")
    assert messages(BASE) == []
