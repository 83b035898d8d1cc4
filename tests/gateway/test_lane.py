"""gateway.lane: plain requests without a parser or a task, and the ordinary way for all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import Live, Reply, gateway_before, read_reply
from upstreams import ScriptedUpstream, answer, event

from gateway.fastlane import FastClient, possible
from gateway.lane import Lane
from gateway.proxy import Proxy

Run = Callable[[Any], Any]
KEY = "sk-lane"
OTHERS = {"app": {"hash": "sha256:" + "0" * 64}}
KEYS = {"app": {"hash": "sha256:2accd56f86ee3a31be4fc28a128915946f5bf810d05f20fa5f68c8d5bc432110"}}
WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "upstream-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
GOOD = [{"t": answer(orjson.dumps(WHOLE).decode())}]
pytestmark = pytest.mark.skipif(not possible(), reason="the installed aiohttp serves in the ordinary way")


@dataclass
class Line:
    """A client's connection that stays."""

    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *pieces: bytes) -> None:
        self.writer.writelines(pieces)

    async def reply(self) -> Reply:
        """One whole answer with a length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return read_reply(head + await self.reader.readexactly(length))

    async def asks(self, body: bytes, **headers: str) -> Reply:
        self.send(self.request(body, **headers))
        return await self.reply()

    def request(self, body: bytes, **headers: str) -> bytes:
        lines: Mapping[str, str] = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + body


def body(text: str = "Hello!", **more: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more})


class Seen(Lane):
    """The lane of the gateway that was made last: nothing leads to it from outside."""

    last: Lane

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy)
        Seen.last = self


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.serving.Lane", Seen)


def rides() -> int:
    """How many requests have taken the lane."""
    return Seen.last.rides


@asynccontextmanager
async def lane(folder: Path, upstream: ScriptedUpstream, **options: Any) -> AsyncIterator[tuple[Live, Line]]:
    """A gateway whose lane knows the head of this connection's requests: the first has taught it."""
    content = {"keys": KEYS, **options.pop("content", {})}
    async with gateway_before(folder, upstream.url, content=content, **options) as live:
        line = Line(live.port, *await asyncio.open_connection("127.0.0.1", live.port))
        assert (await line.asks(body())).status == 200
        assert rides() == 0
        yield live, line
        line.writer.close()


def driven(run: Run, folder: Path, act: Callable[[Live, Line], Awaitable[None]], *scripts: Any, **options: Any) -> Any:
    """Run `act` behind a first good answer; returns the requests that the provider saw after it."""

    async def main() -> list[bytes]:
        async with (
            ScriptedUpstream(GOOD, *scripts, GOOD) as upstream,
            lane(folder, upstream, **options) as (live, line),
        ):
            await act(live, line)
            return upstream.requests[1:]

    return run(main())


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


