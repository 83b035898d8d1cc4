"""The life of one request."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

import orjson
from aiohttp import web

from gateway.access import Access, Caller, check_local
from gateway.attempts import Failed, Tries, first_answer, settle
from gateway.capabilities import capabilities, listed
from gateway.config.types import Config
from gateway.contract import ChatRequest, Dialect, Stamp
from gateway.cors import Cors
from gateway.errors import GatewayError, InvalidRequest, Unauthorized, where
from gateway.exchange import Answer, Upstreams, named
from gateway.front import CLOSE, KEEP, Bounds, Client, Request, answer, head, head_of
from gateway.intake import check_request, read_body
from gateway.keylimits import KeyLimits, Lease
from gateway.limits import Ledger
from gateway.log import Log, Record
from gateway.metrics import Metrics
from gateway.mirror import Mirrors
from gateway.pump import Flow
from gateway.router import Router, not_found
from gateway.sharing.keys import SharedKeys
from gateway.tracing.context import PARENT, STATE, read_parent
from gateway.tracing.tracer import Tracer
from gateway.traits import BYTES_PER_TOKEN
from gateway.upstream.pool import lines

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Client headers that attempts and plugins may look at, besides those that a routing chooses by and the trace context.
READABLE = ("idempotency-key", "anthropic-beta")
EVENT_STREAM = "content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
MODELS, CAPABILITIES = "/v1/models", "/v1/capabilities"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One configuration, ready to serve. A request keeps the one that it began with."""

    config: Config
    digest: str
    router: Router
    access: Access
    upstreams: Upstreams
    cors: Cors | None = None


class Begun(NamedTuple):
    """A request that was begun on the lane (`gateway.lane`) and needs more than that."""

    record: Record
    snapshot: Snapshot
    dialect: Dialect
    chat: ChatRequest
    lease: Lease | None
    failed: Failed | None


