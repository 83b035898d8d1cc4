"""Clients and providers that speak HTTP as it was, or use what is rarely used of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import HELLO, Live, Reply, Talk, gateway_before, request_bytes
from upstreams import OK_BODY, SSE_HEAD, ScriptedUpstream, Step

Run = Callable[[Any], Any]
OK: list[Step] = [{"t": "{{OK}}"}]
ASK = {"model": "m", "messages": HELLO}
EVENTS = "{{D1}}{{D2}}{{D3}}{{FIN}}{{DONE}}"
JSON = "Content-Type: application/json\r\nContent-Length: {{OKLEN}}\r\n"
STREAM_10 = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def old(live: Live, body: dict[str, Any], **headers: str) -> bytes:
    """A request of an HTTP/1.0 client, which says nothing of the connection."""
    made = request_bytes(live.port, "/v1/chat/completions", orjson.dumps(body), {"Connection": "", **headers})
    return made.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)


async def talk_to(live: Live) -> Talk:
    return Talk(*await asyncio.open_connection("127.0.0.1", live.port))


@pytest.mark.parametrize("asked", ["", "close", "keep-alive"])
def test_an_http_1_0_clients_connection_closes_behind_the_answer(served: Run, tmp_path: Path, asked: str) -> None:
    async def main() -> list[Reply]:
        async with ScriptedUpstream(OK) as upstream, gateway_before(tmp_path, upstream.url) as live:
            return [await at_once(live, body, asked) for body in (ASK, ASK, {"model": "unknown"})]

    async def at_once(live: Live, body: dict[str, Any], asked: str) -> Reply:
        talk = await talk_to(live)
        talk.writer.write(old(live, body, Connection=asked))
        async with asyncio.timeout(10):
            return await talk.rest()

    *replies, refusal = served(main())
    for reply in replies:
        assert (reply.status, reply.body, reply.complete) == (200, OK_BODY.encode(), True)
        assert "transfer-encoding" not in reply.headers
        assert reply.headers["connection"].lower() == "close"
    assert refusal.status in {400, 404}
    assert refusal.headers["connection"].lower() == "close"


def test_an_http_1_0_clients_stream_ends_with_its_connection_whatever_it_asked_for(served: Run, tmp_path: Path) -> None:
    async def main() -> Reply:
        script: list[Step] = [{"t": "{{SSE}}"}, {"chunk": EVENTS}, {"end": True}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            talk = await talk_to(live)
            talk.writer.write(old(live, {**ASK, "stream": True}, Connection="keep-alive"))
            async with asyncio.timeout(10):
                return await talk.rest()

    reply = served(main())
    assert reply.text() == "Hello"
    assert reply.done
    assert "transfer-encoding" not in reply.headers
    assert reply.headers.get("connection", "close").lower() == "close"


@pytest.mark.parametrize(
    "script",
    [
        [{"t": STREAM_10}, {"t": EVENTS}, {"fin": True}],
        [{"t": STREAM_10.replace("1.0", "1.1")}, {"t": EVENTS}, {"fin": True}],
        [{"t": STREAM_10.replace("1.0", "1.1").replace("OK", "OK\r\nConnection: close")}, {"t": EVENTS}, {"fin": True}],
        [{"t": "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{{SSE}}"}, {"chunk": EVENTS}, {"end": True}],
        [{"t": "{{SSE}}"}, {"chunk": EVENTS}, {"t": "0\r\nX-Checksum: 1\r\nX-Request-ID: 2\r\n\r\n"}],
        [{"t": f"HTTP/1.1 200 OK\r\nX-A: {'a' * 40_000}\r\n{SSE_HEAD[17:]}"}, {"chunk": EVENTS}, {"end": True}],
    ],
    ids=["http-1.0", "until-close", "connection-close", "interim", "trailers", "large-head"],
)
def test_a_stream_is_whole_however_its_provider_frames_it(served: Run, tmp_path: Path, script: Sequence[Step]) -> None:
    async def main() -> Reply:
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            return await live.chat("m", stream=True)

    reply = served(main())
    assert (reply.status, reply.text(), reply.done, reply.complete) == (200, "Hello", True, True)
    assert "x-checksum" not in reply.headers
    assert "x-a" not in reply.headers


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_until_the_close_that_lacks_its_end_looks_broken(served: Run, tmp_path: Path, version: str) -> None:
    async def main() -> Reply:
        script: list[Step] = [{"t": STREAM_10.replace("1.0", version)}, {"t": "{{D1}}{{D2}}"}, {"fin": True}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            return await live.chat("m", stream=True)

    reply = served(main())
    assert (reply.status, reply.done, reply.complete) == (200, False, False)
    assert b'"code":"upstream_truncated"' in reply.body


def test_an_http_1_0_provider_gets_a_connection_for_each_request_unless_it_keeps_it(
    served: Run, tmp_path: Path
) -> None:
    kept = f"HTTP/1.0 200 OK\r\n{JSON}Connection: keep-alive\r\n\r\n"

    async def main(head: str, *rest: Step) -> int:
        script: list[Step] = [{"t": head + "{{OKBODY}}"}, *rest]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            for _ in range(3):
                reply = await live.chat("m")
                assert (reply.status, reply.body) == (200, OK_BODY.encode())
            return len(upstream.connections)

    assert served(main(kept)) == 1
    assert served(main(kept.replace("Connection: keep-alive\r\n", ""))) == 3
    assert served(main("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n", {"fin": True})) == 3


def test_a_provider_that_waits_a_second_only_gets_each_request_on_a_new_connection(served: Run, tmp_path: Path) -> None:
    said = f"HTTP/1.1 200 OK\r\n{JSON}Keep-Alive: timeout=1\r\n\r\n"

    async def main() -> int:
        script: list[Step] = [{"t": said + "{{OKBODY}}"}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            for _ in range(2):
                assert (await live.chat("m")).status == 200
            return len(upstream.connections)

    # One second less than one second: never again.
    assert served(main()) == 2
