"""Faulty providers, byte by byte: what they do to connections, heads and bodies, and what the client is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faults.casefiles import Case, call, cases, filled, parameters, words
from faults.harness import Results, drive_all
from faults.judging import CHECKS as COMMON
from faults.judging import Check, Outcome, fact
from faults.serving import PROVIDER_KEY, Gateway, deployment, openai, profile, serving
from faults.sockets import filled_queue
from faults.wireclient import ask
from livegateway import gateway_before
from upstreams import Connection, ScriptedUpstream, answer, certificates

FILE = cases("upstream_http")
IN_PROCESS = {"UP-004"}
OK = [{"t": "{{OK}}"}]
BIG = 8 * 1024 * 1024
SETUPS = {
    "UP-060": "one OK call then the upstream closes after 50 ms then a second call after 200 ms",
    "UP-061": "upstream answers and closes in the same instant without Connection: close; 300 calls back to back",
    "UP-062": "one OK call then on the second call read the request fully wait 300 ms and reset",
}
SCRIPTS: dict[str, list[list[dict[str, Any]]]] = {
    "UP-060": [[*OK, {"sleep": 0.05}, {"fin": True}], OK],
    "UP-061": [[*OK, {"fin": True}]],
    "UP-062": [OK, [{"sleep": 0.3}, {"rst": True}]],
}


class Deaf(ScriptedUpstream):
    """A provider that reads nothing until its first steps are done, so that a big request cannot be sent whole."""

    async def __aenter__(self) -> Deaf:
        await super().__aenter__()
        assert self._server is not None
        self._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        return self

    def opened(self, transport: asyncio.Transport) -> Connection:
        transport.pause_reading()
        return super().opened(transport)


@dataclass
class Site:
    """One case's provider: where it is reached, and what serves there."""

    url: str
    upstream: ScriptedUpstream | None = None
    options: dict[str, Any] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def site(case: Case, trap: ScriptedUpstream) -> AsyncIterator[Site]:
    """The provider that the case describes."""
    how = case.get("connect", "")
    if how == "refused":
        async with ScriptedUpstream(OK, refuses=True) as upstream:
            yield Site(upstream.url)
    elif how == "blackhole":
        with filled_queue() as port:
            yield Site(f"http://127.0.0.1:{port}")
    elif how == "nxdomain":
        yield Site("https://no-such-host.invalid")
    elif how == "tls_plain":
        early = [{"t": answer("", "400 Bad Request")}, {"fin": True}]
        async with ScriptedUpstream(OK, tls="plain", on_accept=early) as upstream:
            yield Site(upstream.url, upstream)
    elif how.startswith("tls_"):
        async with ScriptedUpstream(OK, tls=how.removeprefix("tls_")) as upstream:  # type: ignore[arg-type]
            yield Site(upstream.url, upstream, {"ca_file": certificates().ca_file})
    else:
        assert not how
        known = words(case["id"], TRAP=str(trap.port))
        scripts = SCRIPTS.get(case["id"]) or [filled(case.get("script", []), known), OK]
        early = filled(case.get("on_accept", []), known)
        kind = Deaf if case["id"] in ("UP-011", "UP-012") else ScriptedUpstream
        async with kind(*scripts, on_accept=early) as upstream:
            yield Site(upstream.url, upstream)


async def drive(wanted: list[str], folder: Path) -> Results:
    """Every case with a provider account of its own, all at once."""
    async with contextlib.AsyncExitStack() as stack:
        trap = await stack.enter_async_context(ScriptedUpstream(OK))
        control = await stack.enter_async_context(ScriptedUpstream(OK))
        sites = {name: await stack.enter_async_context(site(FILE[name], trap)) for name in wanted}
        providers = {name: openai(each.url, **each.options) for name, each in sites.items()}
        deployments = {name: deployment(name, name) for name in wanted}
        deployments |= {f"{name}+": deployment(name, name) for name in wanted}
        deployments["m-ok"] = deployment("ok", "m-ok")
        gateway = await stack.enter_async_context(
            serving(folder, profile({**providers, "ok": openai(control.url)}, deployments))
        )
        for _ in range(50):
            await ask(gateway.port, call("m-ok"))

        async def one(case: Case) -> Outcome:
            here = sites[case["id"]]
            outcome = await DRIVERS.get(case["id"], _plain)(gateway, case, here)
            outcome.facts["trap_connections"] = len(trap.connections)
            return outcome

        driven = [{**FILE[name], "expect": {"within": 3, **FILE[name]["expect"]}} for name in wanted]
        return await drive_all(gateway, driven, one, width=24, checks=CHECKS)


