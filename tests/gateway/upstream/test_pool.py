"""gateway.upstream.pool: which connection is used next, and until when one is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from upstreams import ScriptedUpstream, Step

from gateway.upstream import Account, Endpoint
from gateway.upstream import pool as pool_room
from gateway.upstream.connection import Connection
from gateway.upstream.names import Resolver
from gateway.upstream.pool import IDLE, KNOWN_URLS, MAX_IDLE, lines
from tests.gateway.upstream.support import BODY, Noted, endpoint, fetched, head

Run = Callable[[Any], Any]
OK: Step = {"t": "{{OK}}"}


async def idle(place: Endpoint, count: int) -> list[Connection]:
    """So many connections, put back in this order."""
    connections = [await place.connect(5) for _ in range(count)]
    for connection in connections:
        place.put_back(connection)
    return connections


def test_what_was_used_last_is_used_next(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK]) as upstream:
            place = endpoint(upstream)
            first, second, third = await idle(place, 3)
            assert place.connections == 3
            assert [place.idle(), place.idle(), place.idle(), place.idle()] == [third, second, first, None]

    run(main())


def test_what_was_idle_for_too_long_is_not_used(run: Run, until: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with ScriptedUpstream([OK]) as upstream:
            place = endpoint(upstream)
            (old,) = await idle(place, 1)
            loop.advance(IDLE - 0.5)
            (young,) = await idle(place, 1)
            loop.advance(0.6)
            assert place.idle() is young
            assert place.idle() is None
            assert old.closed
            await until(lambda: place.connections == 1)

    run(main())


def test_a_provider_that_says_how_long_it_waits_is_taken_at_its_word(run: Run, until: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        said: Step = {"t": "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 0\r\n\r\n"}
        async with ScriptedUpstream([said]) as upstream:
            place = endpoint(upstream)
            await fetched(place)
            loop.advance(3.5)
            await fetched(place)
            assert len(upstream.connections) == 1
            loop.advance(4.1)
            await fetched(place)
            assert len(upstream.connections) == 2
            loop.advance(4.1)
            place.trim(loop.time())
            await until(lambda: place.connections == 0)

    run(main())


def test_old_idle_connections_are_trimmed_once_a_second(run: Run, until: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with ScriptedUpstream([OK]) as upstream:
            account = Account({}, Resolver())
            place = account.endpoint(upstream.url + "/v1")
            account.sweep(loop.time())
            old = await idle(place, 3)
            old[0].abort()
            loop.advance(IDLE + 0.1)
            (young,) = await idle(place, 1)
            account.sweep(loop.time())
            assert [each.closed for each in old] == [True, True, True]
            assert not young.closed
            await until(lambda: place.connections == 1)
            loop.advance(IDLE)
            young.idle_since = 0.0
            account.sweep(loop.time() - IDLE + 0.5)
            assert not young.closed
            account.sweep(loop.time())
            assert young.closed

    run(main())


def test_an_answer_that_nobody_wants_may_go_on_for_a_while_only(run: Run, until: Any) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with ScriptedUpstream([{"t": "{{SSE}}"}, {"chunk": "{{DONE}}"}, {"stall": True}]) as upstream:
            place = endpoint(upstream)
            connection, noted = await place.connect(5), Noted()
            noted.on_data = connection.let_go
            connection.send(head(place), BODY, noted)
            await until(lambda: connection.unwanted)
            place.trim(loop.time() + IDLE - 0.1)
            assert not connection.closed
            place.trim(loop.time() + IDLE + 0.1)
            assert connection.closed
            await until(lambda: place.connections == 0)

    run(main())


def test_no_more_than_so_many_are_kept(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK]) as upstream:
            place = endpoint(upstream)
            connections = await idle(place, MAX_IDLE + 1)
            assert connections[-1].closed
            assert place.idle() is connections[-2]

    run(main())


def test_a_retired_endpoint_closes_idle_connections_now_and_others_when_they_end(run: Run, until: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with ScriptedUpstream([{"wait": more}, OK]) as upstream:
            account = Account({}, Resolver())
            place = account.endpoint(upstream.url + "/")
            free, gone = await idle(place, 2)
            gone.abort()
            busy, noted = await place.connect(5), Noted()
            busy.send(head(place), BODY, noted)
            account.retire()
            assert free.closed
            assert not busy.closed
            more.set()
            await noted.ended.wait()
            assert noted.status == 200
            assert busy.closed
            assert place.idle() is None
            assert await fetched(place) == (200, noted.body)
            await until(lambda: place.connections == 0)

    run(main())


def test_an_endpoint_made_after_the_end_of_its_account_keeps_nothing(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK]) as upstream:
            account = Account({}, Resolver())
            account.retire()
            place = account.endpoint(upstream.url + "/")
            await fetched(place)
            assert place.idle() is None

    run(main())


def test_an_account_has_one_endpoint_per_origin() -> None:
    account = Account({}, Resolver())
    first = account.endpoint("http://127.0.0.1:8080/v1/chat?x=http://other/")
    assert account.endpoint("http://127.0.0.1:8080/v2") is first
    assert account.endpoint("http://127.0.0.1:8080") is first
    assert (first.place.host, first.place.port) == ("127.0.0.1", 8080)
    second = account.endpoint("https://p.test/v1")
    assert (second.place.host, second.place.port) == ("p.test", 443)
    third = account.endpoint("http://[::1]/v1")
    assert (third.place.host, third.place.port) == ("::1", 80)
    assert account.endpoints() == [first, second, third]


def test_a_head_holds_host_fixed_headers_own_headers_and_length() -> None:
    account = Account({"user-agent": "s"}, Resolver())
    url = "http://p.test:81/v1/chat?api=1"
    place = account.endpoint(url)
    expected = (
        b"POST /v1/chat?api=1 HTTP/1.1\r\nhost: p.test:81\r\nuser-agent: s\r\nx: \xe9\r\ncontent-length: 5\r\n\r\n"
    )
    assert place.head(url, "POST", {"x": "\u00e9"}, 5) == expected
    assert place.head(url, "POST", {"x": "\u00e9"}, 5) == expected
    assert place.head("http://p.test:81", "POST", {}, 0).startswith(b"POST / HTTP/1.1\r\n")


def test_prepared_heads_are_bounded() -> None:
    place = Account({}, Resolver()).endpoint("http://p.test/")
    for number in range(KNOWN_URLS + 2):
        place.head(f"http://p.test/{number}", "POST", {}, 0)
    assert len(place._heads) <= KNOWN_URLS
    assert place.head("http://p.test/1", "POST", {}, 0).startswith(b"POST /1 ")


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\rb", "\n"])
def test_a_value_cannot_begin_another_line(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        lines({"x": value})


def test_headers_are_lines() -> None:
    assert lines({}) == ""
    assert lines({"a": "1", "b": "2"}) == "a: 1\r\nb: 2\r\n"
    assert pool_room.TRIM_EVERY < IDLE
