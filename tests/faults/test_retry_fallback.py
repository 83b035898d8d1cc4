"""Sequences of attempts: what is tried again, where, when, and what never is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faults.casefiles import Case, call, cases, parameters
from faults.harness import Results, drive_all
from faults.judging import CHECKS as COMMON
from faults.judging import GRACE, Check, Outcome, content_of, fact
from faults.scenario import Actor, always
from faults.serving import PROVIDER_KEY_B, Gateway, deployment, openai, profile, serving
from faults.sockets import filled_queue
from faults.wireclient import Seen, Step, Talk, ask
from upstreams import ScriptedUpstream

FILE = cases("retry_fallback")
OK = [{"t": "{{OK}}"}]
RETRIES = 2
MOST = 10  # what `retry.attempts` may say
# Figures of the cases that the test profile does not have.
RETRY: dict[str, dict[str, Any]] = {
    "RF-002": {"backoff": "6s"},  # time to begin to listen before the second attempt
    "RF-014": {"breaker": {"failures": 1000}},
    # Of up to a minute: the jitter may choose a wait that ends before the client leaves.
    "RF-020": {"backoff": "60s"},
    "RF-022": {"breaker": {"open": "2s"}},
}
SLOW = {"RF-014", "RF-018", "RF-022"}


@dataclass
class Stage:
    """A case's providers by their letters."""

    actors: dict[str, Actor] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)


def name_of(case: Case, side: str) -> str:
    """The deployment of one side of a scenario."""
    return case["id"] if len(case["plan"]) == 1 else f"{case['id']}-{side}"


@contextlib.asynccontextmanager
async def stage(case: Case) -> AsyncIterator[Stage]:
    """The providers of a scenario."""
    set_up = Stage()
    async with contextlib.AsyncExitStack() as stack:
        for side, plan in case["plan"].items():
            actor = Actor(_words(plan), case.get("per_attempt_delay", 0.0), per_call=case["id"] == "RF-018")
            set_up.actors[side] = await stack.enter_async_context(actor)
            set_up.urls[side] = actor.url
            if plan == ["blackhole"]:
                set_up.urls[side] = f"http://127.0.0.1:{stack.enter_context(filled_queue())}"
        yield set_up


def _words(plan: Any) -> Any:
    assert isinstance(plan, list) or plan == "503 then ok after 3 s" or always(plan), f"unknown plan {plan!r}"
    return ["503"] if isinstance(plan, str) and " then " in plan else plan


async def drive(wanted: list[str], folder: Path) -> Results:
    """Every case with providers and deployments of its own, all at once."""
    async with contextlib.AsyncExitStack() as stack:
        control = await stack.enter_async_context(ScriptedUpstream(OK))
        stages = {name: await stack.enter_async_context(stage(FILE[name])) for name in wanted}
        providers, deployments, routings = {"ok": openai(control.url)}, {"m-ok": deployment("ok", "m-ok")}, {}
        for name in wanted:
            case = FILE[name]
            retry = {"attempts": min(case.get("retries", RETRIES) + 1, MOST), **RETRY.get(name, {})}
            for side, url in stages[name].urls.items():
                entry = name_of(case, side)
                providers[entry] = openai(url, **({"api_key": PROVIDER_KEY_B} if side == "B" else {}))
                deployments[entry] = deployment(entry, f"model-{side}", retry=retry)
            if len(case["plan"]) > 1:
                targets = [name_of(case, side) for side in case["plan"]]
                routings[name] = {"targets": targets, "retry": retry}
        config = profile(providers, deployments, routings=routings)
        gateway = await stack.enter_async_context(serving(folder, config))
        await ask(gateway.port, call("m-ok"))

        async def one(case: Case) -> Outcome:
            return await DRIVERS.get(case["id"], _in_order)(gateway, case, stages[case["id"]])

        return await drive_all(gateway, [FILE[name] for name in wanted], one, width=40, checks=CHECKS)


def _request(case: Case, number: int = 0) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in case.get("headers", {}).items())
    user = "x" * (case.get("body_mib", 0) << 20) or str(number)
    return call(case["id"], stream=case.get("stream", False), extra=lines, user=user)


async def _in_order(gateway: Gateway, case: Case, here: Stage) -> Outcome:
    """The case's calls, one after the other."""
    calls = [await ask(gateway.port, _request(case, number)) for number in range(case.get("calls", 1))]
    return await _outcome(gateway, case, here, calls)


async def _outcome(gateway: Gateway, case: Case, here: Stage, calls: Sequence[Seen]) -> Outcome:
    """The last call, with what all of them did to the providers."""
    await gateway.logged()
    lines = [line for line in gateway.lines if line.get("model") == case["id"]]
    made: Counter[str] = Counter()
    for line in lines:
        made.update(attempt.partition("=")[0] for attempt in line["attempts"].split(",") if attempt)
    names = {side: name_of(case, side) for side in case["plan"]}
    attempts = {side: made[name] for side, name in names.items()}
    opened = [line["deployment"] for line in gateway.lines if line.get("message") == "breaker opened"]
    outcome = Outcome(case, calls[-1], model=case["id"])
    outcome.facts = {
        "attempts": attempts,
        "statuses": {response.status for seen in calls for response in seen.responses[:1]},
        "times": [(seen.ended - seen.sent) * 1000 for seen in calls],
        "actors": here.actors,
        "names": names,
        "ejected": bool(set(names.values()) & set(opened)),
        "arrived": {side: len(actor.arrivals) for side, actor in here.actors.items()},
    }
    return outcome


