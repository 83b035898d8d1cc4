"""What is measured: one row for each scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.clients import Clients
from benchmarks.measures import Asked, Measure, under_load
from benchmarks.upstream import Behaviour


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing to measure. `figure` is the one that counts, smaller is better; `unit` is what it is per.

    `fresh`: every turn on a process that has served nothing; `names`: who takes part when the command does not say.
    """

    name: str
    title: str
    asked: Asked
    measure: Measure = under_load
    figure: str = "cpu"
    unit: str = "µs/request"
    tls: bool = False
    fresh: bool = False
    names: Sequence[str] = ("nginx", "haproxy", "sluiceway", "aiohttp", "fastapi")

    @property
    def warms_up(self) -> bool:
        """Does a first turn not count?"""
        return not self.fresh


def _whole(name: str, title: str, connections: int, delay: float = 0.0) -> Scenario:
    asked = Asked(Clients(connections, 1.5, ramp=delay), upstream=Behaviour(delay=delay))
    return Scenario(name=name, title=title, asked=asked)


def _paced(name: str, title: str, connections: int, wire: str = "openai") -> Scenario:
    """Streams of a token every 20 ms that never end: nothing but the chunks costs."""
    asked = Asked(Clients(connections, 1.5, warm=0.7, ramp=0.02), wire, True, 0, Behaviour(10_000_000, 0.02), "chunks")
    return Scenario(name=name, title=title, asked=asked, unit="µs/chunk")


SCENARIOS: Sequence[Scenario] = (
    _whole("json:16", "whole answers, 16 connections", 16),
    _paced("paced:400", "400 streams, a chunk every 20 ms", 400),
    Scenario(name="big:4", title="prompts of 400 KB, 4 connections", asked=Asked(Clients(4, 1.5), padding=400_000)),
)
BY_NAME = {each.name: each for each in SCENARIOS}
