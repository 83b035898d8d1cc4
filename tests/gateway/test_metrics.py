"""gateway.metrics and gateway.exposition: true counts under bounded names, cheap to take and cheap to show."""

from __future__ import annotations

import ast
import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.contract import Usage
from gateway.exchange import Upstreams
from gateway.exposition import LINES, exposition, pieces_of
from gateway.gauges import gauges
from gateway.log import Record
from gateway.metrics import CODES, ERRORS_KEPT, FAMILIES, SECONDS, Figures, Metrics
from gateway.prices import Tariff
from gateway.purses import Budget, Owner
from gateway.upstream import Sweep
from gateway.vitals import VITALS

ROOT = Path(__file__).resolve().parents[2]


def record(model: str = "grok", **values: Any) -> Record:
    return Record(10.0, **{"model": model, "deployment": model, "status": 200, "attempts": f"{model}=200", **values})


def counted(*records: Record, names: tuple[str, ...] = ("grok", "claude", "openai/*")) -> Figures:
    metrics = Metrics()
    metrics.adopt(names)
    for each in records:
        metrics.record(each, 10.5)
    metrics.fold()
    return metrics.figures


def text_of(figures: Figures, **vitals: float) -> str:
    return b"".join(pieces_of(figures, vitals)).decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shown(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def test_money_is_counted_by_model_and_by_key_where_it_is_known() -> None:
    dollars, euros = Tariff(1, 2, 1, 1), Tariff(1, 2, 1, 1, "EUR")
    spent = {"usage": Usage(10, 5), "tariff": dollars}
    figures = counted(
        record(key="app", cost=0.25, **spent),
        record(key="web", cost=0.5, **spent),
        record("strange", deployment="openai/*", cost=1.0, usage=Usage(1, 1), tariff=euros),
        record("claude", key="app", usage=Usage(1, 1)),
        record("claude", key="app", cost=0.0, **spent),
    )
    assert figures.counts["cost_total"] == {("grok", "USD"): 0.75, ("openai/*", "EUR"): 1.0}
    assert figures.counts["key_cost_total"] == {("app", "USD"): 0.25, ("web", "USD"): 0.5}
    text = text_of(figures)
    assert shown(text, "sluiceway_cost_total", model="grok", currency="USD") == 0.75
    assert shown(text, "sluiceway_key_cost_total", key="web", currency="USD") == 0.5


@pytest.mark.parametrize(("shared", "spent"), [(True, 8.0), (False, 16.0)])
def test_what_two_processes_spend_of_a_budget_adds_up_once(shared: bool, spent: float) -> None:
    """Together they have spent 8: each knows it from the file, or each has spent 8 that the other does not know."""
    figures = Figures()
    for _ in range(2):
        upstreams = Upstreams(Sweep(), lambda *_, **__: None)
        purses = upstreams.counts.purses
        purses.processes, purses.shared = 2, shared
        owner = Owner("key", "app", "USD")
        purses.adopt({owner: Budget(20, "USD", "day")})
        purses[owner].settle(purses.clock(), 0, 8)
        figures.add(Figures(gauges=gauges(upstreams, (), 0.0)))
    text = text_of(figures)
    labels = frozenset({"kind": "key", "name": "app", "currency": "USD"}.items())
    assert samples(text)["sluiceway_budget", labels] == 20
    assert samples(text)["sluiceway_budget_spent", labels] == spent


def test_a_request_is_counted_by_model_status_and_code() -> None:
    figures = counted(
        record(), record(), record(status=502, code="upstream_reset"), record(status=0, code="client_disconnect")
    )
    requests = figures.counts["requests_total"]
    assert requests["grok", "2xx", "ok"] == 2
    assert requests["grok", "5xx", "upstream_reset"] == 1
    assert requests["grok", "none", "client_disconnect"] == 1
    text = text_of(figures)
    assert shown(text, "sluiceway_terminations_total", code="ok") == 2
    assert shown(text, "sluiceway_requests_total", model="grok", status="5xx", code="upstream_reset") == 1


def test_every_attempt_is_counted_with_its_result() -> None:
    figures = counted(
        record(attempts="grok=503,grok=upstream_reset,claude=200"), record(attempts="grok=503,claude=200")
    )
    expected = {("grok", "503"): 2, ("grok", "upstream_reset"): 1, ("claude", "200"): 2}
    assert figures.counts["attempts_total"] == expected


def test_the_slower_of_two_attempts_at_once_is_counted_as_cancelled() -> None:
    figures = counted(record(attempts="claude=200,grok=cancelled"))
    assert figures.counts["attempts_total"] == {("claude", "200"): 1, ("grok", "cancelled"): 1}


def test_a_request_counts_under_the_names_of_its_time() -> None:
    metrics = Metrics()
    metrics.adopt(("grok",))
    metrics.record(record(), 11.0)
    metrics.adopt(("claude",))
    metrics.record(record(), 11.0)
    metrics.sweep(11.0)
    requests = metrics.figures.counts["requests_total"]
    assert requests["grok", "2xx", "ok"] == requests["", "2xx", "ok"] == 1
    assert metrics.figures.counts["attempts_total"] == {("grok", "200"): 1, ("", "200"): 1}


def test_tokens_are_counted_by_kind_and_unknown_ones_not_at_all() -> None:
    figures = counted(record(usage=Usage(10, 20, cached=5)), record(usage=Usage(1, 2, reasoning=1)), record())
    expected = {("grok", "prompt"): 11, ("grok", "completion"): 22, ("grok", "cached"): 5, ("grok", "reasoning"): 1}
    assert figures.counts["tokens_total"] == expected


def test_a_wildcards_models_are_counted_under_the_wildcard() -> None:
    figures = counted(record("openai/gpt-9", deployment="openai/*", attempts="openai/*=200"))
    assert figures.counts["requests_total"]["openai/*", "2xx", "ok"] == 1
    assert figures.counts["attempts_total"] == {("openai/*", "200"): 1}


def test_ten_thousand_unknown_models_add_no_series() -> None:
    def unknown(number: int) -> Record:
        return record(f"m{number}", deployment="", attempts="", status=404, code="model_not_found")

    before = samples(text_of(counted()))
    text = text_of(counted(*(unknown(number) for number in range(10_000))))
    assert samples(text).keys() == before.keys()
    assert shown(text, "sluiceway_requests_total", model="", status="4xx", code="model_not_found") == 10_000


def test_codes_results_and_names_that_nobody_configured_are_counted_as_one() -> None:
    strange = [
        record(code=f"made_up_{number}", attempts=f"grok={number}99,ghost{number}=x{number}", status=502)
        for number in range(10, 50)
    ]
    figures = counted(*strange)
    assert figures.counts["requests_total"]["grok", "5xx", "other"] == 40
    assert figures.counts["attempts_total"] == {("grok", "other"): 40, ("", "other"): 40}


def test_many_different_ways_of_attempts_are_counted_right_and_forgotten() -> None:
    metrics = Metrics()
    metrics.adopt(("grok",))
    for number in range(5_000):
        metrics.record(record(attempts=",".join(["grok=500"] * (number % 2_500))), 11.0)
    metrics.fold()
    assert metrics.figures.counts["attempts_total"] == {("grok", "500"): 2 * sum(range(2_500))}
    assert len(metrics._attempts) <= 1_024


@pytest.mark.parametrize(("seconds", "bucket"), [(0.0, 0), (0.05, 0), (0.051, 1), (600.0, 12), (601.0, 13)])
def test_a_time_falls_into_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    metrics = Metrics()
    metrics.adopt(("grok",))
    metrics.record(Record(0.0, model="grok", status=200), seconds)
    metrics.fold()
    buckets = metrics.figures.histograms["request_duration_seconds"]["grok",]
    assert [index for index, count in enumerate(buckets[:-1]) if count] == [bucket]
    assert buckets[-1] == seconds
    bound = "+Inf" if bucket == len(SECONDS) else str(SECONDS[bucket])
    text = text_of(metrics.figures)
    assert shown(text, "sluiceway_request_duration_seconds_bucket", model="grok", le=bound) == 1
    assert shown(text, "sluiceway_request_duration_seconds_bucket", model="grok", le="+Inf") == 1
    assert shown(text, "sluiceway_request_duration_seconds_sum", model="grok") == seconds


def test_times_to_answers_and_the_gateways_own_share_are_those_of_answered_requests() -> None:
    figures = counted(record(first_byte=10.3, overhead=0.0004), record(status=502, code="upstream_reset"))
    text = text_of(figures)
    assert shown(text, "sluiceway_time_to_first_event_seconds_count", model="grok") == 1
    assert shown(text, "sluiceway_time_to_first_event_seconds_sum", model="grok") == pytest.approx(0.3)
    assert shown(text, "sluiceway_overhead_seconds_bucket", le="0.0005") == 1
    assert shown(text, "sluiceway_overhead_seconds_bucket", le="0.00025") == 0
    assert shown(text, "sluiceway_overhead_seconds_count") == 1


def test_a_refusal_by_a_keys_limit_is_counted_by_key_and_limit() -> None:
    figures = counted(record(key="app", limited="tokens", status=429, code="rate_limit_exceeded"))
    assert figures.counts["limited_total"] == {("app", "tokens"): 1}


def test_the_last_errors_are_kept_without_anything_that_a_client_wrote() -> None:
    figures = counted(
        *(record("secret", deployment="", status=404, code="model_not_found") for _ in range(50)), record()
    )
    assert len(figures.errors) == ERRORS_KEPT
    assert all((each.model, each.status, each.code) == ("", 404, "model_not_found") for each in figures.errors)


def test_what_is_taken_from_workers_adds_up_to_what_one_process_would_count() -> None:
    records = [
        record(usage=Usage(3, 4), first_byte=10.2),
        record("claude", status=500, code="internal_error"),
        record(),
    ]
    workers = [Metrics(), Metrics()]
    whole = Figures()
    for number, each in enumerate(records * 5):
        worker = workers[number % 2]
        worker.adopt(("grok", "claude"))
        worker.record(each, 11.0)
        if not number % 4:
            whole.add(worker.take())
    for worker in workers:
        whole.add(worker.take())
    alone = Metrics()
    alone.adopt(("grok", "claude"))
    for each in records * 5:
        alone.record(each, 11.0)
    alone.fold()
    assert samples(text_of(whole)) == samples(text_of(alone.figures))
    assert len(whole.errors) == len(alone.figures.errors)


def test_retries_on_fresh_connections_are_counted_by_provider() -> None:
    metrics = Metrics()
    metrics.retried("openai", 2)
    metrics.retried("openai", 1)
    assert shown(text_of(metrics.figures), "sluiceway_upstream_stale_retries_total", provider="openai") == 3


def test_a_name_with_quotes_and_line_breaks_is_one_label() -> None:
    name = 'a"b\\c\nd'
    figures = counted(record(name, attempts=""), names=(name,))
    assert shown(text_of(figures), "sluiceway_requests_total", model=name, status="2xx", code="ok") == 1


def test_every_family_is_named_and_described_once_however_many_pieces_it_takes() -> None:
    text = text_of(many(), workers=2, config_reload_failures_total=1)
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert len(heads) == len(set(heads)) == 2 * len({line.split()[2] for line in heads})
    assert shown(text, "gateway_config_reload_failures_total") == 1
    assert shown(text, "sluiceway_workers") == 2
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {f"sluiceway_{name.removesuffix('_total')}" for name in FAMILIES if name in many().counts} <= families


def test_every_metric_is_documented_as_it_is() -> None:
    rows = (ROOT / "docs" / "metrics.md").read_text("utf-8").splitlines()
    for name, family in FAMILIES.items():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        assert f"| `sluiceway_{name}` | {family.kind} | {labels} | {family.about} |" in rows
    for name, vital in VITALS.items():
        assert f"| `{vital.full or f'sluiceway_{name}'}` | {vital.kind} |  | {vital.about} |" in rows


def many(models: int = 100) -> Figures:
    """More than 4,000 series, as a hundred deployments make them in a while."""
    names = tuple(f"deployment-{number}" for number in range(models))
    usage = Usage(10, 10, 1, None, 1)
    figures = counted(
        *(record(name, first_byte=10.2, usage=usage, attempts=f"{name}=200,{name}=503") for name in names), names=names
    )
    figures.gauges["breaker_state"] = {(name, "closed"): 1 for name in names}
    figures.gauges["upstream_active"] = {(name,): 3 for name in names}
    return figures


def test_a_scrape_of_four_thousand_series_holds_the_loop_up_for_less_than_five_milliseconds(
    run: Callable[..., Any],
) -> None:
    figures = many()

    async def longest() -> tuple[float, bytes]:
        scrape = asyncio.create_task(exposition(figures, {}))
        worst = 0.0
        while not scrape.done():
            began = time.thread_time()
            await asyncio.sleep(0)
            worst = max(worst, time.thread_time() - began)
        return worst, scrape.result()

    # The best of some tries, in time of this thread: other processes of the machine do not count.
    tries = [run(longest()) for _ in range(5)]
    assert len(samples(tries[0][1].decode())) >= 4_000
    assert min(worst for worst, _ in tries) < 0.005


def test_no_piece_of_the_text_is_long() -> None:
    longest = max(piece.count(b"\n") for piece in pieces_of(many(), {}))
    assert LINES <= longest <= LINES + 2


def codes_in_the_source() -> Iterator[str]:
    """Every text that stands for a code of ours."""
    for folder in ("gateway", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            if "demo" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                    yield node.value.value
                if isinstance(node, ast.ClassDef):
                    for each in node.body:
                        target = each.targets[0] if isinstance(each, ast.Assign) else getattr(each, "target", None)
                        value = getattr(each, "value", None)
                        if getattr(target, "id", "") == "code" and isinstance(value, ast.Constant):
                            yield value.value


def test_every_code_of_the_gateway_has_a_name_of_its_own() -> None:
    found = {code for code in codes_in_the_source() if isinstance(code, str)}
    assert len(found) > 20
    assert found <= CODES


def test_counting_a_request_costs_less_than_four_microseconds_on_its_path() -> None:
    metrics = Metrics()
    metrics.adopt(("grok",))
    each = record(usage=Usage(1, 2), first_byte=10.2, overhead=0.0003)
    best = min(_seconds(lambda: metrics.record(each, 11.0), metrics.fold) for _ in range(7))
    # 1.6 µs on Python 3.11, 3.1 on 3.12 and 3.13.
    assert best < 4e-6


def _seconds(action: Callable[[], None], afterwards: Callable[[], None], count: int = 2_000) -> float:
    began = time.thread_time()
    for _ in range(count):
        action()
    spent = (time.thread_time() - began) / count
    afterwards()
    return spent