def test_what_differs_from_head_to_head_arrives_where_it_belongs(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        for number in range(3):
            reply = await line.asks(body(), x_request_id=f"mine-{number}", idempotency_key=f"key-{number}")
            assert reply.headers["x-request-id"] == f"mine-{number}"
        assert rides() == 3
        assert (await line.asks(body(), x_request_id="not sane!")).headers["x-request-id"].startswith("req_")

    seen = driven(run, tmp_path, act)
    assert [b"idempotency-key: key-%d\r\n" % number in seen[number] for number in range(3)] == [True] * 3
    assert b"idempotency-key" not in seen[3]


@pytest.mark.parametrize("key", ['"8e03978e-40d5-43dd"', "two words", "k" * 200])
def test_a_key_in_another_form_is_never_lost(run: Run, tmp_path: Path, key: str) -> None:
    async def act(live: Live, line: Line) -> None:
        for _ in range(3):
            assert (await line.asks(body(), idempotency_key=key)).status == 200
        assert rides() == 0

    assert all(b"idempotency-key: " + key.encode() + b"\r\n" in seen for seen in driven(run, tmp_path, act))


def test_a_head_that_no_provider_can_be_sent_is_answered_each_time(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        odd = line.request(body("x")).replace(b"Content-Type", "X-Odd: a€b\r\nContent-Type".encode())
        for _ in range(2):
            line.send(odd * 2)
            assert [(await line.reply()).status for _ in range(2)] == [200, 200]

    driven(run, tmp_path, act)


def test_heads_that_always_differ_and_large_ones_are_not_kept(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        for number in range(20):
            assert (await line.asks(body(), cf_ray=f"{number}")).status == 200
        for _ in range(2):
            other = Line(live.port, *await asyncio.open_connection("127.0.0.1", live.port))
            assert (await other.asks(body(), x_large="x" * 8100, x_more="x" * 8100)).status == 200
        assert rides() == 0
        assert (await line.asks(body())).status == 200
        assert rides() == 1

    driven(run, tmp_path, act)


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


def test_another_key_is_not_let_in_by_a_head_that_is_almost_known(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        assert (await line.asks(body())).status == 200
        for header in (f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer sk-other", ""):
            other = Line(live.port, *await asyncio.open_connection("127.0.0.1", live.port))
            assert (await other.asks(body(), Authorization=header)).status == 401
            other.writer.close()
        assert rides() == 1

    driven(run, tmp_path, act)


def test_a_refused_head_is_not_let_in_behind_one_that_was(run: Run, tmp_path: Path) -> None:
    """On one connection, in every order and in every way that a request can take."""

    async def act(live: Live, line: Line) -> None:
        for way in range(4):
            line = Line(live.port, *await asyncio.open_connection("127.0.0.1", live.port))
            assert (await line.asks(body(), Authorization="Bearer sk-bad")).status == 401
            if way == 0:
                assert (await line.asks(body())).status == 200
            elif way == 1:
                assert (await line.asks(body(), x_odd="1")).status == 200
            elif way == 2:
                assert (await line.asks(body(), tracestate="a=b")).status == 200
            else:
                line.send(line.request(body()) * 2)
                assert [(await line.reply()).status for _ in range(2)] == [200, 200]
            for _ in range(2):
                assert (await line.asks(body(), Authorization="Bearer sk-bad")).status == 401
                line = Line(live.port, *await asyncio.open_connection("127.0.0.1", live.port))

    driven(run, tmp_path, act)


def test_a_key_that_was_refused_is_refused_again_without_a_second_look(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        first = await line.asks(body(), Authorization="Bearer sk-bad")
        again = await line.asks(body("Something else"), Authorization="Bearer sk-bad", x_request_id="mine")
        assert rides() == 1
        assert (first.status, again.status) == (401, 401)
        assert again.body == first.body
        assert again.headers == {**first.headers, "x-request-id": "mine"}
        assert (await line.asks(body())).status == 200
        [_, *refused, _] = await live.logged(4)
        for record in refused:
            assert (record["status"], record["code"], record["key"]) == (401, "invalid_api_key", "")
        assert refused[0].keys() == refused[1].keys()

    assert len(driven(run, tmp_path, act)) == 1


def test_a_refused_key_is_let_in_when_a_reload_brings_it(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        for _ in range(2):
            assert (await line.asks(body())).status == 401
        assert rides() == 1
        await with_keys(live, KEYS)
        assert (await line.asks(body())).status == 200

    async def main() -> None:
        async with (
            ScriptedUpstream(GOOD) as upstream,
            gateway_before(tmp_path, upstream.url, content={"keys": OTHERS}) as live,
        ):
            line = Line(live.port, *await asyncio.open_connection("127.0.0.1", live.port))
            await act(live, line)
            line.writer.close()

    run(main())


def test_strangers_do_not_drive_out_the_heads_of_those_who_were_let_in(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.lane.MOST_HEADS", 2)

    async def act(live: Live, line: Line) -> None:
        for number in range(5):
            assert (await line.asks(body(), Authorization=f"Bearer sk-bad-{number}")).status == 401
        assert (await line.asks(body())).status == 200
        assert rides() == 1

    driven(run, tmp_path, act)


def test_no_body_is_held_for_a_stranger(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        raw = line.request(body(), Authorization="Bearer sk-bad")
        line.send(raw)
        assert (await line.reply()).status == 401
        line.send(raw[:-5])
        refused = await line.reply()
        assert (refused.status, refused.headers["connection"]) == (401, "close")
        assert rides() == 0

    driven(run, tmp_path, act)


def test_a_head_in_an_odd_form_is_read_by_the_parser_each_time(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        odd = line.request(body()).replace(b"Content-Type: ", b"Content-Type:   ")
        for _ in range(3):
            line.send(odd)
            assert (await line.reply()).status == 200
        assert rides() == 0

    assert len(driven(run, tmp_path, act)) == 3


async def with_keys(live: Live, keys: Any) -> None:
    """Reload with other keys."""
    changed = orjson.loads(live.path.read_bytes())
    changed["keys"] = keys
    live.path.write_bytes(orjson.dumps(changed))
    before = Seen.last.proxy.snapshot
    live.signal(1)
    async with asyncio.timeout(10):
        while Seen.last.proxy.snapshot is before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nothing here tells of a reload


def test_a_reload_forgets_what_was_known(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        assert (await line.asks(body())).status == 200
        await with_keys(live, OTHERS)
        assert (await line.asks(body())).status == 401
        assert rides() == 1

    driven(run, tmp_path, act)


def test_what_was_let_in_before_a_reload_is_not_learned_after_it(run: Run, tmp_path: Path) -> None:
    async def act(live: Live, line: Line) -> None:
        raw = line.request(body(), x_odd="1")
        line.send(raw[:-5])
        await asyncio.sleep(0.1)  # it is let in, and its body is waited for
        await with_keys(live, OTHERS)
        line.send(raw[-5:])
        assert (await line.reply()).status == 200
        for _ in range(2):
            assert (await line.asks(body(), x_odd="1")).status == 401

    driven(run, tmp_path, act)


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


def test_heads_that_ask_for_more_are_left_to_the_parser(run: Run, tmp_path: Path) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def act(live: Live, line: Line) -> None:
        for _ in range(3):
            assert (await line.asks(body(), traceparent=trace)).status == 200
        raw = line.request(b"", Content_Length="", Transfer_Encoding="chunked")
        for _ in range(3):
            line.send(raw, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body()), body()))
            assert (await line.reply()).status == 200
        # Who has sent chunks once is the parser's for good: where they end is its to know.
        assert (await line.asks(body())).status == 200
        assert rides() == 0

    assert len(driven(run, tmp_path, act)) == 7
