"""TLS at the front door: served like plain HTTP, and whoever comes without it, or without papers, is told."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import trustme
from lifeprocess import KEY
from livegateway import HELLO, Live, Talk, gateway_and_demo, gateway_before, hashed, read_reply
from openai import AsyncOpenAI
from papers import Papers, ask, chat, plain, request, shown, speak
from upstreams import SSE_HEAD, ScriptedUpstream, chunk, event

Run = Callable[[Any], Any]
FIRST = event(chunk(role="assistant", content="a"))
AT_ONCE = 0.25


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Any:
    """Nothing that clients do with TLS may make the event loop complain."""
    with caplog.at_level(logging.WARNING, "asyncio"):
        yield
    assert [each.getMessage() for each in caplog.records] == []


async def connections(live: Live, count: int) -> None:
    """Wait until the gateway has so many connections."""
    async with asyncio.timeout(10):
        while True:
            page = (await live.get("/metrics", port=live.admin_port)).body.decode()
            if f"sluiceway_connections {count}" in page.replace(".0\n", "\n"):
                return
            await asyncio.sleep(0.02)


async def refusals(live: Live, code: str) -> list[dict[str, Any]]:
    """The lines that tell of refused connections, as soon as one has this code."""
    async with asyncio.timeout(10):
        while True:
            lines = [line for line in live.log() if "refused" in line.get("message", "")]
            if any(line.get("code") == code for line in lines):
                return lines
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_answers_and_streams_are_those_of_plain_http(
    served: Run, tmp_path: Path, papers: Papers, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls()}) as (live, _):
            context = papers.client()
            context.maximum_version = context.minimum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            talk = await ask(live.port, context, "anthropic")
            assert talk.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            whole = await talk.rest()
            assert (whole.status, whole.complete) == (200, True)
            stream = await chat(live.port, context, "anthropic", stream=True)
            assert (stream.status, stream.complete, stream.done) == (200, True, True)
            assert stream.text() == whole.text()

    served(main())


def test_several_requests_and_large_bodies_go_over_one_connection(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls()}) as (live, _):
            large = [{"role": "user", "content": "x" * 3_000_000}]
            talk = await speak(live.port, papers.client())
            for messages in (HELLO, large, HELLO):
                data = request(live.port, "openai", messages=messages)
                talk.writer.write(data.replace(b"Connection: close\r\n", b""))
                head = await talk.reader.readuntil(b"\r\n\r\n")
                body = await talk.reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
                assert read_reply(head + body).json()["choices"]
            talk.leave()

    served(main())


def test_tls_1_1_is_refused(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls()}) as (live, _):
            # A ClientHello of TLS 1.1, which no current client can be brought to send.
            suites = bytes.fromhex("000ac013c014002f003500ff")
            hello = b"\x03\x02" + bytes(32) + b"\x00" + suites + b"\x01\x00"
            shake = b"\x01" + len(hello).to_bytes(3, "big") + hello
            got = await plain(live.port, b"\x16\x03\x01" + len(shake).to_bytes(2, "big") + shake)
            assert got[:1] + got[5:] == bytes((21, 2, 70))  # an alert, fatal: protocol_version
            lines = await refusals(live, "tls_handshake_failed")
            assert lines[0]["why"] == "The TLS handshake failed: unsupported protocol."

    served(main())


def test_plain_http_on_the_port_is_told_so(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls()}) as (live, _):
            reply = read_reply(await plain(live.port, request(live.port, "openai")))
            assert (reply.status, reply.error["code"], reply.headers["connection"]) == (400, "tls_required", "close")
            assert (await chat(live.port, papers.client(), "openai")).status == 200

    served(main())


def test_mutual_tls_lets_in_who_has_a_certificate_and_tells_the_others_why(
    served: Run, tmp_path: Path, papers: Papers
) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls(mutual=True)}) as (live, demo):
            assert (await chat(live.port, papers.client(True), "openai")).status == 200
            strangers = {
                "CERTIFICATE_REQUIRED": papers.client(),
                "UNKNOWN_CA": papers.client(trustme.CA()),
                "CERTIFICATE_EXPIRED": papers.client(True, expired=True),
            }
            for alert, context in strangers.items():
                with pytest.raises(ssl.SSLError, match=alert):
                    await chat(live.port, context, "openai")
            assert demo.served == 1
            lines = await refusals(live, "tls_handshake_failed")
            assert lines[0]["why"] == "The TLS handshake failed: peer did not return a certificate."

    served(main())


def test_a_certificate_is_no_key(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> list[int]:
        content = {"keys": {"k": {"hash": hashed(KEY)}}, "server": {"tls": papers.tls(mutual=True)}}
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            return [(await chat(live.port, papers.client(True), "openai", key)).status for key in ("", "wrong", KEY)]

    assert served(main()) == [401, 401, 200]


def test_a_flood_of_failures_is_two_lines_and_a_number(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls(mutual=True)}) as (live, _):
            for kind in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05nonsense", b"\x00" * 100, b""):
                await asyncio.gather(*(_knock(live.port, kind) for _ in range(50)))
            await connections(live, 0)
            assert len(live.log()) < 12
            page = (await live.get("/metrics", port=live.admin_port)).body.decode()
            (line,) = [each for each in page.splitlines() if each.startswith("sluiceway_connections_refused_total ")]
            assert 100 <= float(line.split()[1]) <= 200
            assert (await chat(live.port, papers.client(True), "openai")).status == 200

    served(main())


async def _knock(port: int, data: bytes) -> None:
    """Send this and go."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if data:
        writer.write(data)
        await reader.read(1)
    writer.close()


