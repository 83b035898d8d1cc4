"""gateway.status: true figures, escaped, under a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import orjson
import pytest
from msgspec import structs

from gateway.config.types import Adapter, Config, Deployment, Key, Limits, ProviderEntry, RouteTarget, Routing
from gateway.metrics import SECONDS, Failure, Figures
from gateway.purses import Budget
from gateway.status import Now, Status, p95

NASTY = "<script>alert('x')</script>&\"$name"
CONFIG = Config(
    providers={"up": ProviderEntry(type="openai")},
    deployments={"grok": Deployment(provider="up", model="grok-4"), NASTY: Deployment(provider="up", model=NASTY)},
    adapters={"strict": Adapter(deployment="grok")},
    routings={"fast": Routing(targets=(RouteTarget(use="grok"),), fallback=("strict",))},
)
VITALS = {
    "config_loaded_timestamp_seconds": 1_700_000_000.0,
    "config_reloads_total": 2,
    "config_reload_failed": 0,
    "requests_active": 7,
    "workers": 2,
}


def figures(requests: float = 10, tokens: float = 300) -> Figures:
    return Figures(
        counts={
            "requests_total": {
                ("grok", "2xx", "ok"): requests,
                ("grok", "5xx", "upstream_reset"): 2,
                ("grok", "2xx", "upstream_truncated"): 1,
                ("grok", "4xx", "invalid_request"): 4,
                ("", "4xx", "model_not_found"): 99,
            },
            "tokens_total": {("grok", "prompt"): tokens, ("grok", "completion"): 50, ("grok", "cached"): 25},
            "attempts_total": {("grok", "200"): 10, ("strict", "200"): 5, ("grok", "503"): 2},
        },
        gauges={
            "breaker_state": {("grok", "closed"): 1, ("grok", "open"): 1, (NASTY, "open"): 0},
            "upstream_active": {("grok",): 3},
            "upstream_waiting": {("grok",): 1},
            "upstream_held": {("grok",): 1},
            "upstream_connections": {("up", "busy"): 3, ("up", "idle"): 2},
        },
    )


def now(found: Figures, **values: Any) -> Now:
    given = {"config": CONFIG, "digest": "abc", "at": 1_700_000_090.0, "began": 1_700_000_000.0, "ready": True}
    return Now(**{**given, "vitals": VITALS, "figures": found, **values})


def view(found: Figures, **values: Any) -> Any:
    return orjson.loads(Status(lambda: found, 0.0).json(now(found, **values), 60.0))


def page(found: Figures, **values: Any) -> str:
    return Status(lambda: found, 0.0).html(now(found, **values), 60.0).decode()


def test_a_model_shows_what_it_had() -> None:
    models = {model["name"]: model for model in view(figures())["models"]}
    assert list(models) == ["fast", "strict", "grok", NASTY]
    grok = models["grok"]
    assert (grok["requests"], grok["failed"], grok["tokens"]) == (17, 3, 350)
    assert (models["fast"]["kind"], models["fast"]["targets"]) == ("routing", ["grok", "strict"])
    assert models["fast"]["requests"] == 0


def test_money_is_shown_by_model_and_by_budget() -> None:
    found = figures()
    found.counts["cost_total"] = {("grok", "USD"): 1234.5, ("grok", "EUR"): 0.00123456, ("", "USD"): 0.5}
    found.gauges["budget_spent"] = {("key", NASTY, "USD"): 21.0}
    limits = Limits(budget=Budget(20, "USD", "day"))
    keys = {NASTY: Key(hash="sha256:" + "0" * 64, limits=limits), "idle": Key(hash="sha256:" + "1" * 64, limits=limits)}
    config = structs.replace(CONFIG, keys=keys)
    shown = view(found, config=config)
    assert shown["cost"] == {"USD": 1235.0, "EUR": 0.001235}
    assert {each["name"]: each["cost"] for each in shown["models"]}["grok"] == {"USD": 1234.5, "EUR": 0.001235}
    assert shown["budgets"] == [
        {"kind": "key", "name": name, "spent": spent, "budget": 20, "currency": "USD", "per": "day"}
        | {"begins_anew_in_seconds": 86_400 - (1_700_000_090 % 86_400)}
        for name, spent in ((NASTY, 21.0), ("idle", 0.0))
    ]
    text = page(found, config=config)
    assert "<h2>Budgets</h2>" in text
    assert '<td class="n bad">21.00</td><td class="n">20 USD per day</td>' in text
    assert "1,234.50 USD, 0.001235 EUR" in text
    assert "<script" not in text


def test_without_budgets_there_is_no_table_of_them() -> None:
    assert view(figures())["budgets"] == []
    assert "Budgets" not in page(figures())


def test_rates_are_those_of_the_last_minute() -> None:
    have = [figures()]
    status = Status(lambda: have[0], 0.0)
    for second in range(200):
        have[0] = figures(requests=10 + 2 * second, tokens=300 + 30 * second)
        status.sweep(float(second))
    found = orjson.loads(status.json(now(have[0]), 199.0))
    grok = next(model for model in found["models"] if model["name"] == "grok")
    assert grok["requests_per_minute"] == pytest.approx(120, rel=0.02)
    assert grok["tokens_per_minute"] == pytest.approx(1800, rel=0.02)
    assert found["requests_per_minute"] == grok["requests_per_minute"]


def test_an_upstream_shows_the_worst_breaker_of_all_workers_and_its_adapters_attempts() -> None:
    grok = next(each for each in view(figures())["upstreams"] if each["name"] == "grok")
    assert [each["breaker"] for each in view(figures())["upstreams"]] == ["open", "closed"]
    assert grok["held"] is True
    assert (grok["active"], grok["waiting"], grok["connections"]) == (3, 1, 5)
    assert grok["attempts"] == {"200": 15, "503": 2}


def test_errors_come_newest_first() -> None:
    found = figures()
    found.errors.extend((Failure(1_700_000_001.0, "grok", "grok", 502, "a"), Failure(1_700_000_002.0, "", "", 0, "b")))
    assert [each["code"] for each in view(found)["errors"]] == ["b", "a"]
    assert view(found)["errors"][1]["at"] == "2023-11-14 22:13:21Z"
    assert page(found).index(">b<") < page(found).index(">a<")


def test_nothing_that_a_name_holds_becomes_markup() -> None:
    found = figures()
    found.errors.append(Failure(0.0, NASTY, NASTY, 500, "internal_error"))
    text = page(found)
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;&quot;$name" in text


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    status = Status(figures, 0.0)
    text = status.html(now(figures()), 60.0).decode()
    policy = status.headers["content-security-policy"]
    styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert len(styles) == 1
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy
    assert not re.search(r"<script|\sstyle=|\son\w+=|https?://|url\(", text)


def test_a_wrong_file_is_told_on_top() -> None:
    assert "the one before serves on" not in page(figures())
    broken = {"vitals": {**VITALS, "config_reload_failed": 1}, "failed_at": 1_700_000_060.0}
    assert "is wrong since 2023-11-14 22:14:20Z; the one before serves on" in page(figures(), **broken)
    found = view(figures(), **broken)["configuration"]
    assert (found["reload_failed"], found["failed"]) == (True, "2023-11-14 22:14:20Z")
    assert (found["digest"], found["reloads"], found["loaded"]) == ("abc", 2, "2023-11-14 22:13:20Z")


@pytest.mark.parametrize(
    ("seconds", "words"), [(9, "9 s"), (90, "1 min 30 s"), (7_260, "2 h 1 min"), (200_000, "2 d 7 h")]
)
def test_the_time_since_the_start_is_told_in_two_units(seconds: int, words: str) -> None:
    assert f">{words}<" in page(figures(), at=1_700_000_000.0 + seconds)


def test_a_gateway_that_is_not_ready_says_so() -> None:
    assert ">not ready<" in page(figures(), ready=False)
    assert view(figures(), ready=False)["ready"] is False


def test_the_95th_of_a_hundred_is_found_in_the_buckets() -> None:
    empty = [0.0] * (len(SECONDS) + 2)
    assert p95(None) is None
    assert p95(empty) is None
    assert p95([90.0, 5.0, 5.0, *empty[3:]]) == SECONDS[1]
    assert p95([90.0, 4.0, 6.0, *empty[3:]]) == SECONDS[2]
    assert p95([*empty[:-2], 5.0, 0.0]) is None


def test_an_empty_gateway_has_a_page() -> None:
    text = page(Figures(), config=Config())
    assert ">none<" in text
    assert "$" not in text
