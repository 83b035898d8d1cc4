"""The guard: is the gateway still so much cheaper than a plain aiohttp proxy, in the same run on the same machine?

The best of three rounds counts, so that noise cannot fail a good build. nginx's ratio is printed and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks import contestants, scenarios
from benchmarks.lineup import Lineup
from benchmarks.report import OURS, number, table, times
from benchmarks.results import Measured
from benchmarks.running import Effort, measure

# CPU time at most, as a share of plain aiohttp's.
LIMITS: Mapping[str, float] = {"json:16": 0.4, "paced:400": 0.75, "big:4": 0.4}
AGAINST, BESIDE = "aiohttp", "nginx"
EFFORT = Effort(rounds=3)


def verdict(measured: Mapping[str, Measured]) -> tuple[bool, str]:
    """Whether all limits hold, and a table that shows it."""
    lines, good = [["guard", "Sluiceway × plain aiohttp", "at most", "× nginx", ""]], True
    for name, limit in LIMITS.items():
        ratio, nginx = (measured[name].best_ratio(OURS, each, "cpu") for each in (AGAINST, BESIDE))
        holds = ratio is not None and ratio <= limit
        good = good and holds
        lines.append([name, times(ratio), number(limit), times(nginx), "holds" if holds else "FAILS"])
    return good, table(lines)


def guard(lineup: Lineup, say: Callable[[str], None]) -> bool:
    """Measure, print, judge."""
    taking = [contestants.BY_NAME[name] for name in (BESIDE, AGAINST, OURS)]
    measured = {name: measure(lineup, scenarios.BY_NAME[name], taking, EFFORT, say) for name in LIMITS}
    good, shown = verdict(measured)
    say(shown)
    return good
