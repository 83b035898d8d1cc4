"""gateway.lane: the heads that it learns, those that it must never take for another, and keys that were refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import Live
from upstreams import ScriptedUpstream

from gateway.fastlane import possible
from tests.gateway.riding import GOOD, KEY, KEYS, Line, Run, Seen, body, driven, lane, rides

pytestmark = pytest.mark.skipif(not possible(), reason="the installed aiohttp serves in the ordinary way")

OTHERS = {"app": {"hash": "sha256:" + "0" * 64}}


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
        async with ScriptedUpstream(GOOD) as upstream, lane(tmp_path, upstream.url, OTHERS) as (live, line):
            await act(live, line)

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
