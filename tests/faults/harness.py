"""Drives the cases of one file: many at once, those that are measured alone, each judged in a test of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from faults.casefiles import Case
from faults.judging import MEASURED, Check, Outcome, clean_log, collect, judge
from faults.measuring import measured
from faults.serving import Gateway

# What is measured on a busy machine may be spoilt by a neighbour; a fault of ours shows every time.
TRIES = 3
LONGEST = 100.0

Drive = Callable[[Case], Awaitable[Outcome]]


@dataclass
class Results:
    """What became of the cases. `broken` are drivers that failed, `log` what is wrong with the log as a whole."""

    checks: Mapping[str, Check] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def verify(self, name: str) -> None:
        """Fail unless everything that the case expects was seen."""
        if name in self.broken:
            raise self.broken[name]
        outcome = self.outcomes[name]
        complaints = judge(outcome, self.checks)
        assert not complaints, f"{name} {outcome.case.get('title', '')}: {'; '.join(complaints)}"


async def drive_all(
    gateway: Gateway,
    driven: Sequence[Case],
    drive: Drive,
    *,
    width: int = 8,
    checks: Mapping[str, Check] | None = None,
) -> Results:
    """Drive every case once; the measured ones one after the other at the end."""
    results = Results(checks or {})
    room = asyncio.Semaphore(width)

    async def one(case: Case) -> None:
        async with room:
            await _guarded(case, results, lambda: drive(case))

    alone = [case for case in driven if is_measured(case)]
    await asyncio.gather(*(one(case) for case in driven if case not in alone))
    await gateway.logged()
    collect(gateway, results.outcomes.values())
    for case in alone:
        await _guarded(case, results, lambda case=case: _measure(gateway, case, drive, results))  # type: ignore[misc]
    results.log = clean_log(gateway)
    return results


def is_measured(case: Case) -> bool:
    """Does it set bounds to memory or time that only show when nothing else happens?"""
    expect = case.get("expect", {})
    return bool(MEASURED & expect.keys()) or "loop blocked" in expect.get("never", "")


async def _guarded(case: Case, results: Results, act: Callable[[], Awaitable[Outcome]]) -> None:
    try:
        async with asyncio.timeout(LONGEST):
            results.outcomes[case["id"]] = await act()
    except Exception as error:  # shown by the case's own test
        error.add_note(f"while driving {case['id']}")
        results.broken[case["id"]] = error


async def _measure(gateway: Gateway, case: Case, drive: Drive, results: Results) -> Outcome:
    for _ in range(TRIES):
        outcome, outcome_measured = await measured(gateway, lambda: drive(case))
        outcome.measured = outcome_measured
        await gateway.logged()
        collect(gateway, [outcome])
        if not judge(outcome, results.checks):
            break
    return outcome
