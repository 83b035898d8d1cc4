"""`python -m benchmarks`: measure, print tables, keep the figures, draw them.

    python -m benchmarks                                        everything, in about twenty minutes
    python -m benchmarks -s json:16 paced:400 -c nginx sluiceway -r 5
    python -m benchmarks guard                                  is it still fast? 1 when it is not
    python -m benchmarks report                                 the tables and the drawing of what was measured
    python -m benchmarks publish                                the same, into docs/performance.*

Several runs fill one results.json: a scenario that is measured again replaces itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import contestants, plot, report, results, scenarios
from benchmarks.contestants import ROOT, Contestant
from benchmarks.guard import guard
from benchmarks.lineup import Lineup
from benchmarks.native import CannotBuild
from benchmarks.running import Effort, measure
from benchmarks.scenarios import Scenario

MEASURED = "## As measured\n"
OUT = ROOT / ".bench"


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; 1 when the guard fails, 2 when nothing can be measured."""
    options = _options(arguments)
    out = options.out.resolve()
    try:
        if options.verb in {"report", "publish"}:
            _report(out)
            if options.verb == "publish":
                _publish(out)
            return 0
        with Lineup(out, homes=dict(options.homes)) as lineup:
            if options.verb == "guard":
                return 0 if guard(lineup, _say) else 1
            _measure(lineup, options)
        _report(out)
    except CannotBuild as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _measure(lineup: Lineup, options: argparse.Namespace) -> None:
    path = lineup.folder / "results.json"
    for row in _rows(options.scenarios):
        kept = results.read(path)
        kept.scenarios[row.name] = measure(lineup, row, _contestants(row, options), options.effort, _say)
        kept.machine = results.this_machine()
        results.write(path, kept)
        _say(report.scenario(row, kept.scenarios[row.name]) + "\n")


def _report(folder: Path) -> None:
    kept = results.read(folder / "results.json")
    (folder / "results.md").write_text(report.measured_on(kept))
    (folder / "results.svg").write_text(plot.draw(kept))
    _say(f"{report.overview(kept)}\n\nresults.json, results.md and results.svg are in {folder}")


def _publish(folder: Path) -> None:
    """Put the drawing and the figures beside the page, and the tables at its end."""
    page = ROOT / "docs" / "performance.md"
    kept, mark, _ = page.read_text().partition(MEASURED)
    page.write_text(f"{kept}{mark}\n{(folder / 'results.md').read_text()}")
    for kind in ("svg", "json"):
        page.with_suffix(f".{kind}").write_text((folder / f"results.{kind}").read_text())


def _rows(names: Sequence[str]) -> list[Scenario]:
    return [scenarios.BY_NAME[name] for name in names] if names else list(scenarios.SCENARIOS)


def _contestants(row: Scenario, options: argparse.Namespace) -> list[Contestant]:
    names = options.contestants or (*row.names, *dict(options.homes))
    return [contestants.BY_NAME[name] for name in names]


def _say(text: str) -> None:
    print(text, flush=True)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    made = argparse.ArgumentParser(
        "benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("verb", nargs="?", choices=("run", "guard", "report", "publish"), default="run")
    made.add_argument("-s", "--scenarios", nargs="+", metavar="NAME", choices=scenarios.BY_NAME, default=[])
    made.add_argument("-c", "--contestants", nargs="+", metavar="NAME", choices=contestants.BY_NAME, default=[])
    made.add_argument("-r", "--rounds", type=int, default=3)
    made.add_argument("-t", "--seconds", type=float, default=None, help="of each turn")
    made.add_argument("-o", "--out", type=Path, default=OUT, help="folder of results.json")
    made.add_argument("--with", dest="homes", type=_home, action="append", default=[], metavar="NAME=FOLDER")
    options = made.parse_args(arguments)
    options.effort = Effort(options.rounds, options.seconds)
    return options


def _home(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    return name, Path(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
