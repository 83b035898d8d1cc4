"""gateway.lane: plain requests without a parser or a task, and the ordinary way for all others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from livegateway import Live
from upstreams import answer, event

from gateway.fastlane import FastClient, possible
from tests.gateway.riding import GOOD, KEYS, WHOLE, Line, Run, Seen, body, driven, rides

pytestmark = pytest.mark.skipif(not possible(), reason="the installed aiohttp serves in the ordinary way")


def test_the_second_request_with_a_head_takes_the_lane_and_gets_the_same_answer(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        taught = await line.asks(body(), x_odd="1")
        ridden = await line.asks(body("Hello, but longer"))
        assert rides() == 1
        told = set(taught.headers) - {"x-request-id"}
        assert {name: ridden.headers[name] for name in told} == {name: taught.headers[name] for name in told}
        assert ridden.body == taught.body
        [first, second, third] = await live.logged(3)
        assert first.keys() == second.keys() == third.keys()
        for name in ("key", "model", "deployment", "attempts", "status", "code", "tokens", "method", "path", "choice"):
            assert third.get(name) == second.get(name)

    seen = driven(run, tmp_path, act)
    assert b'"Hello, but longer"' in seen[1]
    assert seen[0].partition(b"content-length")[0] == seen[1].partition(b"content-length")[0]


def test_a_client_that_leaves_is_noticed_although_it_has_sent_more(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        line.send(line.request(body()), b"\r\n")
        await asyncio.sleep(0.1)  # it is at the provider by now
        line.writer.transport.abort()
        await live.logged(1, code="client_disconnect")
        assert Seen.last.proxy.active == 0

    driven(run, tmp_path, act, [{"stall": True}])


def test_a_body_that_comes_in_pieces_is_waited_for(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        raw = line.request(body("in pieces"))
        for cut in (raw.index(b"\r\n\r\n") + 4, len(raw) - 1):
            line.send(raw[:cut])
            await asyncio.sleep(0.02)  # two reads, not one
            line.send(raw[cut:])
            assert (await line.reply()).status == 200
        assert rides() == 2
        line.send(raw[:-1])
        await asyncio.sleep(0.6)  # longer than the lane waits
        line.send(raw[-1:])
        assert (await line.reply()).status == 200
        assert rides() == 2
        assert (await line.asks(body())).status == 200
        assert rides() == 3
        line.send(raw[:-1])
        async with asyncio.timeout(10):
            while not Seen.last.proxy.held:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the ledger tells nobody
        line.writer.transport.abort()
        async with asyncio.timeout(10):
            while Seen.last.proxy.held:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # as above

    assert len(driven(run, tmp_path, act)) == 4


@pytest.mark.parametrize(("size", "ridden"), [(400_000, True), (1_200_000, False)])
def test_a_large_body_is_held_to_a_limit(run: Run, tmp_path: Path, size: int, ridden: bool) -> None:
    async def act(live: Live, line: Line) -> None:
        assert (await line.asks(body("x" * size))).status == 200
        assert rides() == ridden

    [seen] = driven(run, tmp_path, act)
    assert seen.endswith(body("x" * size, model="upstream-model").partition(b",")[2])


def test_a_body_over_the_limit_is_refused_here_too(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        reply = await line.asks(body("x" * 2000))
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")
        assert rides() == 0

    assert driven(run, tmp_path, act, content={"server": {"max_body": "1KiB"}}) == []


def test_requests_in_one_piece_are_answered_in_order(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        line.send(b"".join(line.request(body(), x_request_id=f"one-{number}") for number in range(3)))
        assert [(await line.reply()).headers["x-request-id"] for _ in range(3)] == ["one-0", "one-1", "one-2"]
        line.send(line.request(body(), x_request_id="two-0"))
        await asyncio.sleep(0.02)  # the first is on the lane when the others come
        line.send(line.request(body(), x_request_id="two-1"), line.request(body(), x_request_id="two-2"))
        assert [(await line.reply()).headers["x-request-id"] for _ in range(3)] == ["two-0", "two-1", "two-2"]

    slow = [{"sleep": 0.1}, *GOOD]
    assert len(driven(run, tmp_path, act, slow, slow, slow, slow)) == 6


def test_the_rest_of_a_request_is_never_taken_for_a_head(run: Run, tmp_path: Path) -> None:
    """What follows a request in the parser's hands is the parser's, however much it looks like a known head."""

    async def act(live: Live, line: Line) -> None:
        known = line.request(body("smuggled"))
        carrier = line.request(body("carrier"), x_odd="1")
        # A request by the parser whose body holds a whole known request, cut just before it.
        raw = carrier[: carrier.index(b"\r\n\r\n") + 4]
        raw = raw.replace(b"Content-Length: %d" % len(body("carrier")), b"Content-Length: %d" % (len(known) + 2))
        line.send(raw + b'{"')
        await asyncio.sleep(0.02)  # two reads, not one
        line.send(known)
        reply = await line.reply()
        assert (reply.status, reply.error["code"]) == (400, "invalid_json")
        assert rides() == 0

    assert driven(run, tmp_path, act) == []


def test_a_failed_attempt_goes_on_in_the_ordinary_way(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        reply = await line.asks(body())
        assert rides() == 1
        assert (reply.status, reply.headers["x-gateway-attempts"]) == (200, "m=503,m=200")
        assert (await line.asks(body())).status == 200
        assert rides() == 2
        [line_of_retry] = await live.logged(1, attempts="m=503,m=200")
        assert line_of_retry["tokens"]["prompt"] == 3

    failing = [{"t": answer('{"error": {"message": "no"}}', "503 Service Unavailable")}]
    assert len(driven(run, tmp_path, act, failing, GOOD, GOOD)) == 3


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ([{"t": answer('{"error": {"message": "no"}}', "400 Bad Request")}], 400, "invalid_request"),
        ([{"t": answer("[]")}], 502, "upstream_bad_response"),
        ([{"t": "nonsense\r\n\r\n"}], 502, "upstream_bad_response"),
        ([{"t": answer("{")[:-1]}, {"fin": True}], 502, "upstream_truncated"),
    ],
)
def test_a_failure_is_told_as_it_is_elsewhere(run: Run, tmp_path: Path, script: Any, status: int, code: str) -> None:
    async def act(live: Live, line: Line) -> None:
        reply = await line.asks(body())
        assert rides() == 1
        assert reply.status == status
        assert (await live.logged(1, status=status))[0]["code"] == code
        assert Seen.last.proxy.active == 0

    assert len(driven(run, tmp_path, act, script, retry={"attempts": 1})) == 1


def test_a_dead_connection_is_replaced_once(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        reply = await line.asks(body())
        assert (reply.status, reply.headers["x-gateway-attempts"]) == (200, "m=200")
        assert rides() == 1

    assert len(driven(run, tmp_path, act, [{"rst": True}], GOOD)) == 2


def test_a_stream_takes_the_lane_and_leaves_the_connection_for_the_next(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        for number in range(2):
            line.send(line.request(body(stream=True)))
            got = await line.reader.readuntil(b"0\r\n\r\n")
            assert b"data: [DONE]" in got
            assert rides() == number + 1
        assert (await line.asks(body())).status == 200
        assert [each["code"] for each in await live.logged(4)] == ["ok"] * 4

    delta = {**WHOLE, "object": "chat.completion.chunk", "usage": None}
    delta["choices"] = [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]
    text = event(delta) + "data: [DONE]\n\n"
    script = [{"t": answer(text, **{"Content-Type": "text/event-stream"})}]
    driven(run, tmp_path, act, script, script, GOOD)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_takes_its_request_with_it(run: Run, tmp_path: Path, stream: bool) -> None:
    async def act(live: Live, line: Line) -> None:
        line.send(line.request(body(stream=stream)))
        await asyncio.sleep(0.1)  # it is at the provider by now
        assert rides() == 1
        line.writer.transport.abort()
        [left] = await live.logged(1, code="client_disconnect")
        assert left["model"] == "m"
        assert Seen.last.proxy.active == 0
        assert Seen.last.proxy.held == 0

    driven(run, tmp_path, act, [{"stall": True}])


@pytest.mark.parametrize("script", [[{"t": answer("{}", "503 Service Unavailable")}], [{"rst": True}]])
def test_a_client_that_leaves_while_its_request_changes_over_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    leave = FastClient.leave_lane

    def gone_first(client: FastClient, resume: Any) -> None:
        client.abort()
        leave(client, resume)

    monkeypatch.setattr(FastClient, "leave_lane", gone_first)

    async def act(live: Live, line: Line) -> None:
        line.send(line.request(body()))
        await live.logged(1, code="client_disconnect")
        proxy = Seen.last.proxy
        assert (proxy.active, proxy.held) == (0, 0)
        assert proxy.snapshot.upstreams.health_of("m").active == 0

    driven(run, tmp_path, act, script)


def test_a_provider_that_stays_silent_is_given_up_in_time(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        reply = await line.asks(body())
        assert rides() == 1
        assert (reply.status, reply.error["code"]) == (504, "upstream_timeout")

    driven(run, tmp_path, act, [{"stall": True}], retry={"attempts": 1, "timeouts": {"first_byte": "300ms"}})


def test_a_limit_of_the_key_holds_on_the_lane(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        statuses = [(await line.asks(body())).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        assert rides() == 2

    limited = {"keys": {"app": {**KEYS["app"], "limits": {"rpm": 3}}}}
    assert len(driven(run, tmp_path, act, GOOD, content=limited)) == 2
