"""A shorter way from parsed requests to the handler, around aiohttp's task, request and response per request.

It replaces `RequestHandler.start` and so leans on private attributes of aiohttp 3.14: `possible` looks for them at
start, and without them the ordinary way serves. Measured at 16 connections: 17-25 µs of 140 a request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from gateway.front import LINGER, READ_BUFFER, Client, Taken, parse_error

NEEDED = frozenset(
    (
        *("_messages", "_waiter", "_parser", "_buffer_paused", "_msg_queue_resume_size", "_force_close", "_close"),
        *("_keepalive_timeout", "_keepalive_handle", "_next_keepalive_close_time", "_task_handler", "_loop"),
    )
)
METHODS = ("_resume_reading_if_drained", "_process_keepalive", "start", "force_close")


def client_kind() -> type[Client]:
    """The connections to serve with: these where the installed aiohttp allows it, else the ordinary ones."""
    return FastClient if possible() else Client


def possible() -> bool:
    """Does the installed aiohttp have what this leans on? `SLUICEWAY_FRONT=plain` says no."""
    slots = {name for kind in RequestHandler.__mro__ for name in getattr(kind, "__slots__", ())}
    has_all = slots >= NEEDED and all(callable(getattr(RequestHandler, name, None)) for name in METHODS)
    return has_all and os.environ.get("SLUICEWAY_FRONT") != "plain"


class Parsed:
    """A request as the parser left it."""

    __slots__ = ("client", "content", "head")

    def __init__(self, head: RawRequestMessage, content: StreamReader, client: Client) -> None:
        self.head = head
        self.content = content
        self.client = client


class Ride(Protocol):
    """A request on the lane."""

    def abandon(self) -> None:
        """The client has left."""


class FastClient(Client):
    """A client connection whose one task serves its requests one after the other, unless the lane takes them.

    `ride` is the request on the lane, `due` the size of one that is held until all of it is there, `lent` what the
    ledger has lent for it. What aiohttp's parser has is counted, to know when it holds no part of a request.
    """

    __slots__ = ("_fed", "_head_size", "_held", "_later", "_resume", "_size", "due", "lent", "ride")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.ride: Ride | None = None
        self._fed = 0
        self._head_size = 0
        self._held: list[bytes] = []
        self._size = 0
        self.due = 0
        self.lent = 0
        self._later = b""
        self._resume: Callable[[], Awaitable[web.StreamResponse]] | None = None

    def data_received(self, data: bytes) -> None:
        if self.ride is not None or self._later:
            self._later += data
            if len(self._later) > READ_BUFFER and self.transport is not None:
                self.transport.pause_reading()
            return
        lane = self._front.lane
        if lane is not None and not (self._fed or self.busy or self._force_close or self._close):
            pieces = [data]
            if self._held:
                self._held.append(data)
                self._size += len(data)
                if self._size < self.due:
                    return
                pieces = self._pieces()
            taken = lane.take(self, pieces)
            if taken is Taken.YES:
                return
            if taken is Taken.MORE:
                self._held, self._size = pieces, len(data)
                self._hears()
                return
            data = b"".join(pieces)
        self._parse(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        ride, self.ride = self.ride, None
        if self._held:
            self._pieces()
        super().connection_lost(exc)
        if ride is not None:
            ride.abandon()

    def sweep(self, now: float) -> None:
        """Let the parser and its timers have a body that does not come at once."""
        if self._held:
            self._parse(b"".join(self._pieces()))
        super().sweep(now)

    def end_ride(self, *, stays: bool) -> None:
        """The request on the lane is over."""
        self.ride = None
        self.rest()
        if not stays:
            self.hang_up()
            return
        self._await_next(self._loop.time() + self._keepalive_timeout)
        if self._later:
            self._loop.call_soon(self._catch_up)

    def leave_lane(self, resume: Callable[[], Awaitable[web.StreamResponse]]) -> None:
        """The request on the lane goes on in the connection's task; until that runs, the ride answers for it."""
        self._resume = resume
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def start(self) -> None:
        """Serve until the connection is to be closed; cancelled when the client leaves."""
        loop, front, messages = self._loop, self._front, self._messages
        while not self._force_close:
            if not messages and self._resume is None:
                self._waiter = loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            if self._resume is not None:
                going = self._resume()
                self._resume = self.ride = None
                if self._later:
                    loop.call_soon(self._catch_up)
                try:
                    response = await going
                finally:
                    self.rest()
            else:
                message, payload = messages.popleft()
                self._make_room()
                if not isinstance(message, RawRequestMessage):
                    self.refuse(parse_error(message.exc))
                    break
                response = await front.serve(Parsed(message, payload, self))
                if not payload.is_eof():
                    await self._linger(payload)
                    break
                self._count_out(message)
            if not response.keep_alive or self._close or self._force_close:
                break
            self._await_next(loop.time() + self._keepalive_timeout)
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    def _parse(self, data: bytes) -> None:
        if not self._fed:
            self._head_size = data.find(b"\r\n\r\n") + 4
        self._fed += len(data)
        super().data_received(data)

    def _count_out(self, message: RawRequestMessage) -> None:
        """Does the parser hold nothing any more? Only then may the next bytes be a head that the lane knows."""
        length = message.headers.get("Content-Length", "0")
        if self._head_size > 3 and not message.chunked and self._fed == self._head_size + int(length):
            self._fed = 0

    def _pieces(self) -> list[bytes]:
        """What was held, which is held no longer."""
        pieces, self._held = self._held, []
        if self._front.lane is not None:
            self._front.lane.give_back(self.lent)
        self.lent = 0
        return pieces

    def _catch_up(self) -> None:
        """Take what came while a request was on the lane."""
        later, self._later = self._later, b""
        if later and self.transport is not None:
            self.transport.resume_reading()
            self.data_received(later)

    def _process_keepalive(self) -> None:
        if self.ride is None and not self._held:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None

    def _make_room(self) -> None:
        """Tell the parser that a message was taken, and read on if it had to stop."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    def _await_next(self, close_time: float) -> None:
        self._next_keepalive_close_time = close_time
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)

    @staticmethod
    async def _linger(payload: StreamReader) -> None:
        """Read a refused body for a moment, so that a reset does not destroy the answer."""
        try:
            async with asyncio.timeout(LINGER):
                while not payload.is_eof():
                    await payload.readany()
        except (TimeoutError, web.RequestPayloadError, ConnectionError):
            return
