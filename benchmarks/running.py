"""A scenario's rounds: every contestant in turn, there and back again: a slow minute hits them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.contestants import Contestant
from benchmarks.lineup import CannotStart, Lineup
from benchmarks.measures import Asked, Figures, Wrong
from benchmarks.results import Measured
from benchmarks.scenarios import Scenario

# Connections, lazy imports and caches come to be in a first turn that does not count.
FIRST_TOUCH = 0.3


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds, and seconds of each turn (None: the scenario's own)."""

    rounds: int = 3
    seconds: float | None = None


def measure(
    lineup: Lineup, row: Scenario, contestants: Sequence[Contestant], effort: Effort, say: Callable[[str], None]
) -> Measured:
    """All rounds of a scenario. Who cannot take part, or answers wrongly, is left out, with the reason."""
    asked = row.asked if effort.seconds is None else _for(row.asked, effort.seconds)
    absent: dict[str, str] = {}
    rounds: list[dict[str, Figures]] = [{} for _ in range(min(effort.rounds, row.rounds))]
    for turn, results in enumerate(({}, *rounds) if row.warms_up else rounds):
        taking = [each for each in contestants if each.name not in absent]
        for contestant in taking if turn % 2 else taking[::-1]:
            try:
                given = _for(asked, FIRST_TOUCH) if row.warms_up and not turn else asked
                results[contestant.name] = _turn(lineup, row, contestant, given)
            except (CannotStart, Wrong) as error:
                absent[contestant.name] = str(error)
                say(f"{row.name}: {contestant.title} is left out: {error}")
    return Measured([{name: each for name, each in one.items() if name not in absent} for one in rounds], absent)


def _turn(lineup: Lineup, row: Scenario, contestant: Contestant, asked: Asked) -> Figures:
    if not contestant.path(asked.wire):
        raise CannotStart(f"it has no way to {asked.wire}")
    running = lineup.get(contestant, tls=row.tls, fresh=row.fresh, spread=row.spread)
    figures = row.measure(lineup, running, asked)
    if left := lineup.upstream.streams_left():
        # Its successor must not share the upstream with what it has left behind.
        lineup.drop(running)
        return {**figures, "left": float(left)}
    return figures


def _for(asked: Asked, seconds: float) -> Asked:
    return replace(asked, clients=replace(asked.clients, seconds=seconds))
