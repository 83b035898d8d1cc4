"""gateway.upstream.connection: one exchange after the other, and what makes a connection unfit for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from upstreams import OK_BODY, ScriptedUpstream, Step

from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError, UpstreamReset
from gateway.upstream import Endpoint
from gateway.upstream.connection import IDLE, Connection, patience
from gateway.upstream.names import Resolver
from tests.gateway.upstream.support import BODY, Noted, endpoint, head

Run = Callable[[Any], Any]
OK: Step = {"t": "{{OK}}"}


async def exchanged(place: Endpoint, connection: Connection, body: bytes = BODY) -> Noted:
    noted = Noted()
    connection.send(head(place, length=len(body)), body, noted)
    async with asyncio.timeout(10):
        await noted.ended.wait()
    return noted


def outcome(run: Run, *steps: Step) -> tuple[Noted, bool]:
    """What one answer came to, and whether the connection serves again."""

    async def main() -> tuple[Noted, bool]:
        async with ScriptedUpstream(steps) as upstream:
            place = endpoint(upstream)
            noted = await exchanged(place, await place.connect(5))
            return noted, place.idle() is not None

    return run(main())


def test_a_good_answer_leaves_the_connection_to_the_next(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK]) as upstream:
            place = endpoint(upstream)
            first = await place.connect(5)
            for count in (1, 2, 3):
                noted = await exchanged(place, first)
                assert (noted.status, noted.body, noted.failure) == (200, OK_BODY.encode(), None)
                assert first.answered
                assert first.used == count
                assert place.idle() is first
            assert len(upstream.connections) == 1

    run(main())


@pytest.mark.parametrize(
    ("steps", "status", "body"),
    [
        ([{"t": "HTTP/1.1 200 OK\r\n\r\nuntil"}, {"t": " close"}, {"fin": True}], 200, b"until close"),
        ([{"t": "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"}, {"stall": True}], 200, b"ok"),
        ([{"t": "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"}, {"stall": True}], 200, b"ok"),
        ([{"t": "{{OK}}HTTP/1.1 200 OK\r\n"}, {"stall": True}], 200, OK_BODY.encode()),
        ([{"t": "{{OK}}x"}, {"stall": True}], 200, OK_BODY.encode()),
    ],
)
def test_a_good_answer_may_be_a_connections_last(run: Run, steps: list[Step], status: int, body: bytes) -> None:
    noted, again = outcome(run, *steps)
    assert (noted.status, noted.body, noted.failure) == (status, body, None)
    assert not again


@pytest.mark.parametrize(
    ("steps", "failure"),
    [
        ([{"fin": True}], UpstreamReset),
        ([{"rst": True}], UpstreamReset),
        ([{"t": "HTTP/1.1 200 OK\r\nContent"}, {"fin": True}], UpstreamReset),
        ([{"t": "junk\r\n\r\n"}, {"stall": True}], BadUpstreamResponse),
        ([{"t": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12"}, {"fin": True}], Truncated),
        ([{"t": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12"}, {"sleep": 0.02}, {"rst": True}], Truncated),
        ([{"t": "{{SSE}}"}, {"chunk": "{{D1}}"}, {"fin": True}], Truncated),
        ([{"t": "HTTP/1.1 200 OK\r\n\r\nhalf"}, {"sleep": 0.02}, {"rst": True}], Truncated),
        (
            [{"t": "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n"}, {"x": "1f8b"}],
            Truncated,
        ),
        (
            [{"t": "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"}, {"x": "1f8b"}, {"fin": True}],
            Truncated,
        ),
    ],
)
def test_a_bad_answer_costs_the_connection(run: Run, steps: list[Step], failure: type[UpstreamError]) -> None:
    noted, again = outcome(run, *steps)
    assert type(noted.failure) is failure
    if failure is not Truncated or "Encoding" not in str(steps):
        assert not again


def test_bytes_that_nobody_asked_for_close_an_idle_connection(run: Run, until: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with ScriptedUpstream([OK, {"wait": more}, OK]) as upstream:
            place = endpoint(upstream)
            connection = await place.connect(5)
            await exchanged(place, connection)
            more.set()
            await until(lambda: connection.closed)
            assert place.idle() is None
            await until(lambda: place.connections == 0)

    run(main())


def test_a_closed_idle_connection_is_forgotten(run: Run, until: Any) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK, {"fin": True}]) as upstream:
            place = endpoint(upstream)
            connection = await place.connect(5)
            await exchanged(place, connection)
            await until(lambda: connection.closed)
            assert place.idle() is None
            assert place.connections == 0

    run(main())


def test_large_bodies_arrive_whole(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK]) as upstream:
            place = endpoint(upstream)
            body = b'"' + b"x" * 3_000_000 + b'"'
            assert (await exchanged(place, await place.connect(5), body)).status == 200
            assert upstream.requests[0].endswith(body)

    run(main())


def test_an_aborted_exchange_tells_nobody_and_closes_at_once(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([{"t": "{{SSE}}"}, {"chunk": "{{D1}}"}, {"stall": True}]) as upstream:
            place = endpoint(upstream)
            connection, noted = await place.connect(5), Noted()
            noted.on_data = connection.abort
            connection.send(head(place), BODY, noted)
            await upstream.request_count(1)
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)
            assert connection.closed
            assert not noted.ended.is_set()
            assert noted.pieces == 1

    run(main())


def test_an_answer_that_was_let_go_comes_to_its_end_for_the_pool(run: Run, until: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()
        script: list[Step] = [{"t": "{{SSE}}"}, {"chunk": "{{DONE}}"}, {"wait": more}, {"chunk": "x"}, {"end": True}]
        async with ScriptedUpstream(script) as upstream:
            place = endpoint(upstream)
            connection, noted = await place.connect(5), Noted()
            noted.on_data = connection.let_go
            connection.send(head(place), BODY, noted)
            await until(lambda: noted.pieces == 1)
            assert connection.unwanted
            assert place.idle() is None
            more.set()
            await until(lambda: place.idle() is connection)
            assert not connection.unwanted
            assert (noted.pieces, noted.ended.is_set()) == (1, False)
            connection.let_go()
            assert not connection.unwanted

    run(main())


@pytest.mark.parametrize("last", [{"fin": True}, {"t": "junk"}])
def test_an_answer_that_was_let_go_may_break_without_a_word(run: Run, until: Any, last: Step) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with ScriptedUpstream([{"t": "{{SSE}}"}, {"chunk": "{{DONE}}"}, {"wait": more}, last]) as upstream:
            place = endpoint(upstream)
            connection, noted = await place.connect(5), Noted()
            noted.on_data = connection.let_go
            connection.send(head(place), BODY, noted)
            await until(lambda: connection.unwanted)
            more.set()
            await until(lambda: connection.closed)
            assert not noted.ended.is_set()
            assert place.idle() is None

    run(main())


def test_a_head_that_comes_after_letting_go_is_read_for_the_pool(run: Run, until: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with ScriptedUpstream([{"wait": more}, OK]) as upstream:
            place = endpoint(upstream)
            connection, noted = await place.connect(5), Noted()
            connection.send(head(place), BODY, noted)
            connection.let_go()
            more.set()
            await until(lambda: place.idle() is connection)
            assert noted.status == 0

    run(main())


def test_a_paused_connection_reads_on_when_its_answer_is_over(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK]) as upstream:
            place = endpoint(upstream)
            connection, noted = await place.connect(5), Noted()
            noted.on_data = connection.transport.pause_reading
            connection.send(head(place), BODY, noted)
            await noted.ended.wait()
            assert place.idle() is connection
            assert (await exchanged(place, connection)).status == 200

    run(main())


def test_a_paused_connection_reads_on_when_it_is_let_go(run: Run, until: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()
        script: list[Step] = [{"t": "{{SSE}}"}, {"chunk": "{{DONE}}"}, {"wait": more}, {"end": True}]
        async with ScriptedUpstream(script) as upstream:
            place = endpoint(upstream)
            connection, noted = await place.connect(5), Noted()

            def pause_and_leave() -> None:
                connection.transport.pause_reading()
                connection.let_go()

            noted.on_data = pause_and_leave
            connection.send(head(place), BODY, noted)
            await until(lambda: connection.unwanted)
            more.set()
            await until(lambda: place.idle() is connection)

    run(main())


def test_a_connection_whose_request_is_not_yet_taken_is_not_used_again(run: Run) -> None:
    async def main() -> None:
        script: list[Step] = [{"t": "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"}, {"stall": True}]
        loop = asyncio.get_running_loop()
        peers: list[asyncio.Transport] = []

        class Early(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                peers.append(transport)
                transport.pause_reading()
                transport.write(str(script[0]["t"]).encode())

        server = await loop.create_server(Early, "127.0.0.1", 0)
        async with server:
            place = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {}, Resolver(), None)
            connection = await place.connect(5)
            noted = await exchanged(place, connection, b"x" * 20_000_000)
            assert noted.status == 413
            assert place.idle() is None
            assert connection.closed
            connection.transport.abort()
            # It does not read, hence does not notice; from Python 3.12 on the server waits for it.
            peers[0].abort()

    run(main())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Keep-Alive: timeout=5", 4),
        ("keep-alive: max=100, timeout = 5", 4),
        ('Keep-Alive: timeout="7"', 6),
        ("Keep-Alive: timeout=3600", IDLE),
        ("Keep-Alive: timeout=0", -1),
        ("Keep-Alive: max=5", IDLE),
        ("Keep-Alive: timeout=x", IDLE),
        ("Keep-Alive: xtimeout=5", IDLE),
        ("X: y\r\nConnection: keep-alive", IDLE),
        ("X-Keep-Alive: timeout=5", IDLE),
    ],
)
def test_a_connection_waits_less_long_than_the_provider_says(header: str, seconds: float) -> None:
    assert patience(f"HTTP/1.1 200 OK\r\n{header}".encode()) == seconds
