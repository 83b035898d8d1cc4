"""A process's figures: summed, and shown to Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gateway.exposition import pieces_of
from gateway.metrics import Figures
from gateway.vitals import VITALS, Vitals, total


def page(vitals: Vitals) -> str:
    """What Prometheus reads, without the families that are counted by label."""
    text = b"".join(pieces_of(Figures(), vitals)).decode()
    return text.partition("# HELP sluiceway_requests_total")[0]


def test_the_figures_of_workers_add_up() -> None:
    assert total(({"connections": 2}, {"connections": 3, "requests_active": 1})) == {
        "connections": 5,
        "requests_active": 1,
    }


def test_the_page_is_what_prometheus_reads() -> None:
    shown = page(dict.fromkeys(VITALS, 7.0))
    found = {family.name: family for family in text_string_to_metric_families(shown)}
    assert {sample.name for family in found.values() for sample in family.samples} == {
        vital.full or f"sluiceway_{name}" for name, vital in VITALS.items()
    }
    assert all(sample.value == 7 for family in found.values() for sample in family.samples)
    assert found["sluiceway_worker_restarts"].type == "counter"
    assert found["sluiceway_connections"].type == "gauge"


def test_a_large_figure_keeps_its_digits() -> None:
    lines = page({"body_bytes_held": 123456789}).splitlines()
    assert [float(line.split()[1]) for line in lines if line.startswith("sluiceway_")] == [123456789]
