"""The lane: a plain request from its bytes to its answer's bytes without a task, a parser or a coroutine.

Most requests of a connection have the head of the one before, and go to an upstream that is well, on a connection that
is open. Such a request is sent in the callback that brought its last byte, and answered in the one that brought the
answer's. Whatever is not so plain takes the ordinary way, from the start or from where it stopped being plain.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.access import Caller
from gateway.attempts import Failed
from gateway.contract import ChatRequest, Dialect, Stamp
from gateway.errors import GatewayError, Unauthorized, UpstreamError, UpstreamReset
from gateway.exchange import Answer, Exchange
from gateway.fan import wanted
from gateway.fastlane import FastClient, Parsed
from gateway.front import Request, Taken
from gateway.log import Record
from gateway.proxy import READABLE, Begun, Proxy, Snapshot
from gateway.routes import Route
from gateway.visits import Visit

# Lines that differ from request to request; every other byte of a head must have been seen before.
VARIABLE = re.compile(rb"\r\n(?i:(content-length|idempotency-key|x-request-id)): ?([\w.:=+/-]{1,128})(?=\r\n)")
# One of them that is still there has a value of another form; it must not be taken for a head without it.
ODD = re.compile(rb"\r\n(?i:content-length|idempotency-key|x-request-id):")
LENGTH, KEY, ID = b"content-length", b"idempotency-key", b"x-request-id"
IDEMPOTENCY = KEY.decode()
# With their trace contexts no two heads are alike.
UNLIKE = ("traceparent", "tracestate", "expect", "transfer-encoding")
MOST_HEADS = 1024
LARGEST_HEAD = 8 * 1024
# A connection that teaches more heads than this has one that is never the same.
MOST_TAUGHT = 8
MOST_DIGITS = 8
# A body that comes in pieces is held up to this size and to the next sweep; then parser, timers and ledger have it.
MOST_HELD = 1024 * 1024


class Known(NamedTuple):
    """A head that was let in before: the same bytes are let in again, until the key expires."""

    message: RawRequestMessage
    caller: Caller
    dialect: Dialect
    headers: Mapping[str, str]
    marks: Mapping[str, str] | None


class Refused(NamedTuple):
    """A head that was refused for its key: the same bytes are refused again, as new keys come with a reload."""

    message: RawRequestMessage
    error: Unauthorized
    marks: Mapping[str, str] | None


class Lane:
    """Takes what is plain by the snapshot in force; `rides` counts what it took.

    Heads are kept in memory, keys included, as connections keep them, and no longer than their snapshot. Those that
    were refused have a place of their own, so that no stranger drives out the others.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._snapshot = proxy.snapshot
        self.rides = 0
        self._heads: dict[bytes, Known] = {}
        self._refused: dict[bytes, Refused] = {}
        self._routes: dict[str, Route | None] = {}

    def adopt(self, snapshot: Snapshot) -> None:
        """Go by another configuration, and forget what was let in by the last."""
        self._snapshot = snapshot
        self._heads.clear()
        self._refused.clear()
        self._routes.clear()

    def learn(self, request: Request, caller: Caller, dialect: Dialect, snapshot: Snapshot) -> None:
        """This request was let in by that snapshot.

        Its head is kept as the parser has read it, whatever bytes it was read from.
        """
        message, headers = request.head, request.head.headers
        fixed = self._teachable(request, snapshot) if message.path == dialect.path else None
        if fixed is None:
            return
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        names = (*READABLE, *self._snapshot.router.headers)
        kept = {name: headers[name] for name in names if name in headers and name != IDEMPOTENCY}
        self._heads[fixed] = Known(message, caller, dialect, kept, self._marks(request))

    def learn_refusal(self, request: Request, error: Unauthorized, snapshot: Snapshot) -> None:
        """This request was refused for its key by that snapshot."""
        fixed = self._teachable(request, snapshot) if request.head.method == "POST" else None
        if fixed is None:
            return
        if len(self._refused) >= MOST_HEADS:
            self._refused.clear()
        self._refused[fixed] = Refused(request.head, error, self._marks(request))

    def _teachable(self, request: Request, snapshot: Snapshot) -> bytes | None:
        """A head without what varies, if its connection may still teach one."""
        client, message = request.client, request.head
        if snapshot is not self._snapshot or message.should_close or message.version != (1, 1) or "?" in message.path:
            return None
        if client.taught >= MOST_TAUGHT or any(name in message.headers for name in UNLIKE):
            return None
        lines = [b"\r\n%b: %b" % line for line in message.raw_headers]
        head = b"%b %b HTTP/1.1%b\r\n" % (message.method.encode(), message.path.encode(), b"".join(lines))
        fixed = b"".join(VARIABLE.split(head)[::3])
        if len(fixed) > LARGEST_HEAD or ODD.search(fixed):
            return None
        client.taught += 1
        return fixed

    def _marks(self, request: Request) -> Mapping[str, str] | None:
        return None if self._snapshot.cors is None else self._snapshot.cors.marks(request.head.headers)

    def take(self, client: FastClient, pieces: Sequence[bytes]) -> Taken:
        """Send the request that these bytes are, if it is plain. Its head stands in the first piece."""
        data = pieces[0]
        end = data.find(b"\r\n\r\n")
        parts = VARIABLE.split(data[: end + 2])
        fixed = b"".join(parts[::3])
        known = self._heads.get(fixed)
        if known is None and fixed not in self._refused:
            return Taken.NO
        given = dict(zip(map(bytes.lower, parts[1::3]), parts[2::3], strict=True))
        length = given.get(LENGTH, b"")
        if len(given) * 3 + 1 != len(parts) or not length.isdigit() or len(length) > MOST_DIGITS:
            return Taken.NO
        size = int(length)
        client.due = end + 4 + size
        arrived = len(data) if len(pieces) == 1 else sum(map(len, pieces))
        if arrived == client.due and size <= self.proxy.bounds.max_body:
            if known is None:
                return self._refuse(client, self._refused[fixed], given)
            body = data[end + 4 :] if len(pieces) == 1 else b"".join((memoryview(data)[end + 4 :], *pieces[1:]))
            return self._begin(client, known, given, body)
        # Nothing is held for a stranger.
        more = known is not None and arrived < client.due and self._may_hold(client, size)
        return Taken.MORE if more else Taken.NO

    def _may_hold(self, client: FastClient, size: int) -> bool:
        """Is there room for a body of which a part has come? The client gives the room back."""
        ledger = self.proxy.ledger
        if size > min(MOST_HELD, self.proxy.bounds.max_body, ledger.limit - ledger.held):
            return False
        ledger.take(size)
        client.lent = size
        return True

    def give_back(self, size: int) -> None:
        """What was held is held no longer."""
        self.proxy.ledger.give_back(size)

    def _refuse(self, client: FastClient, refused: Refused, given: Mapping[bytes, bytes]) -> Taken:
        """Say once more what this head was told."""
        proxy = self.proxy
        if proxy.draining:
            return Taken.NO
        record = self._record(given, refused.message.path)
        record.marks = refused.marks
        self.rides += 1
        proxy.active += 1
        client.begin()
        proxy.refuse(Parsed(refused.message, EMPTY_PAYLOAD, client), refused.error, record)
        proxy.finish(record, None)
        client.end_ride(stays=True)
        return Taken.YES

    def _record(self, given: Mapping[bytes, bytes], path: str) -> Record:
        return Record(self._loop.time(), self.proxy.name(given[ID].decode() if ID in given else None), "POST", path)

    def _begin(self, client: FastClient, known: Known, given: Mapping[bytes, bytes], body: bytes) -> Taken:
        today = time.time()
        if self.proxy.draining or known.caller.expires <= today:
            return Taken.NO
        read = time.perf_counter()
        headers = {**known.headers, IDEMPOTENCY: given[KEY].decode()} if KEY in given else known.headers
        try:
            chat = known.dialect.open_request(body, headers)
            route = self._route(chat.model)
            if route is None or not known.caller.may_use(chat.model):
                return Taken.NO
            record = self._record(given, known.dialect.path)
            record.key, record.model, record.read = known.caller.key, chat.model[:200], read
            record.stream, record.marks = chat.stream, known.marks
            record.received = record.reserved = len(body)
            ride = Ride(self.proxy, self._snapshot, client, known, chat, record)
            if not ride.prepare(route, today):
                return Taken.NO
        except Exception:  # the ordinary way says it as it should be said, whatever it is
            return Taken.NO
        self.rides += 1
        ride.go()
        return Taken.YES

    def _route(self, model: str) -> Route | None:
        """The route of a model name whose first attempt needs nothing but to be sent."""
        if model in self._routes:
            return self._routes[model]
        router = self._snapshot.router
        route = router.fixed(model)
        if route is not None:
            first = route.steps[0]
            attempt = first.attempt
            if route.mirror or route.hedge or route.measured or first.gates or attempt.fetch_images:
                route = None
        if model in router.names:
            self._routes[model] = route
        return route


