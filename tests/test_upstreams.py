"""tests.upstreams: the scripted server does what its steps say, so that failures seen elsewhere are the gateway's."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from upstreams import OK_BODY, SSE_HEAD, ScriptedUpstream, Step, certificates

Run = Callable[[Any], Any]
POST = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"


async def exchange(upstream: ScriptedUpstream, request: bytes = POST) -> bytes:
    """All that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


def answer_to(run: Run, *steps: Step, request: bytes = POST) -> bytes:
    async def main() -> bytes:
        async with ScriptedUpstream(steps) as upstream:
            return await exchange(upstream, request)

    return run(main())


def test_text_chunks_and_names_come_as_written(run: Run) -> None:
    got = answer_to(run, {"t": "{{SSE}}"}, {"chunk": "data: é\n\n"}, {"end": True}, {"fin": True})
    assert got == SSE_HEAD.encode() + b"9\r\ndata: \xe9\n\n\r\n0\r\n\r\n"


def test_hex_repeats_and_drips_add_up(run: Run) -> None:
    got = answer_to(
        run,
        {"x": "00ff"},
        {"rep": {"t": "ab", "n": 100_000}},
        {"rep": {"chunk": "z", "n": 2}},
        {"drip": {"t": "xyz", "every": 0}},
        {"fin": True},
    )
    assert got == b"\x00\xff" + b"ab" * 100_000 + b"1\r\nz\r\n" * 2 + b"xyz"


def test_a_reset_is_a_reset(run: Run) -> None:
    with pytest.raises(ConnectionResetError):
        answer_to(run, {"t": "HTTP/1.1 200 OK\r\n"}, {"rst": True})


def test_gzip_answers_unpack(run: Run) -> None:
    head, _, body = answer_to(run, {"gzip_ok": True}, {"fin": True}).partition(b"\r\n\r\n")
    assert json.loads(gzip.decompress(body)) == json.loads(OK_BODY)
    assert head.lower().count(b"content-length") == 1


def test_a_gzip_bomb_unpacks_to_its_size(run: Run) -> None:
    async def main() -> int:
        async with (
            ScriptedUpstream([{"gzip_bomb": {"mib": 2}}]) as upstream,
            aiohttp.ClientSession() as session,
            session.post(upstream.url, data=b"{}") as response,
        ):
            return len(await response.read())

    assert run(main()) == 2 * 1024 * 1024


def test_each_request_has_its_script_and_the_last_one_stays(run: Run) -> None:
    async def main() -> tuple[list[int], int, int]:
        async with ScriptedUpstream(
            [{"t": "{{OK}}"}], [{"t": "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"}]
        ) as upstream:
            async with aiohttp.ClientSession() as session:
                statuses = [(await session.post(upstream.url, data=b"{}")).status for _ in range(3)]
            return statuses, len(upstream.requests), len(upstream.connections)

    assert run(main()) == ([200, 500, 500], 3, 1)


def test_requests_are_recorded_byte_for_byte(run: Run) -> None:
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"

    async def main() -> list[bytes]:
        async with ScriptedUpstream([], [], [{"fin": True}]) as upstream:
            await exchange(upstream, chunked + POST + b"GET / HTTP/1.1\r\n\r\n")
            return upstream.requests

    assert run(main()) == [chunked, POST, b"GET / HTTP/1.1\r\n\r\n"]


def test_a_peer_that_goes_is_noticed_during_a_stall(run: Run) -> None:
    async def main() -> bool:
        async with ScriptedUpstream([{"stall": True}]) as upstream:
            _, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
            writer.write(POST)
            await upstream.request_count(1)
            before = upstream.connections[0].closed.is_set()
            writer.close()
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 2)
            return before

    assert run(main()) is False


def test_steps_may_run_before_anything_is_read(run: Run) -> None:
    async def main() -> tuple[bytes, list[bytes]]:
        async with ScriptedUpstream(on_accept=[{"t": "early"}, {"fin": True}]) as upstream:
            return await exchange(upstream, b""), upstream.requests

    assert run(main()) == (b"early", [])


def test_events_order_what_both_sides_do(run: Run) -> None:
    async def main() -> bytes:
        go, gone = asyncio.Event(), asyncio.Event()
        script = [{"t": "a"}, {"set": gone}, {"wait": go}, {"t": "b"}, {"fin": True}]
        async with ScriptedUpstream(script) as upstream:
            reading = asyncio.ensure_future(exchange(upstream))
            await gone.wait()
            assert not reading.done()
            go.set()
            return await reading

    assert run(main()) == b"ab"


@pytest.mark.parametrize(
    ("sort", "error"),
    [
        ("good", None),
        ("wrong_name", aiohttp.ClientConnectorCertificateError),
        ("expired", aiohttp.ClientConnectorCertificateError),
        ("plain", aiohttp.ClientConnectorSSLError),
        ("hang", TimeoutError),
    ],
)
def test_tls_is_good_or_bad_as_asked(run: Run, sort: Any, error: type[Exception] | None) -> None:
    async def main() -> int:
        context = ssl.create_default_context(cafile=certificates().ca_file)
        on_accept: list[Step] = [{"t": "HTTP/1.1 400 Plain\r\n\r\n"}] if sort == "plain" else []
        async with ScriptedUpstream([{"t": "{{OK}}"}], tls=sort, on_accept=on_accept) as upstream:
            timeout = aiohttp.ClientTimeout(total=0.2 if sort == "hang" else 5)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(upstream.url, data=b"{}", ssl=context) as response,
            ):
                return response.status

    if error is None:
        assert run(main()) == 200
    else:
        with pytest.raises(error):
            run(main())