async def _plain(gateway: Gateway, case: Case, here: Site) -> Outcome:
    """Ask once, look at what the provider saw, and ask again."""
    name, begun = case["id"], len(here.upstream.connections) if here.upstream else 0
    more = {"user": "x" * BIG} if name in ("UP-011", "UP-012") else {}
    seen = await ask(gateway.port, call(name, stream=bool(case.get("stream")), **more), 8.0)
    outcome = Outcome(case, seen, deployment=name, known=words(name))
    if here.upstream is not None:
        connections = here.upstream.connections[begun:]
        outcome.requests = [request for connection in connections for request in connection.requests]
        outcome.facts["sent"] = b"".join(bytes(connection.raw) for connection in connections)
        outcome.facts["pooled"] = await _pooled(connections)
    if "then" in case:
        assert case["then"] == "a second request"
    again = f"{name}+" if "script" in case else "m-ok"
    outcome.after = (await ask(gateway.port, call(again))).last
    return outcome


async def _pooled(connections: Sequence[Connection]) -> bool:
    """Is one of them still open, a while after the answer?"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.gather(*(connection.closed.wait() for connection in connections))
    return not all(connection.closed.is_set() for connection in connections)


async def _twice(gateway: Gateway, case: Case, here: Site) -> Outcome:
    """A first call that is well, and the one that the case is about."""
    assert case["setup"] == SETUPS[case["id"]]
    assert here.upstream is not None
    first = (await ask(gateway.port, call(f"{case['id']}+"))).responses[0]
    assert first.status == 200
    await asyncio.sleep(0.2)  # the pause that the case asks for
    seen = await ask(gateway.port, call(case["id"]))
    return Outcome(case, seen, requests=here.upstream.requests[1:])


async def _many(gateway: Gateway, case: Case, here: Site) -> Outcome:
    """Three hundred calls, each as soon as the one before is answered."""
    assert case["setup"] == SETUPS[case["id"]]
    assert here.upstream is not None
    count, failed = 300, 0
    for _ in range(count):
        seen = await ask(gateway.port, call(case["id"]))
        failed += seen.responses[0].status != 200
    outcome = Outcome(case, seen)
    outcome.facts["client_errors"] = failed
    outcome.facts["upstream_completions_per_call"] = len(here.upstream.requests) / count
    return outcome


DRIVERS: dict[str, Callable[[Gateway, Case, Site], Awaitable[Outcome]]] = {
    "UP-060": _twice,
    "UP-061": _many,
    "UP-062": _twice,
}
# An answer that broke off, or never came, leaves a connection that nobody may use again.
BROKEN = {"upstream_reset", "upstream_timeout", "upstream_idle_timeout", "upstream_truncated"}


def _not_pooled(outcome: Outcome, wanted: bool) -> str:
    return fact(outcome, "pooled", wanted)


def _within(outcome: Outcome, limit: float) -> str:
    """As everywhere; and a connection whose answer broke off is closed, not pooled."""
    broken = {line["code"] for line in outcome.log} & BROKEN
    left = " and the broken connection was kept" if broken and outcome.facts.get("pooled") else ""
    return COMMON["within"](outcome, limit) + left


def _excerpt(outcome: Outcome, most: int) -> str:
    longest = max(len(line.get("excerpt", "")) for line in [*outcome.log, *outcome.news])
    shown = "<html>" in outcome.logged and not longest
    return "" if longest <= most and not shown else outcome.logged


def _second_absent(outcome: Outcome, words_: list[str]) -> str:
    assert outcome.after is not None
    found = [word for word in words_ if word.encode() in outcome.after.body]
    return f"{found} in the second answer" if found else ""


def _errors_max(outcome: Outcome, most: int) -> str:
    failed = outcome.facts["client_errors"]
    return "" if failed <= most else f"{failed} calls failed"


def _own_answer(outcome: Outcome) -> bool:
    return outcome.answer.status != 200 or len(outcome.requests) == 1


NEVER: dict[str, Callable[[Outcome], bool]] = {
    "request bytes sent": lambda outcome: not outcome.facts["sent"] and not outcome.requests,
    "the answer is given to another request": _own_answer,
    "400 or 500": lambda outcome: outcome.answer.status not in (400, 500),
    "101 to the client": lambda outcome: 101 not in (outcome.answer.status, *outcome.seen.interim),
    "a 200 that ends cleanly": lambda outcome: not (outcome.answer.status == 200 and outcome.answer.complete),
    "HTML relayed as a completion": lambda outcome: b"<html" not in outcome.seen.raw,
}
CHECKS: dict[str, Check] = {
    "within": _within,
    "pooled": _not_pooled,
    "trap_connections": lambda outcome, wanted: fact(outcome, "trap_connections", wanted),
    "upstream_body_excerpt_logged_max": _excerpt,
    "second_request_absent": _second_absent,
    "client_errors_max": _errors_max,
    "upstream_completions_per_call": lambda outcome, wanted: fact(outcome, "upstream_completions_per_call", wanted),
    "never": lambda outcome, prose: "" if NEVER[prose](outcome) else f"did happen: {outcome.seen.raw[:200]!r}",
}


@pytest.mark.parametrize("case", parameters([name for name in FILE if name not in IN_PROCESS]))
def test_a_faulty_provider_is_told_apart_from_a_faulty_client(case: str, results: Results) -> None:
    results.verify(case)


def test_the_log_is_clean_after_all_of_them(results: Results) -> None:
    assert results.log == []


@pytest.mark.skipif(not FILE, reason="the fault cases are not beside the project")
def test_up_004_a_name_server_that_never_answers_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect = FILE["UP-004"]["expect"]
    assert expect == {"status": [504], "within": 1.6, "other_models_unaffected": True}
    answering, truly = threading.Event(), socket.getaddrinfo

    def ask_for(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "silent.test":
            answering.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "silent")
        return truly(host, *rest, **more)

    async def main() -> tuple[list[float], list[Any], list[float], list[Any]]:
        async with ScriptedUpstream(OK) as upstream:
            silent = {"type": "openai", "base_url": "https://silent.test/v1", "api_key": PROVIDER_KEY}
            up = {"type": "openai", "base_url": f"{upstream.url}/v1", "api_key": PROVIDER_KEY}
            retry = {"attempts": 1, "timeouts": {"connect": "1s"}}
            more = {
                "providers": {"up": up, "silent": silent},
                "deployments": {"m": deployment("up", "m"), "dead": deployment("silent", "dead")},
                "retry": retry,
            }
            async with gateway_before(tmp_path, upstream.url, content=more) as gateway:

                async def timed(model: str) -> tuple[float, Any]:
                    began = time.monotonic()
                    answer = await gateway.chat(model)
                    return time.monotonic() - began, answer

                dead = [asyncio.create_task(timed("dead")) for _ in range(40)]
                await asyncio.sleep(0.1)
                well = [await timed("m") for _ in range(5)]
                lost = await asyncio.gather(*dead)
                answering.set()
                return (
                    [took for took, _ in lost],
                    [a for _, a in lost],
                    [took for took, _ in well],
                    [a for _, a in well],
                )

    monkeypatch.setattr(socket, "getaddrinfo", ask_for)
    try:
        took, answers, quick, good = asyncio.run(main())
    finally:
        answering.set()
    assert {answer.status for answer in answers} == set(expect["status"])
    assert {answer.error["code"] for answer in answers} == {"upstream_connect_timeout"}
    assert max(took) <= expect["within"] + 0.3
    assert {answer.status for answer in good} == {200}
    assert max(quick) < 0.5
