"""One attempt: the request as the provider wants it, sent, and its answer read."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import orjson
from msgspec import Struct

from gateway.contract import (
    ChatRequest,
    Dialect,
    Mender,
    Relay,
    Stamp,
    StreamEncoder,
    UpstreamRequest,
    Usage,
)
from gateway.credentials import Source
from gateway.dialects.openai_chat import chunks_of
from gateway.envelope import Envelope
from gateway.errors import BadUpstreamResponse, GatewayError, InvalidRequest, UpstreamError
from gateway.health import Health
from gateway.hub import Json
from gateway.images import Images
from gateway.log import News
from gateway.pump import Flow, Pump
from gateway.quotas import Counts
from gateway.relay import Passthrough, Translated, read_whole
from gateway.routes import Attempt
from gateway.sharing.targets import SharedCounts
from gateway.tracing.trace import Span
from gateway.upstream import Account, Call, Collector, Endpoint, Ready, Sink, Sweep
from gateway.upstream.framing import read_headers
from gateway.usage import read_usage
from gateway.visits import Visit

ERROR_BODY = 64 * 1024
REQUEST_ID = re.compile(
    # Not the whole pattern without regard to case: the search for a line's end would then take five times as long.
    rb"\n(?i:x-request-id|request-id|x-amzn-requestid|apim-request-id):[ \t]*([!-~]{1,200})"
)
# Clients make up names as they like: what stands in a header is short, and means nothing else there.
PLAIN_NAME = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)
MOST_NAMES = 50
# What a client may say to its provider in headers; everything else stays here.
PASSED_ON = ("idempotency-key", "traceparent", "tracestate")


@dataclass(slots=True)
class Upstreams:
    """What attempts are made with: connections, secrets and health, by name, and who fetches images."""

    sweep: Sweep
    news: News
    write_timeout: float = 60.0
    accounts: dict[str, Account] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    images: Images = field(default_factory=Images)
    counts: Counts = field(default_factory=Counts)
    # Seconds that a provider's clock is ahead of ours, by account: a signature of the wrong time is refused.
    skew: dict[str, float] = field(default_factory=dict)
    # `counts` again where several processes count together: then limits are asked for.
    shared: SharedCounts | None = None

    def now_at(self, account: str) -> float:
        """The Unix time by the provider's own clock, as far as it has told."""
        return time.time() + self.skew[account] if account in self.skew else time.time()

    def health_of(self, name: str) -> Health:
        """The state of a deployment."""
        health = self.health.get(name)
        if health is None:
            health = self.health[name] = Health()
        return health


class Answer(Struct):
    """What an attempt brought: a whole `body`, or a `pump` that holds the beginning of a stream.

    `visit` is the place at the upstream that it still takes; `gateway.attempts.settle` ends it. `span` is the attempt
    in the request's trace.
    """

    attempt: Attempt
    request: UpstreamRequest
    upstream_id: str
    waited: float = 0.0
    told: Mapping[str, str] = {}
    body: bytes = b""
    usage: Usage | None = None
    pump: Flow | None = None
    visit: Visit | None = None
    span: Span | None = None


