"""What headers cross the gateway, in either direction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from faults.casefiles import Case, body, call, cases, fill, parameters, words
from faults.harness import Results, drive_all
from faults.judging import Check, Outcome, content_of, fact, headers_of
from faults.planned import Arrival, Planned
from faults.serving import (
    KEY,
    PROVIDER_KEY,
    PROVIDER_KEY_B,
    Gateway,
    deployment,
    openai,
    profile,
    serving,
)
from faults.wireclient import Response, Step, ask
from upstreams import OK_BODY, ScriptedUpstream, answer

FILE = cases("header_forwarding")
LOCAL = "m-local"
STANDARD = {200: "OK", 502: "Bad Gateway"}


async def drive(wanted: list[str], folder: Path) -> Results:
    """Cases one after the other; the n-th case's own deployment has its name."""
    trap = ScriptedUpstream([{"t": "{{OK}}"}])
    async with trap, Planned(lambda arrival: _script(arrival, trap)) as provider, Planned(_ok) as second:
        providers = {"a": openai(provider.url), "b": openai(second.url, api_key=PROVIDER_KEY_B)}
        deployments = {name: deployment("a", name) for name in ("m-ok", *FILE)}
        routings = {"m-fb": {"targets": ["HF-002", "m-b"]}}
        deployments["m-b"] = deployment("b", "m-b")
        config = profile(providers, deployments, routings=routings)
        config["retry"] = {**config["retry"], "attempts": 2}
        async with serving(folder, config) as gateway:

            async def one(case: Case) -> Outcome:
                outcome = await send(gateway, provider, case)
                outcome.facts["second"] = [arrival.raw for arrival in second.arrivals]
                outcome.facts["second_origin_connections"] = len(trap.connections)
                outcome.after = (await ask(gateway.port, call("m-ok"))).last
                (check,) = provider.asked("m-ok")[-1:]
                outcome.facts["next_request_cookie"] = headers_of(check.raw).get("cookie", "none")
                return outcome

            async def or_open(case: Case) -> Outcome:
                return await (_without_keys(folder, provider, case) if case["id"] == "HF-019" else one(case))

            return await drive_all(gateway, [FILE[name] for name in wanted], or_open, width=1, checks=CHECKS)


def _ok(arrival: Arrival) -> list[Step]:
    return [{"t": "{{OK}}"}]


def _script(arrival: Arrival, trap: ScriptedUpstream) -> list[Step]:
    case = FILE.get(arrival.model, {})
    script, raw = case.get("upstream_script"), case.get("upstream_raw")
    if script == ["fail_503", "ok"]:
        return [{"t": answer("{}", "503 Service Unavailable")}]
    if script == "redirect_307_other_origin":
        return [{"t": answer("", "307 Temporary Redirect", Location=f"{trap.url}/v1/chat/completions")}]
    assert script is None
    status, lines = "HTTP/1.1 200 OK", []
    if raw is not None:
        status, lines = (raw, []) if raw.startswith("HTTP/") else (status, [raw])
    given = {"Content-Type": "application/json", "Content-Length": str(len(OK_BODY)), **case.get("upstream_sets", {})}
    lines += [f"{name}: {value}" for name, value in given.items() if value is not None]
    return [{"t": "\r\n".join([status, *lines, "", OK_BODY])}]