@pytest.mark.parametrize("steps", [0, 1])
def test_a_handshake_has_the_time_of_a_head(served: Run, tmp_path: Path, papers: Papers, steps: int) -> None:
    """Who sends nothing, and who shakes hands and then sends nothing, has the same time from the first moment."""

    async def main() -> float:
        server = {"tls": papers.tls(), "header_timeout": "500ms"}
        async with gateway_and_demo(tmp_path, server=server) as (live, _):
            began = time.monotonic()
            context = papers.client() if steps else None
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port, ssl=context)
            got = await asyncio.wait_for(reader.read(), 10)
            took = time.monotonic() - began
            writer.close()
            assert (read_reply(got).status if steps else got) == (408 if steps else b"")
            await refusals(live, "request_timeout")
            await connections(live, 0)
            return took

    assert served(main()) >= 0.45  # the loop's clock has milliseconds


def test_handshakes_count_as_connections(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls(), "max_connections": 2}) as (live, _):
            silent = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(2)]
            await connections(live, 2)
            assert await plain(live.port, b"") == b""  # at once, not after ten seconds
            await refusals(live, "overloaded")
            for _, writer in silent:
                writer.close()
            await connections(live, 0)
            assert (await chat(live.port, papers.client(), "openai")).status == 200

    served(main())


@pytest.mark.parametrize("how", ["reset", "close", "farewell"])
@pytest.mark.parametrize("begun", [False, True])
def test_the_provider_is_left_when_the_client_leaves(
    served: Run, tmp_path: Path, papers: Papers, how: str, begun: bool
) -> None:
    async def main() -> tuple[float, str]:
        asked = asyncio.Event()
        steps = [{"t": SSE_HEAD}, {"chunk": FIRST}] if begun else []
        content = {"server": {"tls": papers.tls()}}
        async with (
            ScriptedUpstream([*steps, {"set": asked}, {"stall": True}]) as upstream,
            gateway_before(tmp_path, upstream.url, content=content) as live,
        ):
            talk = await ask(live.port, papers.client(), "m", stream=True)
            await asked.wait()
            if begun:
                await talk.until(b'"content":"a"')
            left = time.monotonic()
            _leave(talk, how)
            async with asyncio.timeout(5):
                await upstream.connections[0].closed.wait()
            took = time.monotonic() - left
            (line,) = await live.logged(1)
            talk.leave()
            return took, line["code"]

    took, code = served(main())
    assert (code, took < AT_ONCE) == ("client_disconnect", True)


