"""What is kept, summed up, judged, printed and drawn."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import guard, plot, report, results
from benchmarks.contestants import CONTESTANTS, Seat
from benchmarks.results import Measured, Results
from benchmarks.scenarios import BY_NAME, SCENARIOS


def measured(**costs: list[float]) -> Measured:
    """CPU times by contestant, one for each round."""
    count = len(next(iter(costs.values())))
    return Measured([{name: {"cpu": costs[name][place]} for name in costs} for place in range(count)])


def test_a_ratio_is_that_of_the_medians() -> None:
    one = measured(nginx=[10, 20, 60], sluiceway=[30, 40, 400])
    assert one.median("sluiceway", "cpu") == 40
    assert one.ratio("sluiceway", "nginx", "cpu") == 2
    assert one.ratio("sluiceway", "haproxy", "cpu") is None


def test_the_best_ratio_is_that_of_one_round() -> None:
    assert measured(aiohttp=[100, 50, 80], sluiceway=[60, 40, 20]).best_ratio("sluiceway", "aiohttp", "cpu") == 0.25


def test_a_scenario_that_is_measured_again_replaces_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    results.write(path, Results({"json:16": measured(nginx=[10]), "big:4": measured(nginx=[90])}, {"cores": 2}))
    again = results.read(path)
    again.scenarios["json:16"] = measured(nginx=[11, 12])
    results.write(path, again)
    kept = results.read(path)
    assert kept.machine == {"cores": 2}
    assert kept.scenarios["big:4"].figures("nginx", "cpu") == [90]
    assert kept.scenarios["json:16"].figures("nginx", "cpu") == [11, 12]


def test_nothing_is_kept_where_nothing_was_measured(tmp_path: Path) -> None:
    assert results.read(tmp_path / "results.json") == Results()


@pytest.mark.parametrize(
    ("ours", "good"), [([39, 90, 90], True), ([41, 90, 90], False)], ids=["one round holds", "none holds"]
)
def test_the_guard_judges_the_best_round(ours: list[float], good: bool) -> None:
    one = measured(nginx=[10, 10, 10], aiohttp=[100, 100, 100], sluiceway=ours)
    easy = measured(nginx=[10], aiohttp=[100], sluiceway=[1])
    holds, shown = guard.verdict({"json:16": one, "paced:400": easy, "big:4": easy})
    assert holds is good
    assert ("FAILS" in shown) is not good


def test_the_guard_fails_when_the_gateway_did_not_run() -> None:
    alone = measured(aiohttp=[100])
    assert not guard.verdict(dict.fromkeys(guard.LIMITS, alone))[0]


def test_the_guard_does_without_nginx() -> None:
    both = measured(aiohttp=[100], sluiceway=[1])
    assert guard.verdict(dict.fromkeys(guard.LIMITS, both))[0]


def test_the_guard_limits_scenarios_that_exist() -> None:
    assert set(guard.LIMITS) <= set(BY_NAME)
    assert {BY_NAME[name].figure for name in guard.LIMITS} == {"cpu"}


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.0, "0"), (0.123, "0.12"), (45.67, "45.7"), (123.4, "123"), (12345.6, "12 346")]
)
def test_numbers_have_the_digits_that_count(value: float | None, shown: str) -> None:
    assert report.number(value) == shown


def test_long_times_are_in_milliseconds() -> None:
    assert (report.time(9999), report.time(12_000)) == ("9 999 µs", "12.0 ms")


def test_a_table_has_a_line_for_everyone_and_the_reason_of_those_who_are_absent() -> None:
    rounds = measured(sluiceway=[40], nginx=[16])
    shown = report.scenario(BY_NAME["json:16"], Measured(rounds.rounds, {"haproxy": "haproxy not installed"}))
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["nginx", "Sluiceway"]
    assert "2.50×" in lines[3]
    assert "HAProxy is left out: haproxy not installed" in shown
    assert len({len(line) for line in lines}) == 1


def test_the_overview_has_our_ratios() -> None:
    shown = report.overview(Results({"json:16": measured(nginx=[10], sluiceway=[25], aiohttp=[100])}))
    last = [cell.strip() for cell in shown.splitlines()[-1].split("|")[1:-1]]
    assert last == ["json:16", "µs/request", "10.0", "25.0", "100", "2.50×", "0.25×"]


def test_the_drawing_is_well_formed_and_names_everyone() -> None:
    one = measured(nginx=[15], sluiceway=[40], aiohttp=[200], fastapi=[2000])
    drawn = plot.draw(Results({"json:16": one, "big:4": one}, {"cpu": "A <fast> & good one"}))
    texts = ["".join(each.itertext()) for each in ElementTree.fromstring(drawn).iter() if each.tag.endswith("text")]
    assert texts.count("Sluiceway") == 2
    assert any("A <fast> & good one" in text for text in texts)
    assert "prefers-color-scheme: dark" in drawn


def test_a_bar_far_beyond_all_others_is_cut() -> None:
    assert plot.scale([10, 20, 30]) == 30
    assert plot.scale([10, 20, 2000]) == 25
    assert plot.scale([7]) == 7


def test_names_are_unique_and_known() -> None:
    assert len(BY_NAME) == len(SCENARIOS)
    known = {each.name for each in CONTESTANTS}
    assert all(set(row.names) <= known for row in SCENARIOS)
    assert {name for name, _ in plot.PANELS} <= set(BY_NAME)


@pytest.mark.parametrize("contestant", [each for each in CONTESTANTS if not each.home], ids=lambda each: each.name)
def test_a_configuration_has_no_empty_place(tmp_path: Path, contestant: object) -> None:
    before = set(tmp_path.iterdir())
    next(each for each in CONTESTANTS if each is contestant).line(Seat(1, 2, tmp_path, 3, tmp_path / "ca.pem"))
    for written in set(tmp_path.iterdir()) - before:
        assert "<" not in written.read_text(), written.name
