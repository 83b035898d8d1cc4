"""Endpoints: host, TLS context, fixed headers and idle connections that belong together."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from urllib.parse import urlsplit

from gateway.egress import Proxy, host_header, socket_path
from gateway.upstream.connection import IDLE, Connection
from gateway.upstream.dial import Place, dial, tls_context
from gateway.upstream.names import Resolver

MAX_IDLE = 256
TRIM_EVERY = 1.0
KNOWN_HEADS = 256
KNOWN_URLS = 1024


class Endpoint:
    """One origin of one provider account, with its pool: the connection that was used last is used next.

    `stale_retries` counts the requests that were sent again because a reused connection was dead.
    """

    def __init__(
        self,
        origin: str,
        headers: Mapping[str, str],
        resolver: Resolver,
        tls: ssl.SSLContext | None,
        proxy: Proxy | None = None,
    ) -> None:
        self.place = place(origin, tls, proxy)
        self._resolver = resolver
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._heads: dict[Hashable, bytes] = {}
        self._origin = origin
        self._retired = False
        self.stale_retries = 0
        self._fixed = f"host: {host_header(origin)}\r\n{lines(headers)}"

    @property
    def connections(self) -> int:
        """How many connections are open, in use or idle."""
        return len(self._all)

    @property
    def spare(self) -> int:
        """How many of them are idle."""
        return sum(not connection.closed for connection in self._idle)

    def head(
        self, url: str, method: str, headers: Mapping[str, str], length: int, key: Hashable | None = None
    ) -> bytes:
        """The request head as bytes; with a key, all but its length is kept for `usual_head`."""
        path = url[len(self._origin) :] or "/"
        start = f"{method} {path} HTTP/1.1\r\n{self._fixed}{lines(headers)}".encode("latin-1")
        if key is not None:
            if len(self._heads) >= KNOWN_HEADS:
                self._heads.clear()
            self._heads[key] = start
        return b"%bcontent-length: %d\r\n\r\n" % (start, length)

    def usual_head(self, key: Hashable, length: int) -> bytes | None:
        """The head that was made under this key, for a body of this length."""
        start = self._heads.get(key)
        return None if start is None else b"%bcontent-length: %d\r\n\r\n" % (start, length)

    @cached_property
    def _now(self) -> Callable[[], float]:
        """The loop's clock, asked for once, since on Python 3.11 each asking is a system call."""
        return asyncio.get_running_loop().time

    def idle(self) -> Connection | None:
        """A connection that is open and was not idle for too long, if there is one."""
        now = self._now()
        while self._idle:
            connection = self._idle.pop()
            if connection.closed:
                continue
            if now - connection.idle_since < connection.keep:
                return connection
            connection.abort()
        return None

    def unused(self, connection: Connection) -> None:
        """What `idle` gave was not used after all."""
        self._idle.append(connection)

    def let_idle_go(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                connection.abort()

    async def connect(self, timeout: float) -> Connection:
        """A fresh connection; raises Unreachable."""
        connection = Connection(self)
        await dial(self._resolver, lambda: connection, self.place, timeout)
        self._all.add(connection)
        return connection

    def put_back(self, connection: Connection) -> None:
        """An exchange ended cleanly: keep the connection for the next."""
        if self._retired or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since = self._now()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._all.discard(connection)

    def trim(self, now: float) -> None:
        """Close what has been idle for too long, and what still sends an answer that nobody wants."""
        for connection in tuple(self._all):
            if connection.unwanted and now - connection.idle_since >= IDLE:
                connection.abort()
        while self._idle and (self._idle[0].closed or now - self._idle[0].idle_since >= self._idle[0].keep):
            connection = self._idle.pop(0)
            if not connection.closed:
                connection.abort()

    def retire(self) -> None:
        """Close idle connections now and every other one when its exchange ends."""
        self._retired = True
        self.let_idle_go()


class Account:
    """The endpoints of one provider account: one per origin, made when first needed.

    `headers` are sent with every request; `ca_file` replaces the system's certificate authorities; `proxy` is the way
    to all of them but Unix sockets.
    """

    def __init__(
        self, headers: Mapping[str, str], resolver: Resolver, ca_file: str | None = None, proxy: Proxy | None = None
    ) -> None:
        self._headers = headers
        self._resolver = resolver
        self._tls = tls_context(ca_file)
        self._proxy = proxy
        self._endpoints: dict[str, Endpoint] = {}
        self._by_url: dict[str, Endpoint] = {}
        self._trimmed = 0.0
        self._retired = False

    def endpoint(self, url: str) -> Endpoint:
        """The endpoint that serves an absolute URL."""
        endpoint = self._by_url.get(url)
        if endpoint is None:
            end = url.find("/", url.find("://") + 3)
            origin = url[:end] if end >= 0 else url
            endpoint = self._endpoints.get(origin)
            if endpoint is None:
                endpoint = Endpoint(origin, self._headers, self._resolver, self._tls, self._proxy)
                self._endpoints[origin] = endpoint
                if self._retired:
                    endpoint.retire()
            if len(self._by_url) >= KNOWN_URLS:
                self._by_url.clear()
            self._by_url[url] = endpoint
        return endpoint

    def endpoints(self) -> list[Endpoint]:
        """Those made so far."""
        return list(self._endpoints.values())

    def sweep(self, now: float) -> None:
        """Once a second, close what has been idle for too long."""
        if now - self._trimmed >= TRIM_EVERY:
            self._trimmed = now
            for endpoint in self._endpoints.values():
                endpoint.trim(now)

    def retire(self) -> None:
        """A reload no longer names the account: close each connection once its exchange has ended."""
        self._retired = True
        for endpoint in self._endpoints.values():
            endpoint.retire()


def place(origin: str, tls: ssl.SSLContext | None, proxy: Proxy | None) -> Place:
    """Where connections to an origin go."""
    if path := socket_path(origin):
        return Place(path=path)
    parts = urlsplit(origin)
    secure = parts.scheme == "https"
    return Place(parts.hostname or "", parts.port or (443 if secure else 80), tls if secure else None, proxy)


def lines(headers: Mapping[str, str]) -> str:
    """Headers as lines; raises ValueError for a value that would begin another line."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError("a header value holds a line break")
    return text