class Ride:
    """One request on the lane. It stands where a future would: the call says to it that its answer is ready."""

    __slots__ = (
        *("_asked", "_chat", "_client", "_connection", "_going", "_got", "_known", "_lease", "_over", "_proxy"),
        *("_record", "_snapshot", "_told", "_visit"),
    )

    def __init__(
        self, proxy: Proxy, snapshot: Snapshot, client: FastClient, known: Known, chat: ChatRequest, record: Record
    ) -> None:
        self._proxy = proxy
        self._snapshot = snapshot
        self._client = client
        self._known = known
        self._chat = chat
        self._record = record
        self._got: Answer | None = None
        self._told = self._over = False

    def prepare(self, route: Route, today: float) -> bool:
        """Take all that it needs, if its upstream is well and has a connection open. What raises has taken nothing."""
        record, upstreams = self._record, self._snapshot.upstreams
        step = route.steps[0]
        attempt = step.attempt
        health = upstreams.health_of(attempt.deployment)
        if not health.clear(record.began, attempt.room) or (attempt.target.emulate and wanted(attempt, self._chat) > 1):
            return False
        record.deployment, record.choice = attempt.name, step.why
        stamp = Stamp(record.id.removeprefix("req_"), int(today))
        deadline = record.began + min(route.total, attempt.stream_limits.total)
        going = Exchange(attempt, self._chat, self._known.dialect, stamp, upstreams, deadline, self)
        connection = going.endpoint.idle()
        if connection is None:
            return False
        try:
            self._admit()
        except BaseException:
            going.endpoint.unused(connection)
            raise
        self._visit = Visit(health, record.began, retry=False, placed=False)
        self._going, self._connection = going, connection
        return True

    def go(self) -> None:
        """Send it."""
        going, client = self._going, self._client
        self._proxy.active += 1
        client.ride = self
        client.begin()
        self._asked = time.perf_counter()
        going.call.begin(self._connection, going.head, going.request.body)

    def done(self) -> bool:
        """Is it known what the answer is?"""
        return self._told

    def set_result(self, result: None) -> None:
        """The answer is whole, or a stream has shown its first good event."""
        self._told = True
        waited = time.perf_counter() - self._asked
        try:
            got = self._going.answer(waited)
        except UpstreamError as error:
            self._fail(error)
        except Exception as error:  # a plugin has read it, and what it read is a stranger's
            self._fail(error)
        else:
            try:
                self._answer(got)
            except Exception as error:
                self._proxy.fell(self._record, error)
                self._client.abort()

    def set_exception(self, error: UpstreamError) -> None:
        """There is no answer."""
        self._told = True
        if isinstance(error, UpstreamReset) and self._going.call.is_stale(self._connection):
            # The others have been idle for longer: none of them is taken for the second try.
            self._going.endpoint.let_idle_go()
            self._going.endpoint.stale_retries += 1
            self._visit.leave(self._now())
            self._record.read += time.perf_counter() - self._asked
            self._leave(None)
        else:
            self._fail(error)

    def abandon(self) -> None:
        """The client has left."""
        if self._over:
            return
        self._over = True
        if self._got is not None and self._got.pump is not None:
            self._proxy.close_stream(self._snapshot, self._got, self._got.pump, self._record)
        else:
            self._told = True
            self._going.call.abort()
            self._visit.leave(self._now())
            self._record.code = "client_disconnect"
        self._proxy.finish(self._record, self._lease)

    def _admit(self) -> None:
        proxy, record = self._proxy, self._record
        proxy.ledger.take(record.reserved)
        try:
            self._lease = proxy.key_limits.admit(record, self._chat, record.began)
        except BaseException:
            proxy.ledger.give_back(record.reserved)
            raise

    def _now(self) -> float:
        return self._snapshot.upstreams.sweep.loop.time()

    def _answer(self, got: Answer) -> None:
        proxy, record, pump = self._proxy, self._record, got.pump
        self._visit.answered()
        got.visit = self._visit
        self._got = got
        record.attempts = f"{record.deployment}=200"
        record.overhead = time.perf_counter() - record.read - got.waited
        if pump is not None:
            pump.finished.add_done_callback(self._flowed)
            proxy.open_stream(self._client, self._snapshot, got, pump, record, chunked=True)
            return
        stays = not proxy.draining
        proxy.reply(self._client, self._snapshot, got, record, stays=stays)
        self._end(stays=stays)

    def _flowed(self, finished: asyncio.Future[GatewayError | None]) -> None:
        got = self._got
        if not self._over and got is not None and got.pump is not None:
            whole = self._proxy.close_stream(self._snapshot, got, got.pump, self._record)
            self._end(stays=whole and not self._proxy.draining)

    def _end(self, *, stays: bool) -> None:
        self._over = True
        self._proxy.finish(self._record, self._lease)
        self._client.end_ride(stays=stays)
        # The call holds this; in a circle they would wait for the collector.
        del self._going

    def _fail(self, error: Exception) -> None:
        self._going.call.abort()
        self._leave(Failed(self._visit, error))

    def _leave(self, failed: Failed | None) -> None:
        """Go on in the ordinary way, with what is known by now."""
        known = self._known
        begun = Begun(self._record, self._snapshot, known.dialect, self._chat, self._lease, failed)
        self._client.leave_lane(partial(self._go_on, Parsed(known.message, EMPTY_PAYLOAD, self._client), begun))

    async def _go_on(self, request: Parsed, begun: Begun) -> web.StreamResponse:
        self._over = True
        self._proxy.active -= 1
        return await self._proxy.handle(request, begun)
