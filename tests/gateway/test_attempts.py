"""gateway.attempts, from outside: which upstream answers when others fail, and that none follows the first byte."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from livegateway import HELLO, Reply, free_port, serving
from upstreams import NAMES, OK_BODY, SSE_HEAD, ScriptedUpstream, Step, answer, event

Run = Callable[[Any], Any]
GOOD: list[Step] = [{"t": answer(OK_BODY)}]
STREAM: list[Step] = [
    {"t": SSE_HEAD},
    {"chunk": NAMES["D1"] + NAMES["D2"] + NAMES["FIN"] + NAMES["DONE"]},
    {"end": True},
]
ERROR = '{"error":{"message":"sorry","type":"server_error","param":null,"code":null}}'


def failing(status: str, **headers: str) -> list[Step]:
    return [{"t": answer(ERROR, status, **headers)}]


BREAKS: dict[str, list[Step]] = {
    "500": failing("500 Internal Server Error"),
    "502": failing("502 Bad Gateway"),
    "503": failing("503 Service Unavailable"),
    "429": failing("429 Too Many Requests"),
    "an error as the first event": [
        {"t": SSE_HEAD},
        {"chunk": event({"error": {"message": "x", "type": "server_error"}})},
    ],
}


async def through(
    folder: Path, upstreams: list[ScriptedUpstream], body: dict[str, Any], times: int = 1, **content: Any
) -> list[Reply]:
    """Answers of a routing `r` over deployments u0, u1, ... ; a port where nobody listens stands for None."""
    accounts = {f"p{n}": {"type": "openai", "base_url": up.url, "api_key": "k"} for n, up in enumerate(upstreams)}
    nobody = {"type": "openai", "base_url": f"http://127.0.0.1:{free_port()}", "api_key": "k"}
    deployments = {f"u{n}": {"provider": f"p{n}", "model": f"model-{n}"} for n in range(len(upstreams))}
    dead = {"provider": "nobody", "model": "x"}
    whole = {
        "providers": {**accounts, "nobody": nobody},
        "deployments": {**deployments, "dead": dead},
        "routings": {"r": {"strategy": "priority", "targets": list(deployments)}},
        **content,
    }
    async with serving(folder, whole) as live:
        return [await live.post({"model": "r", "messages": HELLO, **body}) for _ in range(times)]


def over(run: Run, folder: Path, *scripts: list[Step], body: Any = None, times: int = 1, **content: Any) -> Any:
    """The answers, and how many requests each upstream got; one script per upstream."""

    async def main() -> tuple[list[Reply], list[int]]:
        async with AsyncExitStack() as stack:
            upstreams = [await stack.enter_async_context(ScriptedUpstream(script)) for script in scripts]
            replies = await through(folder, upstreams, body or {}, times, **content)
            return replies, [len(upstream.requests) for upstream in upstreams]

    return run(main())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["500", "502", "503", "429"])
def test_the_next_target_answers_where_one_fails_before_the_first_byte(
    run: Run, tmp_path: Path, how: str, stream: bool
) -> None:
    good = STREAM if stream else GOOD
    (reply,), counts = over(run, tmp_path, BREAKS[how], good, body={"stream": stream})
    assert (reply.status, counts) == (200, [1, 1])
    assert reply.headers["x-gateway-deployment"] == "u1"
    assert reply.headers["x-gateway-attempts"] == f"u0={how},u1=200"


def test_a_stream_that_begins_with_an_error_may_still_go_elsewhere(run: Run, tmp_path: Path) -> None:
    (reply,), counts = over(run, tmp_path, BREAKS["an error as the first event"], STREAM, body={"stream": True})
    assert (reply.status, reply.done, counts) == (200, True, [1, 1])


def test_a_target_that_cannot_be_reached_is_passed_over(run: Run, tmp_path: Path) -> None:
    routings = {"r": {"strategy": "priority", "targets": ["dead", "u0"]}}
    (reply,), counts = over(run, tmp_path, GOOD, routings=routings)
    assert (reply.status, counts) == (200, [1])
    assert reply.headers["x-gateway-attempts"] == "dead=upstream_connect_error,u0=200"


def test_the_fallback_comes_after_all_targets(run: Run, tmp_path: Path) -> None:
    routings = {"r": {"strategy": "priority", "targets": ["u0", "dead"], "fallback": ["u1"]}}
    (reply,), counts = over(run, tmp_path, BREAKS["500"], GOOD, routings=routings)
    assert (reply.status, counts) == (200, [1, 1])
    assert reply.headers["x-gateway-attempts"] == "u0=500,dead=upstream_connect_error,u1=200"


@pytest.mark.parametrize(
    "steps",
    [
        [{"t": SSE_HEAD}, {"chunk": NAMES["D1"] + NAMES["D2"]}, {"fin": True}],
        [{"t": SSE_HEAD}, {"chunk": NAMES["D1"] + NAMES["D2"]}, {"rst": True}],
        [{"t": SSE_HEAD}, {"chunk": NAMES["D1"]}, {"chunk": event({"error": {"message": "x"}})}, {"end": True}],
        [{"t": SSE_HEAD}, {"chunk": NAMES["D1"] + NAMES["D2"]}, {"end": True}],
    ],
    ids=["closed", "reset", "error event", "no terminal event"],
)
def test_nothing_follows_once_the_first_event_went_out(run: Run, tmp_path: Path, steps: list[Step]) -> None:
    (reply,), counts = over(run, tmp_path, steps, STREAM, body={"stream": True})
    assert counts == [1, 0]
    assert "error" in reply.chunks[-1]
    assert (reply.done, reply.complete) == (False, False)


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "413 Payload Too Large", "422 Unprocessable"])
def test_a_request_at_fault_is_not_tried_elsewhere(run: Run, tmp_path: Path, status: str) -> None:
    (reply,), counts = over(run, tmp_path, failing(status), GOOD)
    assert (str(reply.status), counts) == (status[:3], [1, 0])


def test_the_last_failure_is_told_when_every_target_fails(run: Run, tmp_path: Path) -> None:
    (reply,), counts = over(run, tmp_path, BREAKS["503"], BREAKS["500"], BREAKS["500"])
    assert (reply.status, counts) == (500, [1, 1, 1])
    assert reply.headers["x-gateway-attempts"] == "u0=503,u1=500,u2=500"
    assert reply.headers["x-should-retry"] == "false"


def test_no_more_attempts_are_made_than_allowed(run: Run, tmp_path: Path) -> None:
    (reply,), counts = over(run, tmp_path, BREAKS["500"], BREAKS["500"], BREAKS["500"], GOOD, retry={"attempts": 2})
    assert reply.status == 500
    assert sum(counts) == 2


def test_a_wait_that_a_provider_asks_for_is_passed_on(run: Run, tmp_path: Path) -> None:
    busy = failing("429 Too Many Requests", Retry_After="7")
    (reply,), _ = over(run, tmp_path, busy, retry={"attempts": 1})
    assert (reply.status, reply.headers["retry-after"], reply.headers["retry-after-ms"]) == (429, "7", "7000")


def test_a_target_that_asked_to_be_left_alone_is(run: Run, tmp_path: Path) -> None:
    busy = failing("429 Too Many Requests", Retry_After="60")
    replies, counts = over(run, tmp_path, busy, GOOD, times=3)
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert counts == [1, 3]


def test_a_refused_provider_key_is_not_the_clients_fault(run: Run, tmp_path: Path) -> None:
    (reply,), _ = over(run, tmp_path, failing("401 Unauthorized"))
    assert (reply.status, reply.error["code"]) == (502, "upstream_auth_error")
    assert "www-authenticate" not in reply.headers


def test_an_upstream_that_keeps_failing_is_left_alone_for_a_while(run: Run, tmp_path: Path) -> None:
    rule = {"attempts": 2, "breaker": {"failures": 3, "window": "30s", "open": "60s"}}
    replies, counts = over(run, tmp_path, BREAKS["500"], GOOD, GOOD, times=8, retry=rule)
    assert all(reply.status == 200 for reply in replies)
    assert counts[0] == 3


def test_weights_share_the_requests(run: Run, tmp_path: Path) -> None:
    targets = [{"use": "u0", "weight": 3}, {"use": "u1", "weight": 1}, {"use": "u2", "weight": 0}]
    routings = {"r": {"strategy": "weighted", "targets": targets}}
    replies, counts = over(run, tmp_path, GOOD, GOOD, GOOD, times=80, routings=routings)
    assert Counter(reply.headers["x-gateway-deployment"] for reply in replies) == {
        f"u{n}": count for n, count in enumerate(counts) if count
    }
    assert counts[0] > counts[1] > 0
    assert counts[2] == 0


def test_routings_may_lead_to_routings(run: Run, tmp_path: Path) -> None:
    routings = {
        "inner": {"strategy": "priority", "targets": ["u0", "dead"]},
        "r": {"strategy": "priority", "targets": ["inner"], "fallback": ["u1"]},
    }
    (reply,), counts = over(run, tmp_path, BREAKS["500"], GOOD, routings=routings)
    assert (reply.status, counts) == (200, [1, 1])


def test_an_adapter_stands_in_a_routing_with_its_own_values(run: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, bytes]:
        async with ScriptedUpstream(GOOD) as upstream:
            adapters = {"cold": {"deployment": "u0", "model": "lora", "set": {"temperature": 0}}}
            routings = {"r": {"strategy": "priority", "targets": ["cold"]}}
            (reply,) = await through(tmp_path, [upstream], {}, adapters=adapters, routings=routings)
            return reply, upstream.requests[0]

    reply, sent = run(main())
    assert reply.headers["x-gateway-deployment"] == "cold"
    assert b'"lora"' in sent
    assert b'"temperature":0' in sent


def test_a_single_deployment_is_tried_again(run: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, int]:
        async with ScriptedUpstream(BREAKS["500"], GOOD) as upstream:
            (reply,) = await through(tmp_path, [upstream], {})
            return reply, len(upstream.requests)

    reply, count = run(main())
    assert (reply.status, count) == (200, 2)
    assert reply.headers["x-gateway-attempts"] == "u0=500,u0=200"


def test_a_client_that_leaves_while_the_gateway_waits_ends_the_waiting(run: Run, tmp_path: Path) -> None:
    async def main() -> int:
        busy = failing("503 Service Unavailable", Retry_After="30")
        async with ScriptedUpstream(busy) as upstream:
            account = {"p": {"type": "openai", "base_url": upstream.url, "api_key": "k"}}
            content = {"providers": account, "deployments": {"m": {"provider": "p", "model": "x"}}}
            async with serving(tmp_path, content) as live:
                talk = await live.open({"model": "m", "messages": HELLO})
                await upstream.request_count(1)
                began = time.monotonic()
                talk.leave()
                (line,) = await live.logged(1)
                assert time.monotonic() - began < 2
                assert line["code"] == "client_disconnect"
                return len(upstream.requests)

    assert run(main()) == 1


def test_many_requests_at_once_all_find_the_good_target(run: Run, tmp_path: Path) -> None:
    async def main() -> list[Reply]:
        async with ScriptedUpstream(BREAKS["500"]) as bad, ScriptedUpstream(GOOD) as good:
            entry = {"type": "openai", "api_key": "k"}
            content = {
                "providers": {"a": {**entry, "base_url": bad.url}, "b": {**entry, "base_url": good.url}},
                "deployments": {"a": {"provider": "a", "model": "x"}, "b": {"provider": "b", "model": "x"}},
                "routings": {"r": {"strategy": "priority", "targets": ["a", "b"]}},
            }
            async with serving(tmp_path, content) as live:
                return await asyncio.gather(*(live.chat("r") for _ in range(30)))

    assert {reply.status for reply in run(main())} == {200}
