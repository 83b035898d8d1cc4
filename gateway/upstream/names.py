"""Host names to addresses, without ever holding up the loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import zip_longest

from gateway.errors import Unreachable

DNS_TTL = 30.0
# For so long after that an answer is still used, while the next look-up runs.
DNS_STALE = 300.0
# A resolver that hangs occupies a thread until its own time-out; other hosts must still find one.
DNS_THREADS = 32
# Clients name hosts as well, where images are fetched for them.
DNS_KNOWN = 1024

Address = tuple[int, str]
Key = tuple[str, int]


@dataclass(slots=True)
class _Known:
    """One answer; `slow` are the addresses that failed or were overtaken since."""

    addresses: list[Address]
    answered: float
    turn: int = 0
    slow: set[Address] = field(default_factory=set)

    def ordered(self) -> list[Address]:
        self.turn += 1
        quick = alternating((each for each in self.addresses if each not in self.slow), self.turn - 1)
        return quick + [each for each in self.addresses if each in self.slow]


class Resolver:
    """Host names to addresses: one look-up at a time per host, answers fresh for 30 s.

    An older answer is used for up to five minutes more while a new one is fetched, so that a slow or dead name server
    holds up nobody. Failures are not kept.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")
        self._known: dict[Key, _Known] = {}
        self._asked: dict[Key, asyncio.Task[_Known]] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses (family, IP), families in turn, each call from another one on; raises Unreachable."""
        if literal := _literal(host):
            return [literal]
        key = (host, port)
        known = self._known.get(key)
        age = asyncio.get_running_loop().time() - known.answered if known else 0.0
        if known is None or age >= DNS_TTL + DNS_STALE:
            known = await self._answer(key)
        elif age >= DNS_TTL:
            self._ask(key)
        return known.ordered()

    def overtaken(self, host: str, port: int, addresses: Iterable[Address]) -> None:
        """These failed, or another answered before them: they come last until the next look-up."""
        if known := self._known.get((host, port)):
            known.slow.update(addresses)

    def forget(self, host: str, port: int) -> None:
        """None of the addresses works: look the name up again next time."""
        self._known.pop((host, port), None)

    def close(self) -> None:
        """Let the threads end without waiting for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, key: Key) -> _Known:
        try:
            # Whoever gives up leaves the look-up to the others.
            return await asyncio.shield(self._ask(key))
        except (OSError, UnicodeError) as error:
            raise Unreachable("The provider's host name does not resolve.", code="upstream_dns_error") from error

    def _ask(self, key: Key) -> asyncio.Task[_Known]:
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.get_running_loop().create_task(self._look_up(key))
            asked.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
        return asked

    async def _look_up(self, key: Key) -> _Known:
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.run_in_executor(self._threads, _get_addresses, *key)
        finally:
            del self._asked[key]
        self._known.pop(key, None)
        while len(self._known) >= DNS_KNOWN:
            del self._known[next(iter(self._known))]
        known = self._known[key] = _Known(addresses, loop.time())
        return known


def alternating(addresses: Iterable[Address], turn: int = 0) -> list[Address]:
    """The addresses, one of each family at a time, families in the given order; each family begins at its `turn`."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    turned = (group[turn % len(group) :] + group[: turn % len(group)] for group in families.values())
    return [address for row in zip_longest(*turned) for address in row if address]


def _literal(host: str) -> Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (socket.AF_INET6 if address.version == 6 else socket.AF_INET), host


def _get_addresses(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))
    if not addresses:
        raise OSError("no address")
    return addresses