class Exchange:
    """One attempt under way: `call` is to be sent with `head` and `body`; `answer` reads what it brought.

    Raises InvalidRequest for what this provider cannot be asked. `deadline` is a time of the event loop; `ready`
    is for who waits in another way than `exchange`.
    """

    __slots__ = (
        "_attempt",
        "_chat",
        "_dialect",
        "_limits",
        "_relay",
        "_stamp",
        "_upstreams",
        "call",
        "endpoint",
        "head",
        "request",
    )

    def __init__(
        self,
        attempt: Attempt,
        chat: ChatRequest,
        dialect: Dialect,
        stamp: Stamp,
        upstreams: Upstreams,
        deadline: float,
        ready: Ready | None = None,
    ) -> None:
        self._attempt = attempt
        self._chat = chat = adapted(attempt, chat)
        self._dialect = dialect
        self._stamp = stamp
        self._upstreams = upstreams
        speech = attempt.provider.native.get(dialect.name) or attempt.provider.chat
        if speech is None:
            raise InvalidRequest(f"This model cannot be reached through {dialect.path}.", code="unsupported_dialect")
        self.request = request = speech.build_request(chat, attempt.target)
        self._limits = attempt.stream_limits if chat.stream else attempt.whole_limits
        self._relay = _relay(attempt, chat, dialect, stamp) if chat.stream else None
        self.endpoint = endpoint = upstreams.accounts[attempt.account].endpoint(request.url)
        self.call = Call(endpoint, self._limits, upstreams.sweep, deadline, self._sink, ready)
        self.head = _head(attempt, chat, request, endpoint, upstreams)

    def answer(self, waited: float) -> Answer:
        """What the call brought once it is ready; raises UpstreamError for what the provider did wrong."""
        call, attempt = self.call, self._attempt
        sink = call.sink
        if isinstance(sink, Pump):
            return Answer(attempt, self.request, upstream_id(call.raw_head), waited, told(call.raw_head), pump=sink)
        assert isinstance(sink, Collector)
        if call.status != 200:
            raise _refusal(attempt, call.status, call.headers, sink.body)
        body, usage = _whole(attempt, self._chat, self._dialect, self._stamp, sink.body)
        return Answer(attempt, self.request, upstream_id(call.raw_head), waited, told(call.raw_head), body, usage)

    def _sink(self, call: Call) -> Sink:
        if call.status != 200:
            return Collector(call.ready, ERROR_BODY, cut=True)
        if self._relay is not None:
            return Pump(self._relay, call, self._upstreams.sweep, self._upstreams.write_timeout)
        return Collector(call.ready, self._limits.max_response)


async def exchange(
    attempt: Attempt, chat: ChatRequest, dialect: Dialect, stamp: Stamp, upstreams: Upstreams, deadline: float
) -> Answer:
    """Make one attempt; returns when the answer is whole, or when a stream has shown its first good event.

    Raises UpstreamError for everything that the provider or the way to it did wrong, and what `Exchange` raises.
    """
    going = Exchange(attempt, chat, dialect, stamp, upstreams, deadline)
    asked = time.perf_counter()
    await going.call.send(going.head, going.request.body)
    return going.answer(time.perf_counter() - asked)


def told(head: bytes) -> Mapping[str, str]:
    """What of the answer's headers is meant for the client even beside a good answer."""
    if head.find(b"etry-") < 0:
        return {}
    headers = read_headers(head)
    return {name: headers[name] for name in ("retry-after", "retry-after-ms") if name in headers}


def named(parameters: Sequence[str]) -> str:
    """Names of parameters as a header's value: odd ones percent-encoded and cut, very many counted."""
    names = [name if PLAIN_NAME.fullmatch(name) else quote(name[:64], safe="", errors="replace") for name in parameters]
    rest = len(names) - MOST_NAMES
    return ",".join(names if rest <= 0 else (*names[:MOST_NAMES], f"{rest} more"))


def upstream_id(head: bytes) -> str:
    """The provider's own id of the exchange, under whichever name it gives it."""
    found = REQUEST_ID.search(head)
    return found[1].decode() if found else ""


def _head(
    attempt: Attempt, chat: ChatRequest, request: UpstreamRequest, endpoint: Endpoint, upstreams: Upstreams
) -> bytes:
    """The head of the request, made anew only where something in it differs from the last."""
    length = len(request.body)
    credential = upstreams.sources[attempt.account].current()
    proof = attempt.provider.authorize(request, credential, upstreams.now_at(attempt.account))
    key = None
    if not (chat.headers or request.headers or credential.kind == "aws"):
        key = (request.url, request.method, *proof.items())
        if (usual := endpoint.usual_head(key, length)) is not None:
            return usual
    headers = {"content-type": "application/json", **request.headers, **proof}
    if chat.headers:
        headers.update((name, chat.headers[name]) for name in PASSED_ON if name in chat.headers)
    return endpoint.head(request.url, request.method, headers, length, key)