async def _refused(gateway: Gateway, case: Case, here: Stage) -> Outcome:
    """The provider begins to listen after the first attempt, and long before the second."""

    async def listen() -> None:
        await asyncio.sleep(0.05)
        await here.actors["A"].listen()

    listening = asyncio.create_task(listen())
    seen = await ask(gateway.port, _request(case))
    await listening
    return await _outcome(gateway, case, here, [seen])


async def _paced(gateway: Gateway, case: Case, here: Stage) -> Outcome:
    """200 requests in two seconds, from fifty clients."""
    assert case["load"] == "200 requests over 2 s at concurrency 50"

    async def client(number: int) -> list[Seen]:
        found = []
        await asyncio.sleep(number * 0.01)
        for _ in range(4):
            began = time.monotonic()
            found.append(await ask(gateway.port, _request(case)))
            await asyncio.sleep(max(0.0, 0.5 - (time.monotonic() - began)))
        return found

    calls = await asyncio.gather(*(client(number) for number in range(50)))
    return await _outcome(gateway, case, here, [seen for each in calls for seen in each])


async def _jitter(gateway: Gateway, case: Case, here: Stage) -> Outcome:
    """Two clients: more would spend the budget for retries, or open the breaker."""

    async def client(first: int) -> list[Seen]:
        return [await ask(gateway.port, _request(case, number)) for number in range(first, case["calls"], 2)]

    calls = await asyncio.gather(client(0), client(1))
    return await _outcome(gateway, case, here, [seen for each in calls for seen in each])


async def _leaves(gateway: Gateway, case: Case, here: Stage) -> Outcome:
    """Clients that go before there is an answer."""

    async def client(number: int) -> Seen:
        steps: list[Step] = [{"data": _request(case, number)}, {"sleep": case["client_leaves_after"]}, {"close": "fin"}]
        return await Talk(gateway.port, str.encode).run(steps, 1.0)

    calls = await asyncio.gather(*(client(number) for number in range(case.get("calls", 1))))
    await asyncio.sleep(case.get("base_backoff", 0))  # in which another attempt would be made
    return await _outcome(gateway, case, here, calls)


async def _half_open(gateway: Gateway, case: Case, here: Stage) -> Outcome:
    """A is down for three seconds; fifty calls meet the half-open breaker, which takes one of them as a probe."""
    assert case["load"] == "50 concurrent calls at t=2.1 s"
    actor, began = here.actors["A"], time.monotonic()
    actor.sound_after = began + 3
    for _ in range(5):
        await ask(gateway.port, _request(case))
    opened, before = actor.arrivals[4].at, len(actor.arrivals)
    # The opening is two seconds, a tenth more or less.
    await asyncio.sleep(opened + 2.25 - time.monotonic())
    calls = list(await asyncio.gather(*(ask(gateway.port, _request(case)) for _ in range(50))))
    probes = len(actor.arrivals) - before
    while actor.arrivals[-1].at < actor.sound_after and time.monotonic() < began + 10:
        calls.append(await ask(gateway.port, _request(case)))
        await asyncio.sleep(0.1)
    calls.append(await ask(gateway.port, _request(case)))
    outcome = await _outcome(gateway, case, here, calls)
    outcome.facts["probes_at_A"] = probes
    outcome.facts["recovered_s"] = actor.arrivals[-1].at - actor.sound_after
    return outcome


DRIVERS: dict[str, Callable[[Gateway, Case, Stage], Awaitable[Outcome]]] = {
    "RF-002": _refused,
    "RF-017": _paced,
    "RF-018": _jitter,
    "RF-020": _leaves,
    "RF-022": _half_open,
    "RF-025": _leaves,
}


def _attempts(outcome: Outcome, wanted: Any) -> str:
    got = outcome.facts["attempts"]
    bounds = wanted if isinstance(wanted, dict) else {"A": wanted}
    for side, count in bounds.items():
        low, high = count if isinstance(count, list) else (count, count)
        if not low <= got[side] <= high:
            return str(got)
    # What the log says of attempts is what the providers saw of them.
    silent = {"refused", "blackhole"}
    unseen = {side: sum(word in silent for word in plan) for side, plan in outcome.case["plan"].items()}
    seen = {side: got[side] - unseen[side] for side in got if not isinstance(outcome.case["plan"][side], str)}
    arrived = {side: outcome.facts["arrived"][side] for side in seen}
    return "" if seen == arrived else f"logged {seen}, arrived {arrived}"


def _status(outcome: Outcome, wanted: Any) -> str:
    several = outcome.facts["statuses"] - set(wanted if isinstance(wanted, list) else [wanted])
    return COMMON["status"](outcome, wanted) or (str(several) if several else "")


