"""Raw bytes at the front door: framing, versions, limits, slow and vanishing clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults.casefiles import Case, call, cases, fill, parameters, words
from faults.harness import Results, drive_all
from faults.judging import Outcome
from faults.planned import Planned, when
from faults.serving import Gateway, deployment, openai, profile, serving
from faults.wireclient import Talk, ask
from upstreams import SSE_HEAD

FILE = cases("http1_requests")
OK = [{"t": "{{OK}}"}]
SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "stall": [{"stall": 60}],
    "slow_stream": [{"t": SSE_HEAD}] + [{"chunk": "{{D2}}"}, {"sleep": 0.1}] * 300,
}


def is_slow(name: str) -> bool:
    """Does the case wait for one of the long timers?"""
    return FILE[name]["class"] == "slow"


async def drive(wanted: list[str], folder: Path) -> Results:
    """Every case with a deployment of its own name, so that each upstream request tells whose it is."""
    provider = Planned(lambda arrival: SCRIPTS.get(FILE.get(arrival.model, {}).get("upstream_script", ""), OK))
    async with provider:
        config = profile({"a": openai(provider.url)}, {name: deployment("a", name) for name in ("m-ok", *FILE)})
        async with serving(folder, config) as gateway:

            async def one(case: Case) -> Outcome:
                return await request(gateway, provider, case)

            driven = [FILE[name] for name in wanted]
            return await drive_all(gateway, driven, one, width=16 if any(map(is_slow, wanted)) else 6, checks=CHECKS)


async def request(gateway: Gateway, provider: Planned, case: Case) -> Outcome:
    """Send the case's bytes, then a valid request on a connection of its own."""
    name, expect = case["id"], case["expect"]
    known = words(name)
    before = len(provider.asked(name))
    talk = Talk(gateway.port, lambda text: fill(text, known).encode("latin-1"))
    patience = max(3.0, expect.get("within", 0) + 1)
    seen = await talk.run(case["send"], patience, closes=bool(expect.get("closed")))
    outcome = Outcome(case, seen, model=name, known=known)
    if seen.left is not None:
        (arrival,) = provider.asked(name)
        outcome.facts["gone"] = await when(arrival.connection.closed, 1.0)
    outcome.requests = [arrival.raw for arrival in provider.asked(name)[before:]]
    outcome.after = (await ask(gateway.port, call("m-ok"))).last
    return outcome


def _never(outcome: Outcome, prose: str) -> str:
    assert prose == "connects to the host in the target"
    return "" if len(outcome.requests) == (outcome.answer.status == 200) else "answered without our provider"


CHECKS = {"never": _never}


@pytest.mark.parametrize("case", parameters(list(FILE), is_slow))
def test_a_request_on_the_wire_gets_what_it_deserves(case: str, results: Results) -> None:
    results.verify(case)


def test_the_log_is_clean_after_all_of_them(results: Results) -> None:
    assert results.log == []
