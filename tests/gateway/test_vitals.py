"""A process's figures: summed, and shown to Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gateway.vitals import VITALS, page, total


def test_the_figures_of_workers_add_up() -> None:
    assert total(({"connections": 2}, {"connections": 3, "requests_active": 1})) == {
        "connections": 5,
        "requests_active": 1,
    }


def test_the_page_is_what_prometheus_reads() -> None:
    shown = page(dict.fromkeys(VITALS, 7.0)).decode()
    found = {family.name: family for family in text_string_to_metric_families(shown)}
    assert {sample.name for family in found.values() for sample in family.samples} == {
        f"sluiceway_{name}" for name in VITALS
    }
    assert all(sample.value == 7 for family in found.values() for sample in family.samples)
    assert found["sluiceway_worker_restarts"].type == "counter"
    assert found["sluiceway_connections"].type == "gauge"


def test_a_large_figure_keeps_its_digits() -> None:
    assert b"sluiceway_body_bytes_held 123456789\n" in page({"body_bytes_held": 123456789})
