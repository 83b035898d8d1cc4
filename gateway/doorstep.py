"""Where connections arrive: as they are, or after a TLS handshake that is counted, timed and answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, cast

import orjson

from gateway.config.tls import ServerContext, last_words, reason
from gateway.errors import BadFraming, GatewayError
from gateway.front import LINGER, Client, Front, RequestTimeout, answer, too_many

# Never reached: `Client.sweep` knows a client that is slow to take the last answer from one that takes nothing.
SHUTDOWN = 3600.0


class NotSecured(GatewayError):
    """A TLS handshake failed."""

    status = 400
    kind = "invalid_request_error"
    code = "tls_handshake_failed"


class Doorstep:
    """Makes the protocol of each new connection. `context` is what the next handshakes use; None is plain HTTP."""

    def __init__(self, front: Front, context: ServerContext | None) -> None:
        self.context = context
        self.arriving: set[Handshake] = set()
        self._front = front

    def __call__(self) -> asyncio.Protocol:
        return self._front.server() if self.context is None else Handshake(self._front, self.arriving, self.context)

    def cut(self) -> None:
        """End all handshakes."""
        for each in tuple(self.arriving):
            each.abort()


class Handshake(asyncio.Protocol):
    """A connection until its handshake is over; then a client of the front has it.

    It counts among the connections from its first moment, and `header_timeout` counts from then until the head of the
    first request is complete.
    """

    def __init__(self, front: Front, arriving: set[Handshake], context: ServerContext) -> None:
        self._front = front
        self._arriving = arriving
        self._context = context
        self._early: list[bytes] = []
        self._since = 0.0
        self._raw: asyncio.Transport
        self._spare: socket.socket
        self._task: asyncio.Task[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        loop = asyncio.get_running_loop()
        self._raw = cast("asyncio.Transport", transport)
        if len(self._front.clients) + len(self._arriving) >= self._front.bounds.max_connections:
            self._front.refused(too_many())
            self._raw.abort()
            return
        self._since = loop.time()
        # Event loops close the connection of a failed handshake before anybody can answer it: this one stays open.
        wire = transport.get_extra_info("socket")
        try:
            self._spare = socket.fromfd(wire.fileno(), wire.family, wire.type)
        except OSError:  # no descriptor is left
            self._front.refused(too_many())
            self._raw.abort()
            return
        self._arriving.add(self)
        self._task = loop.create_task(self._shake_hands(loop))

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def abort(self) -> None:
        """End it."""
        self._raw.abort()

    async def _shake_hands(self, loop: asyncio.AbstractEventLoop) -> None:
        timeout = self._front.bounds.header_timeout
        if self._raw.is_closing():
            self._spare.close()
            self._arriving.discard(self)
            return
        # Called once TLS has the connection, and before it begins: uvloop reads before this task's first step.
        loop.call_soon(self._pass_on)
        try:
            secured = await loop.start_tls(
                self._raw,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=timeout,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        except OSError as error:
            self._refuse(loop, error, late=loop.time() - self._since >= timeout)
        else:
            self._spare.close()
            if secured is not None and not (secured.is_closing() or self._raw.is_closing()):
                self._hand_over(secured)
        finally:
            self._arriving.discard(self)

    def _pass_on(self) -> None:
        """Give TLS the bytes that came before it was there."""
        early, self._early = self._early, []
        for data in early:
            tls: Any = self._raw.get_protocol()
            tls.get_buffer(len(data))[: len(data)] = data
            tls.buffer_updated(len(data))

    def _hand_over(self, secured: asyncio.Transport) -> None:
        client = cast("Client", self._front.server())
        secured.set_protocol(client)
        client.connection_made(secured)
        client.rests_on(self._raw, self._since)
        if self._early:
            client.data_received(b"".join(self._early))

    def _refuse(self, loop: asyncio.AbstractEventLoop, error: Exception, *, late: bool) -> None:
        """Say what was wrong, in TLS or to a client that speaks plain HTTP; who only left is told nothing."""
        words = last_words(error)
        if late:
            self._front.refused(RequestTimeout("The TLS handshake took too long."))
        elif isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST":
            plain = BadFraming("This port speaks TLS: call it by https.", code="tls_required")
            self._front.refused(plain)
            words = answer(plain.status, {}, orjson.dumps(plain.body()), keep_alive=False)
        elif isinstance(error, ssl.SSLError):
            self._front.refused(NotSecured(f"The TLS handshake failed: {reason(error)}."))
        if not words:
            self._spare.close()
            return
        with contextlib.suppress(OSError):
            self._spare.send(words)
            self._spare.shutdown(socket.SHUT_WR)
        # Not closed at once, so that bytes which are still under way do not destroy what was said.
        loop.call_later(LINGER, self._spare.close)