async def send(gateway: Gateway, provider: Planned, case: Case) -> Outcome:
    """Send a valid request with the case's headers added, or in place of its own."""
    name = case["id"]
    seen = await ask(gateway.port, _request(case, case.get("model", name)))
    known = words(name, UPSTREAM_HOST=f"127.0.0.1:{provider.port}")
    outcome = Outcome(case, seen, model=name, known=known)
    outcome.requests = [arrival.raw for arrival in provider.asked(name)]
    if "also" in case:
        assert case["also"] == "OPTIONS preflight gets no allow headers"
        lines = "Host: gw.test\r\nOrigin: https://evil.test\r\nAccess-Control-Request-Method: POST\r\n"
        preflight = (await ask(gateway.port, f"OPTIONS /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode())).last
        assert preflight is not None
        assert preflight.status >= 400
        assert not [header for header, _ in preflight.headers if header.startswith(("access-control", "allow"))]
    return outcome


def _request(case: Case, model: str, key: str = KEY) -> bytes:
    content = body(model)
    headers = {
        "Host": "gw.test",
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **{name: fill(value) for name, value in case.get("add", {}).items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + content


async def _without_keys(folder: Path, provider: Planned, case: Case) -> Outcome:
    """The same request to a gateway without client keys, which serves programs on this machine only."""
    config = profile({"a": openai(provider.url)}, {LOCAL: deployment("a", LOCAL)})
    del config["keys"]
    (folder / "open").mkdir()
    async with serving(folder / "open", config) as gateway:
        local = {"add": {"Host": f"127.0.0.1:{gateway.port}"}}
        seen = await ask(gateway.port, _request(case, LOCAL))
        after = (await ask(gateway.port, _request(local, LOCAL))).last
        await gateway.logged()
        lines = gateway.lines
    refused = seen.responses[0].status in (400, 403, 421)
    told = {"when_no_auth_mode": "must_refuse" if refused else "served"}
    return Outcome(case, seen, after=after, facts=told, lines=lines)


def _requests(outcome: Outcome) -> list[Mapping[str, str]]:
    return [headers_of(request) for request in outcome.requests]


def _second_absent(outcome: Outcome, words_: list[str]) -> str:
    raw = b"".join(outcome.facts["second"])
    assert raw, "the second provider was not asked"
    found = [word for word in words_ if outcome.known[word.strip("{}")].encode() in raw]
    return f"{found} went to the second provider" if found or PROVIDER_KEY_B.encode() not in raw else ""


def _authenticated(outcome: Outcome, wanted: bool) -> str:
    got = [headers.get("authorization") for headers in _requests(outcome)]
    served = outcome.answer.status == 200
    return "" if (got == [f"Bearer {PROVIDER_KEY}"] * served) == wanted else str(got)


def _intact(outcome: Outcome, wanted: bool) -> str:
    got = [content_of(request) for request in outcome.requests]
    whole = got == [body(outcome.model)] * (outcome.answer.status == 200)
    return "" if whole == wanted else str(got)


def _upstream_header(outcome: Outcome, wanted: Mapping[str, str]) -> str:
    (headers,) = _requests(outcome)
    got = {name: headers.get(name) for name in wanted}
    return "" if got == {name: fill(value, outcome.known) for name, value in wanted.items()} else str(got)


def _codings(outcome: Outcome, allowed: list[str]) -> str:
    (headers,) = _requests(outcome)
    asked = {coding.partition(";")[0].strip() for coding in headers.get("accept-encoding", "identity").split(",")}
    return "" if asked <= set(allowed) else str(asked)


def _response_absent(outcome: Outcome, names: list[str]) -> str:
    found = [name for name in names if outcome.answer.header(name)]
    return str(found) if found or outcome.answer.header("server") else ""


def _response_has(outcome: Outcome, names: list[str]) -> str:
    lacking = [name for name in names if not outcome.answer.header(name)]
    return f"{lacking} of {outcome.answer.headers}" if lacking else ""


def _request_id(outcome: Outcome, pattern: str) -> str:
    got = outcome.answer.header("x-request-id")
    return "" if re.search(pattern, got) else got


def _log_line(outcome: Outcome, wanted: bool) -> str:
    return "" if (len(outcome.log) == 1 and "script" not in outcome.logged) == wanted else outcome.logged


def _no_effect(outcome: Outcome, wanted: bool) -> str:
    """It is served like any request, under the key that it showed."""
    plain = outcome.answer.status == 200 and [line["key"] for line in outcome.log] == ["tester"]
    return "" if plain == wanted else outcome.logged


def _id_logged(outcome: Outcome, wanted: bool) -> str:
    ids = [line.get("upstream_id") for line in outcome.log]
    return "" if (ids == [outcome.case["upstream_sets"]["x-request-id"]]) == wanted else str(ids)


def _reason(outcome: Outcome, wanted: str) -> str:
    assert wanted == "standard"
    answer_: Response = outcome.answer
    return "" if answer_.reason == STANDARD[answer_.status] else answer_.reason


NEVER = {
    "a connection to port 9": lambda outcome: len(outcome.requests) == 1,
    "5xx": lambda outcome: outcome.answer.status < 500,
}
CHECKS: dict[str, Check] = {
    "second_upstream_absent_values": _second_absent,
    "upstream_authenticated": _authenticated,
    "upstream_body_intact": _intact,
    "upstream_header": _upstream_header,
    "upstream_accept_encoding_subset_of": _codings,
    "response_absent": _response_absent,
    "response_has": _response_has,
    "response_request_id_regex": _request_id,
    "log_line_intact": _log_line,
    "no_policy_effect": _no_effect,
    "upstream_request_id_logged": _id_logged,
    "response_reason": _reason,
    "never": lambda outcome, prose: "" if NEVER[prose](outcome) else f"did happen: {outcome.answer.status}",
    **{
        name: lambda outcome, wanted, name=name: fact(outcome, name, wanted)
        for name in ("next_request_cookie", "second_origin_connections", "when_no_auth_mode")
    },
}
MUST_HAVE = {"host", "content-type", "content-length", "authorization", "user-agent"}


@pytest.mark.parametrize("case", parameters(list(FILE)))
def test_a_header_crosses_only_if_it_may(case: str, results: Results) -> None:
    results.verify(case)
    outcome = results.outcomes[case]
    assert all(headers.keys() >= MUST_HAVE for headers in _requests(outcome))


def test_the_log_is_clean_after_all_of_them(results: Results) -> None:
    assert results.log == []