class Proxy:
    """Serves the front door from the snapshot in force; a reload calls `adopt` between two requests."""

    def __init__(self, snapshot: Snapshot, dialects: Mapping[str, Dialect], log: Log, bounds: Bounds) -> None:
        self.snapshot = snapshot
        self.active = 0
        self._dialects = dialects
        self._log = log
        self.bounds = bounds
        self.metrics = Metrics()
        self.metrics.adopt(snapshot.router.names)
        self.ledger = Ledger(snapshot.config.server.max_buffered)
        self.mirrors = Mirrors(log, self.ledger)
        self._id_prefix = f"req_{os.urandom(6).hex()}"
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()
        purses = snapshot.upstreams.counts.purses
        limits = (snapshot.config, self._loop.time(), purses, snapshot.router.tariff)
        counts = snapshot.upstreams.shared
        self.shared_keys = SharedKeys(*limits, counts.shared) if counts is not None else None
        self.key_limits = self.shared_keys or KeyLimits(*limits)
        self.draining = False
        # Are told of each request that was let in, or refused for its key: what was seen needs no second look.
        self.learn: Callable[[Request, Caller, Dialect, Snapshot], None] | None = None
        self.learn_refusal: Callable[[Request, Unauthorized, Snapshot], None] | None = None
        # Where traces are asked for; nothing is learnt then, so that every request takes the way of `handle`.
        self.tracer: Tracer | None = None

    def adopt(self, snapshot: Snapshot, bounds: Bounds) -> None:
        """Serve the next requests by another configuration."""
        self.snapshot = snapshot
        self.bounds = bounds
        self.ledger.limit = snapshot.config.server.max_buffered
        self.key_limits.adopt(snapshot.config, self._loop.time(), snapshot.router.tariff)
        self.metrics.adopt(snapshot.router.names)

    @property
    def held(self) -> int:
        """Bytes of request bodies in memory."""
        return self.ledger.held

    async def handle(self, request: Request, begun: Begun | None = None) -> web.StreamResponse:
        """Serve one request, whatever becomes of it, and write it down."""
        record = self._record(request) if begun is None else begun.record
        snapshot = self.snapshot
        lease: Lease | None = None
        self.active += 1
        try:
            if begun is not None:
                lease = begun.lease
                return await self._converse(request, begun.snapshot, begun.dialect, begun.chat, record, begun.failed)
            check_request(request)
            caller = self._admit(request, snapshot, record)
            dialect = self._dialects.get(record.path)
            if dialect is None:
                return self._list(request, snapshot, caller, record)
            chat = await self._read_chat(request, snapshot, dialect, record)
            if not caller.may_use(chat.model):
                raise not_found(chat.model)
            if self.shared_keys is None:
                lease = self.key_limits.admit(record, chat, self._loop.time())
            else:
                lease = await self.shared_keys.ask(record, chat)
            if self.learn is not None and self.tracer is None and (lease is None or self.shared_keys is None):
                self.learn(request, caller, dialect, snapshot)
            return await self._converse(request, snapshot, dialect, chat, record)
        except GatewayError as error:
            self._report(error, record)
            return self.refuse(request, error, record)
        except asyncio.CancelledError:
            if not record.status:
                record.code = "client_disconnect"
            raise
        except Exception as error:
            self.fell(record, error)
            return self.refuse(request, GatewayError("The gateway failed to serve the request."), record)
        finally:
            self.finish(record, lease)

    def fell(self, record: Record, error: Exception) -> None:
        """Say where a fault of our own comes from."""
        self._log.news("error", "a request failed inside the gateway", id=record.id, error=where(error))

    def finish(self, record: Record, lease: Lease | None) -> None:
        """A request has come to its end: give back what it held, and write it down."""
        self.active -= 1
        self.ledger.give_back(record.reserved)
        now = self._loop.time()
        if record.tariff is not None:
            record.reckon(record.received // BYTES_PER_TOKEN)
        if lease is not None:
            lease.settle(now, record)
        self.metrics.record(record, now)
        self._log.record(record, now)
        if record.trace is not None and self.tracer is not None:
            self.tracer.finish(record.trace, record)

    async def _converse(
        self,
        request: Request,
        snapshot: Snapshot,
        dialect: Dialect,
        chat: ChatRequest,
        record: Record,
        failed: Failed | None = None,
    ) -> web.StreamResponse:
        route = snapshot.router.resolve(chat.model, chat=chat, health_of=snapshot.upstreams.health_of, now=record.began)
        stamp = Stamp(record.id.removeprefix("req_"), int(time.time()))
        tries = Tries(self.ledger, began=record.began, trace=record.trace)
        if route.mirror is not None:
            self.mirrors.copy(route.mirror, snapshot.router, chat, dialect, snapshot.upstreams, record)
        try:
            got = await first_answer(route, chat, dialect, stamp, snapshot.upstreams, tries, failed)
        finally:
            record.deployment, record.attempts, record.choice = tries.last, str(tries), tries.why
            if tries.fetched is not None:
                record.reserved += tries.fetched.held
        if len(tries.made) == 1 and got.waited:
            record.overhead = time.perf_counter() - record.read - got.waited
        if record.trace is not None:
            record.trace.take(got.span, got.body, chat)
        if got.pump is not None:
            return await self._stream(request, snapshot, got, got.pump, record)
        stays = self._stays(request)
        self.reply(request.client, snapshot, got, record, stays=stays)
        return KEEP if stays else CLOSE

    def reply(self, client: Client, snapshot: Snapshot, got: Answer, record: Record, *, stays: bool) -> None:
        """Send a whole answer."""
        told = self._told(snapshot, got, record)
        settle(got, snapshot.upstreams, None)
        record.usage, record.tariff = got.usage, got.attempt.tariff
        record.status, record.sent = 200, len(got.body)
        told += f"content-type: application/json\r\ncontent-length: {record.sent}\r\n"
        client.write(head_of(200, told, keep_alive=stays) + got.body)

    async def _stream(
        self, request: Request, snapshot: Snapshot, got: Answer, pump: Flow, record: Record
    ) -> web.StreamResponse:
        chunked = request.head.version >= (1, 1)
        whole = False
        try:
            self.open_stream(request.client, snapshot, got, pump, record, chunked=chunked)
            await pump.finished
        finally:
            whole = self.close_stream(snapshot, got, pump, record)
        return KEEP if whole and chunked and self._stays(request) else CLOSE

    def open_stream(
        self, client: Client, snapshot: Snapshot, got: Answer, pump: Flow, record: Record, *, chunked: bool
    ) -> None:
        """Send the head of a stream, and let its events flow."""
        told = self._told(snapshot, got, record) + EVENT_STREAM
        if chunked:
            told += "transfer-encoding: chunked\r\n"
        record.status = 200
        client.pump = pump
        outlet = client if record.trace is None else record.trace.listener(client)
        pump.flow(outlet, head_of(200, told, keep_alive=chunked), chunked)
        if client.writing_paused:
            # What came before it has filled the client's buffer already; nobody will say so again.
            pump.hold()

    def close_stream(self, snapshot: Snapshot, got: Answer, pump: Flow, record: Record) -> bool:
        """A stream has come to its end, or its client has left: returns whether it went out whole."""
        outcome: GatewayError | None = GatewayError("The client left.", code="client_disconnect")
        # A stream that broke off closes the client's connection, which cancels its task: the reason is the first.
        if pump.finished.done() and not pump.finished.cancelled():
            outcome = pump.finished.result()
        if outcome is not None:
            record.code = outcome.code or "internal_error"
            self._report(outcome, record)
        pump.stop()
        settle(got, snapshot.upstreams, outcome)
        record.sent = pump.sent
        record.usage, record.tariff = pump.usage(), got.attempt.tariff
        return outcome is None

    def _report(self, error: GatewayError, record: Record) -> None:
        """Say where a fault of our own, or of a plugin, comes from."""
        if error.code == "internal_error" and error.__cause__ is not None:
            self._log.news("error", "a request failed inside the gateway", id=record.id, error=where(error.__cause__))

    def _admit(self, request: Request, snapshot: Snapshot, record: Record) -> Caller:
        """Path, method and key, in this order; raises GatewayError."""
        path, headers = record.path, request.head.headers
        dialect = self._dialects.get(path)
        allowed = "POST" if dialect else "GET"
        if dialect is None and path not in {MODELS, CAPABILITIES} and not path.startswith(MODELS + "/"):
            message = f"There is nothing at this path. Answered are: {', '.join((*self._dialects, MODELS))}."
            raise GatewayError(message, status=404, kind="invalid_request_error", code="not_found")
        if request.head.method != allowed:
            message = f"Only {allowed} is allowed here."
            raise GatewayError(message, status=405, kind="invalid_request_error", code="method_not_allowed")
        if snapshot.access.open and not snapshot.config.server.insecure:
            origin = headers.get("Origin") if snapshot.cors is None else snapshot.cors.stranger(headers)
            check_local(headers.get("Host", ""), origin, snapshot.config.server.listen.port)
        try:
            caller = snapshot.access.identify(headers.getall("Authorization", ()), time.time())
        except Unauthorized as error:
            if self.learn_refusal is not None and self.tracer is None:
                self.learn_refusal(request, error, snapshot)
            raise
        record.key = caller.key
        if dialect is not None and not headers.get("Content-Type", "").lower().startswith("application/json"):
            message = "The request body must be sent as application/json."
            raise InvalidRequest(message, status=415, code="unsupported_media_type")
        return caller

    async def _read_chat(self, request: Request, snapshot: Snapshot, dialect: Dialect, record: Record) -> ChatRequest:
        body = await read_body(request, self.bounds, self.ledger)
        record.received = record.reserved = len(body)
        record.read = time.perf_counter()
        headers = request.head.headers
        readable = {name: headers[name] for name in READABLE if name in headers}
        if PARENT in headers and (parent := read_parent(headers.getall(PARENT), headers.getall(STATE, ()))):
            record.trace_id = parent.trace
            readable.update(parent.headers())
        for name in snapshot.router.headers:
            if name in headers:
                readable[name] = headers[name]
        chat = dialect.open_request(body, readable)
        record.model = chat.model[:200]
        record.stream = chat.stream
        return chat

    def _list(self, request: Request, snapshot: Snapshot, caller: Caller, record: Record) -> web.StreamResponse:
        """The models that the caller may use, what they can do, or one of them."""
        names = [name for name in snapshot.router.names if caller.may_use(name)]
        if record.path == CAPABILITIES:
            found = capabilities(snapshot.router, names)
            return self._reply(request, 200, {}, orjson.dumps({"object": "list", "data": found}), record)
        if record.path == MODELS:
            found = [listed(name) for name in names]
            return self._reply(request, 200, {}, orjson.dumps({"object": "list", "data": found}), record)
        name = unquote(record.path.removeprefix(MODELS + "/"))
        if not caller.may_use(name) or not snapshot.router.knows(name):
            raise not_found(name)
        return self._reply(request, 200, {}, orjson.dumps(listed(name)), record)

    def _told(self, snapshot: Snapshot, got: Answer, record: Record) -> str:
        """The lines of a good answer's head that say how it came about."""
        record.first_byte = self._loop.time()
        record.upstream_id = got.upstream_id
        told = (
            f"x-request-id: {record.id}\r\nx-gateway-deployment: {got.attempt.name}\r\n"
            f"x-gateway-attempts: {record.attempts}\r\nx-gateway-config: {snapshot.digest}\r\n"
        )
        if got.upstream_id:
            told += f"x-upstream-request-id: {got.upstream_id}\r\n"
        if got.request.dropped:
            told += f"x-gateway-dropped-params: {named(got.request.dropped)}\r\n"
        if got.request.translated:
            told += f"x-gateway-translated-params: {named(got.request.translated)}\r\n"
        for more in (got.told, record.allowance, record.marks):
            if more:
                told += lines(more)
        return told

    def _reply(
        self,
        request: Request,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        record: Record,
        *,
        closes: bool = False,
    ) -> web.StreamResponse:
        stays = self._stays(request) and not closes
        record.status, record.sent = status, len(body)
        told = {"x-request-id": record.id, **(record.marks or {}), **headers}
        request.client.write(answer(status, told, body, keep_alive=stays))
        return KEEP if stays else CLOSE

    def refuse(self, request: Request, error: GatewayError, record: Record) -> web.StreamResponse:
        """Answer with an error."""
        cors = self.snapshot.cors
        if cors is not None and (allowed := cors.preflight(request.head.method, request.head.headers)):
            # No key is asked for, and nothing is served: a browser only asks whether its page may call.
            record.status, stays = 204, self._stays(request) and request.content.is_eof() and not error.closes
            request.client.write(head(204, {"x-request-id": record.id, **allowed}, keep_alive=stays))
            return KEEP if stays else CLOSE
        headers = {"x-gateway-attempts": record.attempts} if record.attempts else {}
        if error.retry_after is not None:
            # Never less than it is: who comes back a moment too soon is refused again.
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
            headers["retry-after-ms"] = str(max(1, math.ceil(round(error.retry_after * 1000, 3))))
        if record.allowance:
            headers.update(record.allowance)
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        if getattr(error, "no_retry", False):
            headers["x-should-retry"] = "false"
        record.code = error.code or "internal_error"
        closes = error.closes or not request.content.is_eof()
        return self._reply(request, error.status, headers, orjson.dumps(error.body()), record, closes=closes)

    def _stays(self, request: Request) -> bool:
        # An HTTP/1.0 client would have to be told that its connection stays; hardly one asks.
        return not (request.head.should_close or self.draining or request.head.version == (1, 0))

    def _record(self, request: Request) -> Record:
        message = request.head
        path = message.path.partition("?")[0]
        if path not in self._dialects:
            path = path[:200].encode("ascii", "backslashreplace").decode()
        record = Record(self._loop.time(), self.name(message.headers.get("X-Request-ID")), message.method[:20], path)
        if self.tracer is not None:
            _begin_trace(self.tracer, request, record)
        if self.snapshot.cors is not None:
            record.marks = self.snapshot.cors.marks(message.headers)
        return record

    def name(self, given: str | None) -> str:
        """The id of a request: what the client calls it, if that may stand in a log."""
        if given is not None and SANE_ID.fullmatch(given):
            return given
        return f"{self._id_prefix}{next(self._numbers):06x}"


def _begin_trace(tracer: Tracer, request: Request, record: Record) -> None:
    headers = request.head.headers
    record.trace = tracer.begin(read_parent(headers.getall(PARENT, ()), headers.getall(STATE, ())))
    record.trace_id = record.trace.id
