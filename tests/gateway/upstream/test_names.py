"""gateway.upstream.names: what is kept of a name service's answers, for how long, and in which order they are used."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import Unreachable
from gateway.upstream.names import DNS_KNOWN, DNS_STALE, DNS_TTL, Address, Resolver, alternating
from tests.gateway.upstream.nameservice import Names

Run = Callable[[Any], Any]
V4 = socket.AF_INET
V6 = socket.AF_INET6
A: Address = (V4, "127.0.0.1")
B: Address = (V4, "127.0.0.2")
C: Address = (V4, "127.0.0.3")
X: Address = (V6, "::1")
Y: Address = (V6, "::2")


def test_an_answer_is_fresh_for_half_a_minute_and_serves_on_while_the_next_is_fetched(
    run: Run, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["127.0.0.1", "127.0.0.1"], ["127.0.0.2"])

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        resolver = Resolver()
        for _ in range(3):
            assert await resolver.resolve("one.test", 1) == [A]
        loop.advance(DNS_TTL - 1)
        assert await resolver.resolve("one.test", 1) == [A]
        assert len(names.asked) == 1
        names.free.clear()
        loop.advance(2)
        for _ in range(3):
            assert await resolver.resolve("one.test", 1) == [A]
        await until(lambda: len(names.asked) == 2)
        names.free.set()
        await until(lambda: not resolver._asked)
        assert await resolver.resolve("one.test", 1) == [B]
        assert len(names.asked) == 2
        resolver.close()

    run(main())


def test_an_answer_that_cannot_be_renewed_serves_for_five_minutes_and_no_longer(
    run: Run, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["127.0.0.1"], socket.gaierror("no"))

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        resolver = Resolver()
        await resolver.resolve("one.test", 1)
        for asked in (2, 3):
            loop.advance(DNS_TTL + DNS_STALE / 4)
            assert await resolver.resolve("one.test", 1) == [A]
            await until(lambda asked=asked: len(names.asked) == asked and not resolver._asked)
        loop.advance(DNS_STALE)
        with pytest.raises(Unreachable):
            await resolver.resolve("one.test", 1)
        resolver.close()

    run(main())


def test_many_who_ask_at_once_ask_once_and_one_who_gives_up_spoils_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["127.0.0.1"])
    names.free.clear()

    async def main() -> None:
        resolver = Resolver()
        tasks = [asyncio.ensure_future(resolver.resolve("one.test", 1)) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        other = asyncio.ensure_future(resolver.resolve("two.test", 1))
        names.free.set()
        assert await asyncio.gather(*tasks[1:], other) == [[A]] * 5
        assert sorted(names.asked) == ["one.test", "two.test"]
        resolver.close()

    run(main())


def test_names_without_number_do_not_pile_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ["127.0.0.1"])

    async def main() -> None:
        resolver = Resolver()
        for number in range(DNS_KNOWN):
            await resolver.resolve(f"{number}.test", 1)
        await resolver.resolve("0.test", 1)
        assert len(names.asked) == DNS_KNOWN
        await resolver.resolve("one.test", 1)
        assert len(resolver._known) == DNS_KNOWN
        await resolver.resolve("1.test", 1)
        assert len(names.asked) == DNS_KNOWN + 1
        await resolver.resolve("0.test", 1)
        assert names.asked[-1] == "0.test"
        resolver.close()

    run(main())


@pytest.mark.parametrize("failure", [socket.gaierror("no"), UnicodeError("label too long"), []])
def test_a_failure_is_not_kept(run: Run, monkeypatch: pytest.MonkeyPatch, failure: Any) -> None:
    Names(monkeypatch, failure, ["127.0.0.1"])

    async def main() -> None:
        resolver = Resolver()
        with pytest.raises(Unreachable) as caught:
            await resolver.resolve("one.test", 1)
        assert caught.value.code == "upstream_dns_error"
        assert await resolver.resolve("one.test", 1)
        resolver.close()

    run(main())


@pytest.mark.parametrize("address", [A, X, (V6, "fe80::1%lo")])
def test_an_address_needs_no_name_service(run: Run, monkeypatch: pytest.MonkeyPatch, address: Address) -> None:
    names = Names(monkeypatch, OSError("no"))

    async def main() -> None:
        assert await Resolver().resolve(address[1], 1) == [address]

    run(main())
    assert names.asked == []


def test_families_take_turns_and_the_first_stays_first() -> None:
    assert alternating([X, Y, A, B, C]) == [X, A, Y, B, C]
    assert alternating([A, B, X]) == [A, X, B]
    assert alternating([X, Y, A, B, C], 1) == [Y, B, X, C, A]
    assert alternating([]) == []


def test_connections_are_spread_over_the_addresses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["::1", "127.0.0.1", "127.0.0.2", "127.0.0.3"])

    async def main() -> None:
        resolver = Resolver()
        orders = [await resolver.resolve("one.test", 1) for _ in range(6)]
        assert {order[0] for order in orders} == {X}
        assert [order[1] for order in orders] == [A, B, C, A, B, C]
        resolver.close()

    run(main())


def test_addresses_that_were_overtaken_come_last_until_the_next_look_up(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, ["127.0.0.1", "127.0.0.2", "127.0.0.3"])

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        resolver = Resolver()
        await resolver.resolve("one.test", 1)
        resolver.overtaken("one.test", 1, [A])
        resolver.overtaken("unknown.test", 1, [A])
        assert [(await resolver.resolve("one.test", 1))[-1] for _ in range(4)] == [A, A, A, A]
        resolver.overtaken("one.test", 1, [B, C])
        assert sorted(await resolver.resolve("one.test", 1)) == [A, B, C]
        loop.advance(DNS_TTL + DNS_STALE)
        assert {(await resolver.resolve("one.test", 1))[0] for _ in range(3)} == {A, B, C}
        resolver.close()

    run(main())


def test_a_forgotten_name_is_looked_up_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])

    async def main() -> None:
        resolver = Resolver()
        await resolver.resolve("one.test", 1)
        resolver.forget("one.test", 1)
        resolver.forget("one.test", 1)
        assert await resolver.resolve("one.test", 1) == [B]
        assert len(names.asked) == 2
        resolver.close()

    run(main())