def _gap(outcome: Outcome, bounds: list[float]) -> str:
    (gap,) = outcome.facts["actors"]["A"].gaps()
    return "" if bounds[0] <= gap <= bounds[1] + 50 else f"{gap:.0f} ms"


def _total(outcome: Outcome, most: float) -> str:
    (took,) = outcome.facts["times"]
    return "" if took <= most + 100 else f"{took:.0f} ms"


def _first_gap(outcome: Outcome, wanted: dict[str, float]) -> str:
    gaps = outcome.facts["actors"]["A"].gaps()
    good = min(gaps) < wanted["min_below"] and max(gaps) > wanted["max_above"] and max(gaps) <= wanted["max"] + 50
    return "" if good and len(gaps) == outcome.case["calls"] else f"{len(gaps)}: {min(gaps):.0f}..{max(gaps):.0f} ms"


def _later(outcome: Outcome, most: float) -> str:
    """Once the breaker is open; one call may have met a busy machine."""
    late = sorted(outcome.facts["times"][8:])
    return "" if late[-2] <= most and outcome.facts["ejected"] else f"{late[-3:]}, ejected: {outcome.facts['ejected']}"


def _recovers(outcome: Outcome, most: float) -> str:
    after = outcome.facts["recovered_s"]
    return "" if 0 <= after <= most + GRACE else f"{after:.1f} s"


def _still_tries(outcome: Outcome, wanted: bool) -> str:
    """Every call was tried at some provider, the last ones with both breakers open."""
    tried = sum(outcome.facts["arrived"].values()) >= outcome.case["calls"] and outcome.facts["ejected"]
    return "" if tried == wanted else str(outcome.facts["arrived"])


def _label(outcome: Outcome, prose: str) -> str:
    assert prose == "x-gateway-upstream or similar names B"
    got = outcome.answer.header("x-gateway-deployment")
    return "" if got == outcome.facts["names"]["B"] else got


def _model_field(outcome: Outcome, prose: str) -> str:
    """Documented: what the provider said, unless the deployment says otherwise."""
    assert prose == "as asked by the client or documented"
    return "" if outcome.answer.json()["model"] == "m" else outcome.answer.json()["model"]


def _bodies_equal(outcome: Outcome, wanted: bool) -> str:
    first, second = (content_of(arrival.raw) for arrival in outcome.facts["actors"]["A"].arrivals)
    return "" if (first == second and len(first) > 8 << 20) == wanted else "the bodies differ"


def _header_all(outcome: Outcome, wanted: dict[str, str]) -> str:
    got = {name: set(outcome.facts["actors"]["A"].header(name)) for name in wanted}
    return "" if got == {name: {value} for name, value in wanted.items()} else str(got)


def _requests_total(outcome: Outcome, wanted: int) -> str:
    return "" if len(outcome.log) == wanted else f"{len(outcome.log)} lines"


def _attempts_total(outcome: Outcome, wanted: int) -> str:
    got = sum(outcome.facts["attempts"].values())
    return "" if got == wanted else str(got)


def _tokens(outcome: Outcome, prose: str) -> str:
    assert prose == "once"
    tokens = [(line["tokens"]["prompt"], line["tokens"]["completion"]) for line in outcome.log if line.get("tokens")]
    return "" if tokens == [(3, 2)] else str(tokens)


def _upstream_attempts(outcome: Outcome, most: int) -> str:
    arrived = sum(outcome.facts["arrived"].values())
    return "" if 200 <= arrived <= most else f"{arrived} attempts"


def _error_event(outcome: Outcome, wanted: bool) -> str:
    told = outcome.answer.streams and bool(outcome.answer.error) and not outcome.answer.complete
    return "" if told == wanted else f"{outcome.answer.body!r}"


def _done(outcome: Outcome, wanted: bool) -> str:
    done = outcome.answer.events[-1:] == ["[DONE]"] and outcome.answer.complete
    return "" if done == wanted else f"{outcome.answer.body!r}"


CHECKS: dict[str, Check] = {
    "attempts": _attempts,
    "status": _status,
    "gap_ms": _gap,
    "total_ms_max": _total,
    "first_gap_ms": _first_gap,
    "later_calls_ms_max": _later,
    "recovers_within_s": _recovers,
    "probes_at_A": lambda outcome, wanted: fact(outcome, "probes_at_A", wanted),
    "ejected": lambda outcome, wanted: fact(outcome, "ejected", wanted),
    "still_tries": _still_tries,
    "response_header": _label,
    "model_field": _model_field,
    "bodies_equal": _bodies_equal,
    "upstream_header_all": _header_all,
    "requests_total": _requests_total,
    "attempts_total": _attempts_total,
    "tokens_counted": _tokens,
    "upstream_attempts_max": _upstream_attempts,
    "error_event": _error_event,
    "done": _done,
}


@pytest.mark.parametrize("case", parameters(list(FILE), SLOW.__contains__))
def test_attempts_are_made_where_and_when_they_may(case: str, results: Results) -> None:
    results.verify(case)


def test_the_log_is_clean_after_all_of_them(results: Results) -> None:
    assert results.log == []
