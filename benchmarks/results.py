"""Figures as they were measured, in one JSON file that several runs fill: a scenario measured again replaces itself."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# What each contestant's turn gave, by its name.
Round = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Measured:
    """A scenario's rounds, and why contestants are missing."""

    rounds: Sequence[Round]
    absent: Mapping[str, str] = field(default_factory=dict)
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def contestants(self) -> list[str]:
        """Who took part, in their order."""
        return list(dict.fromkeys(name for each in self.rounds for name in each))

    def figures(self, contestant: str, figure: str) -> list[float]:
        """One figure of a contestant, by round."""
        return [each[contestant][figure] for each in self.rounds if figure in each.get(contestant, ())]

    def median(self, contestant: str, figure: str) -> float | None:
        """The middle of it."""
        found = self.figures(contestant, figure)
        return statistics.median(found) if found else None

    def ratio(self, contestant: str, to: str, figure: str) -> float | None:
        """The medians' ratio; None when one of both did not take part."""
        mine, theirs = self.median(contestant, figure), self.median(to, figure)
        return mine / theirs if mine is not None and theirs else None

    def best_ratio(self, contestant: str, to: str, figure: str) -> float | None:
        """The smallest ratio of any round: what noise cannot make better than it is."""
        pairs = zip(self.figures(contestant, figure), self.figures(to, figure), strict=False)
        return min((mine / theirs for mine, theirs in pairs if theirs), default=None)


@dataclass(slots=True)
class Results:
    """All scenarios measured so far, and the machine of the last one."""

    scenarios: dict[str, Measured] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Results:
    """The results in a file; none when there is no file."""
    if not path.exists():
        return Results()
    content = json.loads(path.read_text())
    return Results({name: Measured(**each) for name, each in content["scenarios"].items()}, content["machine"])


def write(path: Path, results: Results) -> None:
    """Keep the results."""
    scenarios = {
        name: {"at": each.at, "absent": each.absent, "rounds": each.rounds} for name, each in results.scenarios.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": results.machine, "scenarios": scenarios}, indent=1) + "\n")


def this_machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    line = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
