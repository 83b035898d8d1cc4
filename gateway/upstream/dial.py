"""From a host name to a connected transport: resolution with a cache, TCP, TLS, and their failures as ours."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from gateway.errors import Unreachable

DNS_TTL = 30.0
# A resolver that hangs occupies a thread until its own time-out; other hosts must still find one.
DNS_THREADS = 32
# Clients name hosts as well, where images are fetched for them.
DNS_KNOWN = 1024

Address = tuple[int, str]


class Resolver:
    """Host names to addresses: one look-up at a time per host, answers kept for 30 s."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(DNS_THREADS, thread_name_prefix="dns")
        self._known: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses (family, IP); raises Unreachable."""
        loop = asyncio.get_running_loop()
        key = (host, port)
        if (known := self._known.get(key)) and known[0] > loop.time():
            return known[1]
        if (asked := self._asked.get(key)) is None:
            asked = self._asked[key] = loop.run_in_executor(self._threads, _look_up, host, port)
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
        try:
            addresses = await asyncio.shield(asked)
        except OSError as error:
            raise Unreachable("The provider's host name does not resolve.", code="upstream_dns_error") from error
        if len(self._known) >= DNS_KNOWN:
            self._known.clear()
        self._known[key] = (loop.time() + DNS_TTL, addresses)
        return addresses

    def close(self) -> None:
        """Let the threads end without waiting for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def tls_context(ca_file: str | Path | None = None) -> ssl.SSLContext:
    """A verifying client context; `ca_file` replaces the system's certificate authorities.

    Reading the system's takes 30 ms: they are read once, at the first account that needs them.
    """
    return _context(str(ca_file)) if ca_file else _system_context()


@cache
def _system_context() -> ssl.SSLContext:
    return _context(None)


def _context(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def dial(
    resolver: Resolver,
    protocol: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    timeout: float,
) -> None:
    """Connect within `timeout` seconds, resolution and handshake included; raises Unreachable."""
    try:
        async with asyncio.timeout(timeout):
            await _connect(await resolver.resolve(host, port), protocol, host, port, tls)
    except TimeoutError as error:
        message = "No connection to the provider within the time allowed."
        raise Unreachable(message, status=504, kind="timeout_error", code="upstream_connect_timeout") from error
    except ssl.SSLError as error:
        raise Unreachable("No trusted TLS connection to the provider.", code="upstream_tls_error") from error
    except OSError as error:
        raise Unreachable("The provider refused the connection.") from error


async def _connect(
    addresses: list[Address], protocol: Callable[[], asyncio.Protocol], host: str, port: int, tls: ssl.SSLContext | None
) -> None:
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, address in addresses:
        try:
            await loop.create_connection(
                protocol, address, port, family=family, ssl=tls, server_hostname=host if tls else None
            )
        except OSError as error:
            failure = error
        else:
            return
    raise failure or OSError("no address")


def _look_up(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
