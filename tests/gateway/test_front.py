"""gateway.front: what a client may send, how much of it, and how slowly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import HELLO, Live, Reply, gateway_and_demo, read_reply

Run = Callable[[Any], Any]
BODY = orjson.dumps({"model": "openai", "messages": HELLO})


async def raw(live: Live, data: bytes) -> Reply:
    """The answer to exactly these bytes; `PORT` stands for the gateway's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
    writer.write(data.replace(b"PORT", str(live.port).encode()))
    got = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return read_reply(got)


def sent(run: Run, folder: Path, data: bytes, **server: Any) -> tuple[Reply, int]:
    """The answer, and how many requests reached a provider."""

    async def main() -> tuple[Reply, int]:
        async with gateway_and_demo(folder, server=server) as (live, demo):
            return await raw(live, data), demo.served

    result: tuple[Reply, int] = run(main())
    return result


def post(*lines: str, body: bytes = b"") -> bytes:
    """A chat request with these header lines besides the usual ones."""
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1:PORT", "Content-Type: application/json", *lines]
    return "\r\n".join((*head, "Connection: close", "", "")).encode() + body


def chunked(data: bytes, size: int = 16) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_body_by_length_and_a_body_in_chunks_are_the_same(run: Run, tmp_path: Path) -> None:
    for data in (
        post(f"Content-Length: {len(BODY)}", body=BODY),
        post("Transfer-Encoding: chunked", body=chunked(BODY)),
        post("Transfer-Encoding: chunked", body=chunked(BODY, 1)),
    ):
        reply, count = sent(run, tmp_path, data)
        assert (reply.status, count) == (200, 1)


def test_a_body_that_says_to_be_too_large_is_refused_unread(run: Run, tmp_path: Path) -> None:
    reply, count = sent(run, tmp_path, post("Content-Length: 1048577"), max_body="1MiB")
    assert (reply.status, reply.error["code"], count) == (413, "request_too_large", 0)
    assert reply.headers["connection"] == "close"


def test_a_body_that_grows_too_large_is_refused_while_it_is_read(run: Run, tmp_path: Path) -> None:
    data = post("Transfer-Encoding: chunked", body=chunked(b" " * 200_000, 50_000))
    reply, count = sent(run, tmp_path, data, max_body="128KiB")
    assert (reply.status, reply.error["code"], count) == (413, "request_too_large", 0)


def test_bodies_together_may_be_too_large_for_the_process(run: Run, tmp_path: Path) -> None:
    body = b'{"model":"openai","messages":[' + b" " * 600_000

    async def main() -> tuple[Reply, Reply]:
        async with gateway_and_demo(tmp_path, server={"max_buffered": "1MiB", "max_body": "1MiB"}) as (live, _):
            _, waiting = await asyncio.open_connection("127.0.0.1", live.port)
            waiting.write(post("Content-Length: 700000", body=body).replace(b"PORT", str(live.port).encode()))
            reply = None
            while reply is None or reply.status == 400:
                reply = await live.post(body)
            waiting.transport.abort()
            after = reply
            while after.status == 503:
                after = await live.post(body)
            return reply, after

    full, after = run(main())
    assert (full.status, full.error["code"], full.headers["retry-after"]) == (503, "overloaded", "1")
    assert after.error["code"] == "invalid_json"


def test_a_client_that_expects_to_be_asked_is_asked(run: Run, tmp_path: Path) -> None:
    async def main() -> tuple[bytes, Reply]:
        async with gateway_and_demo(tmp_path) as (live, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            head = post(f"Content-Length: {len(BODY)}", "Expect: 100-continue")
            writer.write(head.replace(b"PORT", str(live.port).encode()))
            asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(BODY)
            reply = read_reply(await reader.read())
            writer.close()
            return asked, reply

    asked, reply = run(main())
    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert reply.status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (post("Content-Length: 2", "Content-Length: 3", body=b"{}"), 400),
        (post("Content-Length: 2", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
        (post("Content-Length: -1"), 400),
        (post("Content-Length: 2", "Authorization: Bearer a", "Authorization: Bearer b", body=b"{}"), 400),
        (post("Content-Length: 2", "Content-Encoding: gzip", body=b"{}"), 415),
        (post("Content-Length: 2", "Expect: magic", body=b"{}"), 417),
        (post("X-Long: " + "x" * 9000, "Content-Length: 2", body=b"{}"), 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_what_is_no_sound_request_is_refused_in_our_shape_and_the_connection_closed(
    run: Run, tmp_path: Path, data: bytes, status: int
) -> None:
    reply, count = sent(run, tmp_path, data)
    assert (reply.status, count) == (status, 0)
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.headers["connection"] == "close"


class Clock:
    """The loop of the `run` fixture, put forward while something is awaited."""

    def __init__(self) -> None:
        self._loop: Any = asyncio.get_running_loop()

    async def until_closed(self, reader: asyncio.StreamReader, seconds: float) -> bytes:
        reading = asyncio.ensure_future(reader.read())
        while not reading.done():
            self._loop.advance(seconds)
            for _ in range(5):
                await asyncio.sleep(0)
        return reading.result()


@pytest.mark.parametrize("begun", [b"", b"POST /v1/chat", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_head_that_does_not_arrive_in_time_is_a_408(run: Run, tmp_path: Path, begun: bytes) -> None:
    async def main() -> bytes:
        async with gateway_and_demo(tmp_path, server={"header_timeout": "5s"}) as (live, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            writer.write(begun)
            got = await Clock().until_closed(reader, 1)
            writer.close()
            return got

    reply = read_reply(run(main()))
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")


def test_a_body_that_does_not_arrive_in_time_is_a_408(run: Run, tmp_path: Path) -> None:
    async def main() -> bytes:
        async with gateway_and_demo(tmp_path, server={"body_timeout": "5s"}) as (live, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            writer.write(post("Content-Length: 100", body=b'{"model"').replace(b"PORT", str(live.port).encode()))
            got = await Clock().until_closed(reader, 1)
            writer.close()
            return got

    reply = read_reply(run(main()))
    assert (reply.status, reply.error["code"]) == (408, "request_timeout")


def test_one_connection_too_many_is_told_so(run: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, int]:
        async with gateway_and_demo(tmp_path, server={"max_connections": 3}) as (live, _):
            idle = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(3)]
            first = await raw(live, post("Content-Length: 2", body=b"{}"))
            for _, writer in idle:
                writer.transport.abort()
            after = first
            while after.status == 503:
                after = await raw(live, post("Content-Length: 2", body=b"{}"))
            return first, after.status

    refused, after = run(main())
    assert (refused.status, refused.error["code"], after) == (503, "overloaded", 400)
