"""Bodies that are no JSON, no request, or an attack; and bodies that must arrive as they were sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from faults.casefiles import Case, call, cases, fill, head, parameters, words
from faults.harness import Results, drive_all
from faults.judging import Check, Outcome, content_of
from faults.planned import Planned
from faults.serving import Gateway, deployment, openai, profile, serving
from faults.wireclient import ask

FILE = cases("json_bodies")
MEMBERS = '"model":"m-r0","messages":[{"role":"user","content":"hi"}]'
OK = [{"t": "{{OK}}"}]
SERVED = 200


async def drive(wanted: list[str], folder: Path) -> Results:
    """Cases one after the other, all for one model."""
    provider = Planned(lambda _: OK)
    async with provider:
        names = ("m-r0", "m-forbidden")
        config = profile({"a": openai(provider.url)}, {name: deployment("a", name) for name in names}, ["m-forbidden"])
        async with serving(folder, config) as gateway:
            for _ in range(100):
                await ask(gateway.port, call("m-r0"))

            async def one(case: Case) -> Outcome:
                return await send(gateway, provider, case)

            return await drive_all(gateway, [FILE[name] for name in wanted], one, width=1, checks=CHECKS)


async def send(gateway: Gateway, provider: Planned, case: Case) -> Outcome:
    """Send the case's body in a valid request."""
    if "log_lines_added_max" in case["expect"]:
        await gateway.logged()
    begun, series, lines = len(provider.arrivals), await gateway.series(), gateway.text.count("\n")
    content = content_for(case)
    request = f"{head()}Content-Length: {len(content)}\r\n\r\n".encode() + content
    seen = await ask(gateway.port, request)
    outcome = Outcome(case, seen, known=words("m-r0"))
    outcome.requests = [arrival.raw for arrival in provider.arrivals[begun:]]
    outcome.after = (await ask(gateway.port, call("m-r0"))).last
    outcome.facts = {"sent": content, "series": await gateway.series() - series}
    if "log_lines_added_max" in case["expect"]:
        await gateway.logged()
        outcome.facts["lines"] = gateway.text.count("\n") - lines - 1  # one is the valid request's
    return outcome


def content_for(case: Case) -> bytes:
    """The bytes of the case's body."""
    known = {"m": MEMBERS}
    if "x" in case:
        return bytes.fromhex(case["x"])
    if "b" in case:
        return fill(case["b"], known).encode()
    ((kind, what),) = case["gen"].items()
    middle: Callable[[], str] = {
        "nest": lambda: what["open"] * what["depth"] + what.get("inner", "") + what["close"] * what["depth"],
        "rep": lambda: what["text"] * what["n"],
        "keys": lambda: ",".join([f'"k{number}":0' for number in range(what["n"])]),
    }[kind]
    return (fill(what["prefix"], known) + middle() + fill(what["suffix"], known)).encode()


def _forwarded(outcome: Outcome) -> bytes:
    (request,) = outcome.requests
    return content_of(request)


def _byte_exact(outcome: Outcome, wanted: bool) -> str:
    if outcome.answer.status != SERVED:
        return ""
    return "" if (_forwarded(outcome) == outcome.facts["sent"]) == wanted else f"{_forwarded(outcome)[:200]!r}"


def _upstream_json(outcome: Outcome, wanted: dict[str, Any]) -> str:
    got = {name: orjson.loads(_forwarded(outcome))[name] for name in wanted}
    return "" if got == wanted else str(got)


def _upstream_text(outcome: Outcome, wanted: str) -> str:
    got = orjson.loads(_forwarded(outcome))["messages"][0]["content"]
    return "" if got == wanted else repr(got)


def _consistent(outcome: Outcome, prose: str) -> str:
    """Refused, or forwarded with both values as they came: then it is the provider that takes one of them."""
    whole = outcome.answer.status != SERVED or _forwarded(outcome) == outcome.facts["sent"]
    return "" if whole else f"{_forwarded(outcome)!r}"


def _absent_long(outcome: Outcome, length: int) -> str:
    return "" if b"a" * length not in outcome.seen.raw else "the name is echoed"


def _series(outcome: Outcome, most: int) -> str:
    return "" if outcome.facts["series"] <= most else f"{outcome.facts['series']} series were added"


def _lines(outcome: Outcome, most: int) -> str:
    return "" if outcome.facts["lines"] <= most else f"{outcome.facts['lines']} lines"


def _injection(outcome: Outcome, wanted: bool) -> str:
    injected = any("owned" in name + value for name, value in outcome.answer.headers)
    return "" if injected == wanted else str(outcome.answer.headers)


def _no_5xx(outcome: Outcome) -> bool:
    return outcome.answer.status < 500


def _no_float(outcome: Outcome) -> bool:
    return outcome.answer.status != SERVED or b"1.8446744073709552e19" not in _forwarded(outcome)


def _one_model(outcome: Outcome) -> bool:
    return not outcome.requests and [line["model"] for line in outcome.log] in ([""], ["m-forbidden"])


def _light(outcome: Outcome) -> bool:
    measured = outcome.measured
    return measured is not None and measured.wait_ms <= 200 and measured.growth_mib <= 256


def _as_sent(outcome: Outcome) -> bool:
    """Either refused, or the provider got the client's own word and the client a whole answer, not a stream."""
    return outcome.answer.status != SERVED or (
        _forwarded(outcome) == outcome.facts["sent"] and not outcome.answer.streams
    )


def _at_home(outcome: Outcome) -> bool:
    """It is our provider that was asked, with our key."""
    heads = b"".join(request.partition(b"\r\n\r\n")[0] for request in outcome.requests)
    return len(outcome.requests) == (outcome.answer.status == SERVED) and b"sk-x" not in heads


NEVER = {
    "upstream receives 1.8446744073709552e19": _no_float,
    "5xx": _no_5xx,
    "authorise on one value and route or forward the other": _one_model,
    "loop blocked over 200 ms or RSS growth over 256 MiB": _light,
    "treated as true by Python truthiness while the upstream treats it as an error": _as_sent,
    "a connection to 127.0.0.1:9 or use of sk-x": _at_home,
}


def _never(outcome: Outcome, prose: str) -> str:
    return "" if NEVER[prose](outcome) else f"did happen ({outcome.measured})"


CHECKS: dict[str, Check] = {
    "byte_exact": _byte_exact,
    "upstream_json": _upstream_json,
    "upstream_text": _upstream_text,
    "consistent": _consistent,
    "absent_long": _absent_long,
    "metric_series_added_max": _series,
    "log_lines_added_max": _lines,
    "header_injection": _injection,
    "never": _never,
}


@pytest.mark.parametrize("case", parameters(list(FILE)))
def test_a_body_is_served_whole_or_refused_politely(case: str, results: Results) -> None:
    results.verify(case)
    outcome = results.outcomes[case]
    assert outcome.answer.status < 500
    if outcome.answer.status >= 400:
        assert not outcome.requests


def test_the_log_is_clean_after_all_of_them(results: Results) -> None:
    assert results.log == []