def _leave(talk: Talk, how: str) -> None:
    """Go: without a word, as it should be, or with TLS's farewell while the connection stays open."""
    transport = talk.writer.transport
    if how == "reset":
        transport.abort()
    elif how == "close":
        transport.close()
    else:
        below: socket.socket = transport.get_extra_info("socket")
        spare = socket.fromfd(below.fileno(), below.family, below.type)
        transport.close()
        asyncio.get_running_loop().call_later(3, spare.close)


def test_a_stalled_client_stops_the_provider_until_it_reads_on(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        sent_all = asyncio.Event()
        rest = {"rep": {"chunk": event(chunk(content="x" * 60_000)), "n": 300}}
        script = [{"t": SSE_HEAD}, {"chunk": FIRST}, rest, {"set": sent_all}, {"chunk": "{{DONE}}"}, {"end": True}]
        content = {"server": {"tls": papers.tls()}}
        async with (
            ScriptedUpstream(script) as upstream,
            gateway_before(tmp_path, upstream.url, content=content) as live,
        ):
            talk = await ask(live.port, papers.client(), "m", stream=True)
            await talk.until(b'"content":"a"')
            transport: Any = talk.writer.transport
            transport.pause_reading()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sent_all.wait(), 0.7)
            transport.resume_reading()
            reply = await talk.rest()
            assert (reply.done, reply.complete, len(reply.text())) == (True, True, 1 + 300 * 60_000)

    served(main())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_takes_nothing_is_cut_off(served: Run, tmp_path: Path, papers: Papers, stream: bool) -> None:
    async def main() -> None:
        content = {"server": {"tls": papers.tls(), "write_timeout": "1s"}}
        big = '{"id":"x","object":"chat.completion","choices":[{"message":{"content":"%s"}}]}' % ("x" * 9_000_000)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(big)}\r\n\r\n"
        flood = [{"t": SSE_HEAD}, {"rep": {"chunk": event(chunk(content="x" * 60_000)), "n": 300}}, {"stall": True}]
        async with (
            ScriptedUpstream(flood if stream else [{"t": head + big}]) as upstream,
            gateway_before(tmp_path, upstream.url, content=content) as live,
        ):
            talk = await ask(live.port, papers.client(), "m", stream=stream)
            await talk.until(b"200 OK")
            transport: Any = talk.writer.transport
            transport.pause_reading()
            await connections(live, 0)
            (line,) = await live.logged(1)
            assert line["code"] == ("client_write_timeout" if stream else "ok")
            talk.leave()

    served(main())


def test_a_slow_client_gets_all_of_a_last_answer(served: Run, tmp_path: Path, papers: Papers) -> None:
    """The connection closes after it: what is buffered at that moment must still arrive, however long it takes."""

    async def main() -> None:
        content = {"server": {"tls": papers.tls(), "write_timeout": "1s"}}
        big = '{"id":"x","object":"chat.completion","choices":[{"message":{"content":"%s"}}]}' % ("x" * 12_000_000)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(big)}\r\n\r\n"
        async with (
            ScriptedUpstream([{"t": head + big}]) as upstream,
            gateway_before(tmp_path, upstream.url, content=content) as live,
        ):
            talk = await ask(live.port, papers.client(), "m")
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                talk.seen += await talk.reader.read(200_000)
                await asyncio.sleep(0.05)  # slow, never silent
            reply = await talk.rest()
            assert (reply.complete, len(reply.body)) == (True, len(big))

    served(main())


