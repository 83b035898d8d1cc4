"""Keys: missing, wrong, malformed, doubled; and where secrets must never be seen."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import orjson
import psutil
import pytest
from faults.casefiles import Case, body, call, cases, fill, parameters, words
from faults.harness import Results, drive_all
from faults.judging import Outcome, fact, headers_of
from faults.measuring import measured
from faults.planned import Arrival, Planned
from faults.serving import KEY, KEY_A_ONLY, Gateway, deployment, openai, profile, serving
from faults.wireclient import Seen, Step, Talk, ask
from livegateway import hashed
from upstreams import answer

from gateway.access import Access
from gateway.config.plugins import Registry
from gateway.config.types import Key
from gateway.errors import Unauthorized

FILE = cases("auth_cases")
TWIN = "sk-gw-twin-key-with-a-long-common-beginning-" + "7" * 8
OK = [{"t": "{{OK}}"}]
IN_PROCESS = {"AU-018"}
FLOOD = {"AU-020"}
OWN = {"AU-014", "AU-019", *FLOOD}


async def drive(wanted: list[str], folder: Path) -> Results:
    """Cases one after the other, all for one model."""
    provider = Planned(_answer)
    async with provider:
        config = profile(
            {"a": openai(provider.url)}, {"m-r0": deployment("a", "m-r0"), "m-r2": deployment("a", "m-r2")}
        )
        config["keys"] |= {
            "single": {"hash": hashed(KEY_A_ONLY), "models": ["m-r0"]},
            "twin-1": {"hash": hashed(TWIN + "1"), "models": ["m-r0"]},
            "twin-2": {"hash": hashed(TWIN + "2"), "models": ["m-r0"]},
        }
        async with serving(folder, config) as gateway:

            async def one(case: Case) -> Outcome:
                begun = len(provider.arrivals)
                outcome = await _DRIVERS.get(case["id"], _plain)(gateway, case)
                outcome.requests = [arrival.raw for arrival in provider.arrivals[begun:]]
                outcome.after = (await ask(gateway.port, call("m-r0"))).last
                return outcome

            driven = [FILE[name] for name in wanted]
            return await drive_all(gateway, driven, one, width=1, checks=CHECKS)


def _answer(arrival: Arrival) -> list[Step]:
    if b"echo my key" not in arrival.raw:
        return OK
    message = f"Incorrect API key provided: {headers_of(arrival.raw)['authorization']}"
    return [{"t": answer(orjson.dumps({"error": {"message": message}}).decode(), "401 Unauthorized")}]


async def _plain(gateway: Gateway, case: Case) -> Outcome:
    known = words("m-r0")
    seen = await ask(gateway.port, _request(case, known), 3.0)
    return Outcome(case, seen, known=known)


def _request(case: Case, known: dict[str, str]) -> bytes:
    more = {"user": "echo my key"} if case.get("upstream_script") == "echo_auth_in_401" else {}
    content = body(case.get("body_model", "m-r0"), **more)
    lines = [f"POST {fill(case.get('path', '/v1/chat/completions'), known)} HTTP/1.1", "Host: gw.test"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    given = [*case.get("headers", {}).items(), *case.get("raw_headers", ())]
    if not given and "raw_header_hex" not in case:
        given = [("Authorization", "Bearer {{KEY}}")]
    lines += [f"{name}: {fill(value, known)}" for name, value in given if value is not None]
    raw = "\r\n".join(lines).encode(case.get("encode", "utf-8"))
    for name, value in case.get("raw_header_hex", {}).items():
        raw += f"\r\n{name}: ".encode() + bytes.fromhex(value)
    return raw + b"\r\n\r\n" + content


async def _twins(gateway: Gateway, case: Case) -> Outcome:
    first, second = [await ask(gateway.port, call("m-r0", key=TWIN + last)) for last in "12"]
    await gateway.logged()
    ids = [seen.responses[0].header("x-request-id") for seen in (first, second)]
    keys = {line["key"] for line in gateway.lines if line.get("id") in ids}
    return Outcome(case, first, facts={"tenants_distinct": keys == {"twin-1", "twin-2"}})


async def _dumps(gateway: Gateway, case: Case) -> Outcome:
    """Everywhere that a configuration could be looked at from outside."""
    process = psutil.Process(gateway.process.pid)
    pages = [(await gateway.page(path)).body for path in ("/metrics", "/healthz", "/status", "/config", "/readyz")]
    seen = await ask(gateway.port, call("m-r0"))
    dump = " ".join([*process.cmdline(), *process.environ().values(), *pages, repr(gateway_config(gateway))])
    seen.raw += dump.encode()
    return Outcome(case, seen, known=words("m-r0"))


def gateway_config(gateway: Gateway) -> object:
    """The configuration as the gateway itself keeps it."""
    from gateway.config.loader import load

    loaded = load(str(gateway.file), os.environ, Registry(), False)
    assert loaded.config is not None
    return loaded


async def _flood(gateway: Gateway, case: Case) -> Outcome:
    """Wrong keys as fast as two seconds allow, while somebody else makes valid calls."""
    wrong = [call("m-r0", key=f"sk-wrong-{number}") for number in range(200)]
    seen: list[Seen] = []

    async def flood() -> None:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            seen.append(await Talk(gateway.port, str.encode).run([{"data": b"".join(wrong)}], 10))

    _, told = await measured(gateway, flood, call("m-r0").decode(), gateway.port)
    assert told.asked > 10
    statuses = {response.status for each in seen for response in each.responses}
    assert statuses <= set(case["expect"]["status"])
    return Outcome(case, seen[0], facts={"p99": told.p99_ms, "sent": 200 * len(seen)})


def _p99(outcome: Outcome, limit: float) -> str:
    got = outcome.facts["p99"]
    return "" if got <= limit and outcome.facts["sent"] >= 1000 else f"{got:.0f} ms at {outcome.facts['sent']} refusals"


_DRIVERS = {"AU-014": _twins, "AU-019": _dumps, "AU-020": _flood}
CHECKS = {
    "tenants_distinct": lambda outcome, wanted: fact(outcome, "tenants_distinct", wanted),
    "valid_client_p99_ms_max": _p99,
}


@pytest.mark.parametrize("case", parameters([name for name in FILE if name not in IN_PROCESS]))
def test_a_key_opens_only_what_it_should(case: str, results: Results) -> None:
    results.verify(case)


def test_no_key_is_in_the_log(results: Results) -> None:
    assert results.log == []


@pytest.mark.skipif(not FILE, reason="the fault cases are not beside the project")
def test_au_018_the_time_of_a_comparison_tells_nothing() -> None:
    most = FILE["AU-018"]["expect"]["median_ratio_max"]
    access = Access({"k": Key(hash=hashed(KEY))})
    wrongs = [["Bearer " + "x" + KEY[1:]], ["Bearer " + KEY[:-1] + "x"]]

    def median(authorization: list[str]) -> float:
        times = []
        for _ in range(2000):
            began = time.perf_counter_ns()
            try:
                access.identify(authorization, 0.0)
            except Unauthorized:
                times.append(time.perf_counter_ns() - began)
        assert len(times) == 2000
        return statistics.median(times)

    ratios = []
    for _ in range(5):
        first, last = median(wrongs[0]), median(wrongs[1])
        ratios.append(max(first, last) / min(first, last))
    assert min(ratios) <= most
