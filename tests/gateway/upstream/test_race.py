"""gateway.upstream.dial: which of several addresses a connection comes to, and how long a dead one holds it up."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
from faults.sockets import filled_queue
from upstreams import OK_BODY, ScriptedUpstream

from gateway.errors import Unreachable
from gateway.upstream import Account
from gateway.upstream.dial import race
from gateway.upstream.names import Address, Resolver
from tests.gateway.upstream.nameservice import Names, family
from tests.gateway.upstream.support import BODY, Noted, head

Run = Callable[[Any], Any]
HOME = "127.0.0.1"


@contextmanager
def sockets_kept() -> Iterator[None]:
    """Within it, as many sockets are closed as are opened."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) <= before


def closing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that closes what it accepts."""
    writer.close()


def addresses(*numbers: str) -> Sequence[Address]:
    return [(family(number), number) for number in numbers]


async def winner(port: int, *numbers: str) -> str:
    sock, taken = await race(addresses(*numbers), port)
    with sock:
        assert sock.getpeername()[:2] == (numbers[taken], port)
    return numbers[taken]


def test_the_first_address_is_taken_when_it_answers(on_either: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream() as upstream, AsyncExitStack() as stack:
            await stack.enter_async_context(await asyncio.start_server(closing, "127.0.0.2", upstream.port))
            assert await winner(upstream.port, HOME) == HOME
            assert await winner(upstream.port, HOME, "127.0.0.2") == HOME
            assert await winner(upstream.port, "127.0.0.2", HOME) == "127.0.0.2"

    on_either(main())


def test_an_address_that_refuses_costs_nothing(on_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.dial.HEAD_START", 60.0)

    async def main() -> None:
        async with ScriptedUpstream() as upstream, asyncio.timeout(30):
            assert await winner(upstream.port, "127.0.0.2", "::1", "127.0.0.3", HOME) == HOME

    on_either(main())


def test_an_address_that_never_answers_costs_less_than_a_second(on_either: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with filled_queue() as port:
            async with await asyncio.start_server(closing, "127.0.0.2", port):
                began = loop.time()
                assert await winner(port, HOME, "127.0.0.2") == "127.0.0.2"
                assert 0.2 < loop.time() - began < 1

    on_either(main())


def test_what_loses_the_race_is_closed(on_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.dial.HEAD_START", 0.0)

    async def main() -> None:
        with filled_queue() as port:
            async with await asyncio.start_server(closing, "127.0.0.2", port):
                await winner(port, "127.0.0.2")
                await asyncio.sleep(0.05)  # accepted connections close
                with sockets_kept():
                    for _ in range(5):
                        await winner(port, HOME, "127.0.0.2", "127.0.0.2", "127.0.0.2")
                    await asyncio.sleep(0.05)  # closing takes a few turns of the loop

    on_either(main())


def test_a_late_address_may_still_win(on_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.dial.HEAD_START", 0.01)

    async def main() -> None:
        with filled_queue() as port:
            # All of them are dead: each runs on until the whole is given up.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await winner(port, HOME, HOME)
            async with await asyncio.start_server(closing, "::1", port):
                assert await winner(port, HOME, HOME, "::1") == "::1"

    on_either(main())


def test_when_no_address_answers_the_last_failure_is_told(on_either: Run) -> None:
    async def main() -> None:
        with socket.create_server((HOME, 0)) as server:
            port = server.getsockname()[1]
        for numbers in ((HOME,), (HOME, "::1", "127.0.0.2")):
            with pytest.raises(ConnectionRefusedError):
                await winner(port, *numbers)
        with pytest.raises(OSError, match="no address"):
            await winner(port)

    on_either(main())


def test_both_families_are_reached_by_one_name(on_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["::1", "127.0.0.1"])

    async def main() -> None:
        async with ScriptedUpstream([{"t": "{{OK}}"}]) as upstream:
            url = f"http://one.test:{upstream.port}/v1"
            place = Account({}, Resolver()).endpoint(url)
            noted = Noted()
            connection = await place.connect(5)
            connection.send(head(place), BODY, noted)
            await asyncio.wait_for(noted.ended.wait(), 10)
            assert noted.body == OK_BODY.encode()
            connection.abort()
            async with await asyncio.start_server(closing, "::1", upstream.port):
                connection = await Account({}, Resolver()).endpoint(url).connect(5)
                assert connection.transport.get_extra_info("peername")[0] == "::1"
                connection.abort()

    on_either(main())


def test_a_dead_address_is_paid_for_once(on_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, [HOME, "127.0.0.2"])

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with filled_queue() as port:
            async with await asyncio.start_server(closing, "127.0.0.2", port):
                place = Account({}, Resolver()).endpoint(f"http://one.test:{port}")
                (await place.connect(5)).abort()
                began = loop.time()
                for _ in range(10):
                    (await place.connect(5)).abort()
                assert loop.time() - began < 10 * 0.25

    on_either(main())


def test_a_name_whose_addresses_all_fail_is_looked_up_again(on_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ["127.0.0.2", "127.0.0.3"], [HOME])

    async def main() -> None:
        async with ScriptedUpstream() as upstream:
            place = Account({}, Resolver()).endpoint(f"http://one.test:{upstream.port}")
            with pytest.raises(Unreachable):
                await place.connect(5)
            (await place.connect(5)).abort()
            assert len(names.asked) == 2

    on_either(main())


def test_connections_given_up_leave_no_socket_behind(on_either: Run) -> None:
    async def main() -> None:
        with filled_queue() as port, sockets_kept():
            tasks = [asyncio.ensure_future(winner(port, HOME, HOME)) for _ in range(20)]
            await asyncio.wait(tasks, timeout=0.05)
            for task in tasks:
                task.cancel()
            assert all(isinstance(each, BaseException) for each in await asyncio.gather(*tasks, return_exceptions=True))
            await asyncio.sleep(0)

    on_either(main())


def test_silent_connections_are_kept_alive_and_small_writes_leave_at_once(on_either: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream() as upstream:
            place = Account({}, Resolver()).endpoint(f"{upstream.url}/v1")
            connection = await place.connect(5)
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            connection.abort()

    on_either(main())
