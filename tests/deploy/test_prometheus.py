"""Alerts and dashboard speak of metrics and labels that a gateway really has, in a language that Prometheus reads."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from livegateway import free_port, hashed, process, shipped

from gateway.metrics import CODES

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus-rules.yml"
DASHBOARD = DEPLOY / "grafana-dashboard.json"
CASES = Path(__file__).with_name("alert_cases.yml")
# What Prometheus itself adds to each sample.
TARGET = {"job", "instance", "le"}
KEY = "sk-gw-watched"
# What is there once something of the sort has happened.
LATE = {"sluiceway_limited_total", "sluiceway_cost_total"}
SELECTOR = re.compile(r"\b((?:sluiceway|gateway)_\w+)\s*(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")

Labels = dict[str, set[str]]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Every expression of the alerts and of the dashboard, with the name of what it stands in."""
    yield from ((rule["alert"], rule["expr"]) for rule in rules())
    for panel in dashboard()["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))
    for variable in dashboard()["templating"]["list"]:
        if read := re.fullmatch(r"label_values\((.*), \w+\)", variable.get("definition", "")):
            yield variable["name"], read[1]
    for note in dashboard()["annotations"]["list"]:
        yield note["name"], note["expr"]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    """The metrics of a gateway with workers that has had traffic of all sorts, each with its labels."""
    pytest.importorskip("redis", reason="the extra redis is not installed")
    folder = tmp_path_factory.mktemp("scraped")
    content = shipped()
    content["server"]["workers"] = 2
    # Nobody is there, so limits are counted without Redis, which has figures of its own.
    content["state"] = {"store": "redis", "url": f"redis://127.0.0.1:{free_port()}"}
    limits = {"rpm": 8, "budget": "20 USD/day"}
    content["keys"] = {"watched": {"hash": hashed(KEY), "models": ["gpt", "claude"], "limits": limits}}
    with process(folder, content) as gateway:
        gateway.headers["Authorization"] = f"Bearer {KEY}"

        async def main() -> Labels:
            async with asyncio.timeout(30):
                # On so many connections that both workers have some, and more than both together let in.
                while not (found := await samples()).keys() >= LATE:
                    await asyncio.gather(*(gateway.chat(model) for model in ("gpt", "gpt", "claude", "nobody")))
            return found

        async def samples() -> Labels:
            return labels((await gateway.get("/metrics", port=gateway.admin_port)).body.decode())

        return asyncio.run(main())


def labels(text: str) -> Labels:
    """The names of the samples, each with the labels that it has."""
    found: Labels = {}
    for line in text.splitlines():
        if read := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found.setdefault(read[1], set()).update(re.findall(r'(\w+)="', read[2] or ""))
    return found


@pytest.mark.parametrize(("where", "query"), list(queries()))
def test_every_metric_that_is_asked_for_exists_with_its_labels(scraped: Labels, where: str, query: str) -> None:
    asked = SELECTOR.findall(query)
    assert asked or "up{" in query, where
    for name, matchers in asked:
        assert name in scraped, f"{where}: no gateway has {name}"
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            assert label in scraped[name] | TARGET, f"{where}: {name} has no label {label}"
    known = set().union(TARGET, *(scraped[name] for name, _ in asked))
    for group in GROUPING.findall(query):
        assert {label.strip() for label in group.split(",")} <= known, where


def test_every_code_that_is_asked_for_can_occur() -> None:
    for where, query in queries():
        for pattern in re.findall(r'code=~?"([^"]+)"', query):
            for part in pattern.split("|"):
                assert any(re.fullmatch(part, code) for code in CODES), f"{where}: {part}"


def promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    told = subprocess.run(["promtool", *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout + told.stderr


def test_prometheus_reads_the_alerts() -> None:
    promtool("check", "rules", str(RULES))


def test_prometheus_reads_the_dashboard_s_queries(tmp_path: Path) -> None:
    filled = (query.replace("$__rate_interval", "5m") for _, query in queries())
    records = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(filled)]
    assert len(records) > 30
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    text = CASES.read_text().replace("RULES", str(RULES))
    (tmp_path / "cases.yml").write_text(text)
    promtool("test", "rules", str(tmp_path / "cases.yml"))


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [case for each in yaml.safe_load(CASES.read_text())["tests"] for case in each["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_each_alert_says_how_urgent_it_is_and_what_has_happened() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        own = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        grouped = {label.strip() for group in GROUPING.findall(rule["expr"]) for label in group.split(",")}
        assert not grouped or own <= grouped, f"{rule['alert']}: its text names a label that the query drops"


def test_the_operations_guide_says_where_to_look_first_at_each_alert() -> None:
    guide = (DEPLOY.parent / "docs" / "operations.md").read_text()
    assert set(re.findall(r"^\| `(Sluiceway\w+)` \|", guide, re.M)) == {rule["alert"] for rule in rules()}


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    return across and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]


def test_the_dashboard_s_panels_lie_side_by_side_with_numbers_of_their_own() -> None:
    panels = dashboard()["panels"]
    places = [panel["gridPos"] for panel in panels]
    assert not [pair for pair in itertools.combinations(places, 2) if overlap(*pair)]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert distinct(panel["id"] for panel in panels)


def distinct(values: Iterable[int]) -> bool:
    every = list(values)
    return len(every) == len(set(every))


def test_the_dashboard_asks_whatever_source_it_is_given() -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    shown = dashboard()
    variables = {variable["name"] for variable in shown["templating"]["list"]}
    assert {"datasource", "job", "instance", "model"} == variables
    for panel in shown["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == source
            assert all(target["datasource"] == source for target in panel["targets"])
            letters = [target["refId"] for target in panel["targets"]]
            assert len(letters) == len(set(letters))
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps([shown["panels"], shown["annotations"]])))
    assert used <= variables


def test_every_metric_that_is_asked_for_is_described() -> None:
    described = "".join((DEPLOY.parent / "docs" / name).read_text() for name in ("metrics.md", "state.md"))
    for where, query in queries():
        for name, _ in SELECTOR.findall(query):
            assert f"`{re.sub('_(bucket|sum|count)$', '', name)}`" in described, f"{where}: {name}"