def test_a_client_that_does_not_answer_the_farewell_is_let_go(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(
            tmp_path, server={"tls": papers.tls(), "keepalive": "100ms", "write_timeout": "500ms"}
        ) as (live, _):
            talk = await ask(live.port, papers.client(), "openai", stream=True)
            await talk.until(b"200 OK")
            transport: Any = talk.writer.transport
            await talk.until(b"[DONE]")
            transport.pause_reading()
            await connections(live, 0)
            talk.leave()

    served(main())


def test_a_stream_may_end_in_a_drain_and_idle_clients_do_not_hold_it_up(
    served: Run, tmp_path: Path, papers: Papers
) -> None:
    async def main() -> None:
        go_on = asyncio.Event()
        script = [
            {"t": SSE_HEAD},
            {"chunk": FIRST},
            {"wait": go_on},
            {"chunk": "{{FIN}}"},
            {"chunk": "{{DONE}}"},
            {"end": True},
        ]
        content = {"server": {"tls": papers.tls(), "drain": "10s"}}
        async with (
            ScriptedUpstream(script) as upstream,
            gateway_before(tmp_path, upstream.url, content=content) as live,
        ):
            assert live.task is not None
            idle = await speak(live.port, papers.client())
            silent: Any = idle.writer.transport
            silent.pause_reading()
            shaking = await asyncio.open_connection("127.0.0.1", live.port)
            talk = await ask(live.port, papers.client(), "m", stream=True)
            await talk.until(b'"content":"a"')
            live.signal()
            await asyncio.sleep(0.05)
            go_on.set()
            reply = await talk.rest()
            assert (reply.done, reply.complete) == (True, True)
            assert await asyncio.wait_for(live.task, 8) == 0
            shaking[1].close()
            idle.leave()

    served(main())


def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    served: Run, tmp_path: Path, papers: Papers
) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls()}) as (live, demo):
            context = papers.client()
            demo.misbehave("stall")
            old = await ask(live.port, context, "openai", stream=True)
            await old.until(b"data: ")
            serial = shown(old)
            fresh = papers.issue()  # noticed without a signal
            await _serves(live, context, fresh)
            assert shown(old) == serial != fresh
            old.writer.write(b" ")
            await old.writer.drain()
            assert not old.reader.at_eof()
            old.leave()

    served(main())


async def _serves(live: Live, context: ssl.SSLContext, serial: int) -> None:
    """Wait until new connections are shown this certificate."""
    async with asyncio.timeout(15):
        while True:
            talk = await speak(live.port, context)
            talk.leave()
            if shown(talk) == serial:
                return
            await asyncio.sleep(0.05)


def test_a_broken_certificate_changes_nothing_until_it_is_mended(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls()}) as (live, _):
            context = papers.client()
            before = shown(await speak(live.port, context))
            (tmp_path / "key.pem").write_text("half a key")
            live.signal(1)
            async with asyncio.timeout(10):
                while not (found := [line for line in live.log() if "serves on" in line.get("message", "")]):  # noqa: ASYNC110 - a file
                    await asyncio.sleep(0.02)
            (finding,) = found[0]["findings"]
            assert "error: server.tls.key: no private key in PEM form" in finding
            page = (await live.get("/metrics", port=live.admin_port)).body.decode()
            assert "sluiceway_config_reload_failed 1" in page
            assert shown(await speak(live.port, context)) == before
            assert (await chat(live.port, context, "openai")).status == 200
            await _serves(live, context, papers.issue())

    served(main())


def test_a_reload_may_begin_to_ask_for_certificates(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls()}) as (live, _):
            assert (await chat(live.port, papers.client(), "openai")).status == 200
            config = json.loads(live.path.read_text())
            config["server"]["tls"] = papers.tls(mutual=True)
            live.path.write_text(json.dumps(config))
            live.signal(1)
            async with asyncio.timeout(10):
                while True:
                    try:
                        await chat(live.port, papers.client(), "openai")
                    except ssl.SSLError:
                        break
                    await asyncio.sleep(0.02)
            assert (await chat(live.port, papers.client(True), "openai")).status == 200

    served(main())


def test_the_official_client_speaks_to_it(served: Run, tmp_path: Path, papers: Papers) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path, server={"tls": papers.tls(mutual=True)}) as (live, _):
            url = f"https://localhost:{live.port}/v1"
            http = openai.DefaultAsyncHttpxClient(verify=papers.client(True))
            async with AsyncOpenAI(base_url=url, api_key="none", http_client=http, max_retries=0, timeout=20) as client:
                messages: Any = HELLO
                whole = await client.chat.completions.create(model="google", messages=messages)
                stream = await client.chat.completions.create(model="google", messages=messages, stream=True)
                said = "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])
                assert said == whole.choices[0].message.content
            async with AsyncOpenAI(
                base_url=url.replace("https", "http"), api_key="none", max_retries=0, timeout=20
            ) as client:
                with pytest.raises(openai.BadRequestError, match="call it by https"):
                    await client.models.list()

    served(main())
