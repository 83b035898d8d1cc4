"""From a place to a connected transport: resolution, TCP, proxy, TLS, and their failures as ours."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gateway.egress import Proxy
from gateway.errors import Unreachable
from gateway.upstream.names import Address, Resolver
from gateway.upstream.tunnel import PROXY_ERROR, open_tunnel

# RFC 8305: so long has an address to itself before the next is tried beside it.
HEAD_START = 0.25

# Before NATs forget a connection on which a model thinks for minutes: the strictest known does after 350 s.
_KEEPALIVE = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
)
_OPTIONS = tuple((level, getattr(socket, name), value) for level, name, value in _KEEPALIVE if hasattr(socket, name))


@dataclass(frozen=True, slots=True)
class Place:
    """Where connections go: to host and port, with TLS or without, straight or by a proxy; or to a Unix socket."""

    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None
    path: str = ""


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


async def dial(resolver: Resolver, protocol: Callable[[], asyncio.Protocol], place: Place, timeout: float) -> None:
    """Connect within `timeout` seconds, resolution, proxy and handshake included; raises Unreachable."""
    try:
        async with asyncio.timeout(timeout):
            await _connect(resolver, protocol, place)
    except TimeoutError as error:
        message = "No connection to the provider within the time allowed."
        raise Unreachable(message, status=504, kind="timeout_error", code="upstream_connect_timeout") from error
    except ssl.SSLError as error:
        raise Unreachable("No trusted TLS connection to the provider.", code="upstream_tls_error") from error
    except OSError as error:
        raise Unreachable("The provider refused the connection.") from error


async def _connect(resolver: Resolver, protocol: Callable[[], asyncio.Protocol], place: Place) -> None:
    loop = asyncio.get_running_loop()
    if place.path:
        await loop.create_unix_connection(protocol, place.path)
        return
    if place.proxy is None:
        sock = await _open(resolver, place.host, place.port)
    else:
        sock = await _open_by(place.proxy, resolver, place)
    # A name may end with a dot, to be looked up as it is; certificates are not made out to that form.
    name = place.host.removesuffix(".") if place.tls else None
    await loop.create_connection(protocol, sock=sock, ssl=place.tls, server_hostname=name)


async def _open_by(proxy: Proxy, resolver: Resolver, place: Place) -> socket.socket:
    """A socket that leads to the place through a proxy, which also looks up the name."""
    try:
        sock = await _open(resolver, proxy.host, proxy.port)
    except TimeoutError:
        raise
    except (Unreachable, OSError) as error:
        raise Unreachable("The egress proxy cannot be reached.", code=PROXY_ERROR) from error
    try:
        await open_tunnel(sock, proxy, place.host, place.port)
    except BaseException:
        sock.close()
        raise
    return sock


async def _open(resolver: Resolver, host: str, port: int) -> socket.socket:
    addresses = await resolver.resolve(host, port)
    try:
        sock, taken = await race(addresses, port)
    except OSError:
        resolver.forget(host, port)
        raise
    if taken:
        resolver.overtaken(host, port, addresses[:taken])
    return sock


async def race(addresses: Sequence[Address], port: int) -> tuple[socket.socket, int]:
    """A socket to the first address that answers, and which one that is; raises OSError when none does.

    Each is tried a quarter of a second after the one before it, or as soon as that has failed.
    """
    if len(addresses) == 1:
        return await _reach(addresses[0], port), 0
    waiting = deque(enumerate(addresses))
    running: dict[asyncio.Task[socket.socket], int] = {}
    failure = OSError("no address")
    try:
        while waiting or running:
            if waiting:
                number, address = waiting.popleft()
                running[asyncio.ensure_future(_reach(address, port))] = number
            pause = HEAD_START if waiting else None
            done, _ = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number = running.pop(task)
                try:
                    return task.result(), number
                except OSError as error:
                    failure = error
        raise failure
    finally:
        for task in running:
            task.add_done_callback(_close_late)
            task.cancel()


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """Another address was quicker."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _reach(address: Address, port: int) -> socket.socket:
    family, number = address
    # The protocol is named because asyncio sets TCP_NODELAY only where it is.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        for level, option, value in _OPTIONS:
            sock.setsockopt(level, option, value)
        await asyncio.get_running_loop().sock_connect(sock, (number, port))
    except BaseException:
        sock.close()
        raise
    return sock