def adapted(attempt: Attempt, chat: ChatRequest) -> ChatRequest:
    """The request with an adapter's parameters over and under the client's."""
    if not (attempt.set or attempt.default):
        return chat
    assert isinstance(chat, Envelope)
    defaults = {name: value for name, value in attempt.default.items() if chat.get(name) is None}
    return chat.with_values({**defaults, **attempt.set})


def _relay(attempt: Attempt, chat: ChatRequest, dialect: Dialect, stamp: Stamp) -> Relay:
    native = attempt.provider.native.get(dialect.name)
    if native is None:
        assert attempt.provider.chat is not None
        decoder = attempt.provider.chat.open_stream(chat, attempt.target, stamp)
        encoder = dialect.open_stream(chat)
        return Translated(decoder, Named(chat.model, encoder) if attempt.echo else encoder)
    mender = native.open_mender(chat, attempt.target) if native.open_mender else None
    if attempt.echo:
        mender = Renamed(chat.model, mender)
    read_error = partial(attempt.provider.read_error, 200, {})
    return Passthrough(
        read_error, chunks_of, mender, withhold_usage=not chat.wants_usage, max_event=attempt.stream_limits.max_event
    )


def _whole(
    attempt: Attempt, chat: ChatRequest, dialect: Dialect, stamp: Stamp, body: bytes
) -> tuple[bytes, Usage | None]:
    provider = attempt.provider
    native = provider.native.get(dialect.name)
    if native is None:
        assert provider.chat is not None
        completion = provider.chat.read_response(body, chat, attempt.target, stamp)
        if attempt.echo:
            completion["model"] = chat.model
        return dialect.write_response(completion, chat), read_usage(completion.get("usage"))
    failed, usage = read_whole(body)
    if failed:
        raise provider.read_error(200, {}, body)
    if native.open_mender:
        body = native.open_mender(chat, attempt.target).body(body)
    if attempt.echo:
        body = orjson.dumps({**orjson.loads(body), "model": chat.model})
    return body, usage


def _refusal(attempt: Attempt, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    if status < 400:
        return BadUpstreamResponse(f"The provider answered with status {status}.")
    return attempt.provider.read_error(status, headers, body)


class Named:
    """An encoder whose chunks bear the name the client asked for in place of the provider's."""

    __slots__ = ("_encoder", "_model")

    def __init__(self, model: str, encoder: StreamEncoder) -> None:
        self._model = model
        self._encoder = encoder

    def feed(self, chunk: Json) -> bytes:
        """One chunk under the client's model name."""
        return self._encoder.feed({**chunk, "model": self._model})

    def fail(self, error: GatewayError) -> bytes:
        """An error as the stream's last event."""
        return self._encoder.fail(error)

    def finish(self) -> bytes:
        """The end of a healthy stream."""
        return self._encoder.finish()


class Renamed:
    """A mender that puts the name the client asked for in place of the provider's."""

    __slots__ = ("_mender", "_model")

    def __init__(self, model: str, mender: Mender | None) -> None:
        self._model = model
        self._mender = mender

    def chunk(self, payload: bytes) -> bytes | None:
        """The payload under the client's model name."""
        mended = self._mender.chunk(payload) if self._mender else payload
        return None if mended is None else self._renamed(mended)

    def body(self, body: bytes) -> bytes:
        """A whole answer under the client's model name."""
        return self._renamed(self._mender.body(body) if self._mender else body)

    def finish(self) -> list[bytes]:
        """What the provider's own mender adds."""
        return [self._renamed(payload) for payload in self._mender.finish()] if self._mender else []

    def _renamed(self, payload: bytes) -> bytes:
        try:
            chunk: Any = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return payload
        return orjson.dumps({**chunk, "model": self._model}) if isinstance(chunk, dict) else payload
