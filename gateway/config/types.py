"""The whole of gateway.yaml as frozen values: units and references resolved, each default written once, here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from gateway.config.secrets import Pem, Secret, revealed
from gateway.purses import Budget

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# The unit names a row of `gateway.config.units`: seconds, bytes, pieces, a share of 1, Unix seconds.
Seconds = Annotated[float, Meta(extra={"unit": "duration"})]
SecondsOrOff = Annotated[float, Meta(extra={"unit": "duration or 0s"})]
Bytes = Annotated[int, Meta(extra={"unit": "size"})]
Count = Annotated[int, Meta(extra={"unit": "count"})]
Share = Annotated[float, Meta(extra={"unit": "percent"})]
Instant = Annotated[float, Meta(extra={"unit": "date"})]
# 0 stands for p95, which no duration is.
Delay = Annotated[float, Meta(extra={"unit": "duration or p95"})]
Sticky = Annotated[str, Meta(extra={"unit": "sticky"})]
KeyHash = Annotated[str, Meta(extra={"unit": "key hash"})]
Mode = Annotated[int, Meta(extra={"unit": "mode"})]
Origin = Annotated[str, Meta(extra={"unit": "origin"})]
Weight = Annotated[float, Meta(ge=0, le=1_000_000)]
Money = Annotated[float, Meta(ge=0, le=1_000_000)]
# A header value is often no secret, so writing it down is no mistake; it is masked all the same.
HeaderValue = Annotated[Secret, Meta(extra={"literal": "fine"})]
# A text that may also stand in the environment or in a file.
Referable = Annotated[str, Meta(extra={"reference": True})]
NAMES = "names"
# The keys of such a map are names that its owner chose.
Named = Meta(extra={NAMES: True})


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: host and port, or the path of a Unix socket, or the name of a socket that systemd opened."""

    host: str = ""
    port: int = 0
    path: str = ""
    fd: str = ""

    def __str__(self) -> str:
        if self.path or self.fd:
            return f"unix:{self.path}" if self.path else f"fd:{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A map in gateway.yaml whose keys are options."""


class Tls(Entry, frozen=True, kw_only=True):
    """Certificates of the front door; with `client_ca`, clients must show one of that authority."""

    cert: Pem
    key: Pem
    client_ca: Pem | None = None


class Server(Entry, frozen=True, kw_only=True):
    """The two listeners and what they bear."""

    listen: Address = Address("127.0.0.1", 4000)
    admin: Address | None = Address("127.0.0.1", 4001)
    demo: Address | None = None
    max_body: Bytes = 32 * MIB
    max_buffered: Bytes = GIB
    max_connections: Count | None = None
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 30.0
    write_timeout: Seconds = 60.0
    keepalive: Seconds = 75.0
    drain: SecondsOrOff = 300.0
    workers: Annotated[int, Meta(ge=1, le=1024)] = 1
    unix_mode: Mode = 0o660
    unix_owner: str | None = None
    unix_group: str | None = None
    tls: Tls | None = None
    cors: tuple[Origin, ...] = ()
    insecure: bool = False


class Timeouts(Entry, frozen=True, kw_only=True):
    """Timers of one upstream call. `first_byte` None: 120 s for a stream, 600 s for a whole answer. `total` 0: none."""

    connect: Seconds = 5.0
    first_byte: Seconds | None = None
    idle: Seconds = 60.0
    total: SecondsOrOff = 600.0


class Breaker(Entry, frozen=True, kw_only=True):
    """When an upstream is left alone: `failures` in a row within `window`, for `open` seconds.

    `hard`: even when there is no other.
    """

    failures: Annotated[int, Meta(ge=1, le=10_000)] = 5
    window: Seconds = 30.0
    open: Seconds = 30.0
    hard: bool = False


class Retry(Entry, frozen=True, kw_only=True):
    """What is tried again, before the first byte reaches the client.

    `attempts` bounds those of one request; None: 3, at most 2 of them at the same upstream. `unsafe` also repeats a
    request that may have run; `stale` repeats once what died on a reused connection. `backoff` is the longest first
    wait. `budget` is the share of an upstream's active requests that may be retries.
    """

    attempts: Annotated[int, Meta(ge=1, le=10)] | None = None
    on: tuple[Literal["connect", "timeout", "429", "5xx", "reset", "auth"], ...] = ("connect", "429", "5xx")
    unsafe: bool = False
    stale: bool = True
    backoff: Seconds = 0.1
    budget: Share = 0.2
    timeouts: Timeouts = Timeouts()
    breaker: Breaker = Breaker()


class Limits(Entry, frozen=True, kw_only=True):
    """Requests and tokens per minute, requests at once, money; None is no limit."""

    rpm: Count | None = None
    tpm: Count | None = None
    parallel: Count | None = None
    budget: Budget | None = None


class Queue(Entry, frozen=True, kw_only=True):
    """How many requests wait for an upstream that is full (`limits.parallel`), and how long."""

    length: Annotated[int, Meta(ge=0, le=100_000)] = 128
    wait: Seconds = 1.0


class Price(Entry, frozen=True, kw_only=True):
    """What a million tokens cost."""

    input: Money
    output: Money
    cached: Money | None = None
    cache_written: Money | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"


class ProviderEntry(Entry, frozen=True, kw_only=True):
    """One account at a provider. `base_url` is complete; `options` are the provider's own, references resolved.

    `proxy` is an HTTP proxy for whatever is asked of the provider: `http://user:password@host:port`.
    """

    type: str
    base_url: Referable = ""
    api_key: Secret | None = None
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    ca_file: Path | None = None
    proxy: Secret | None = None
    fetch_images: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def revealed(self) -> dict[str, Any]:
        """The options and `api_key` as plain text: for the credential source, for nothing else."""
        return {**revealed(self.options), **({"api_key": self.api_key.reveal()} if self.api_key else {})}


class Deployment(Entry, frozen=True, kw_only=True):
    """One upstream model at one provider account.

    `retry`, `timeouts` and `breaker` are complete: what the entry does not say, the file's `retry` says.
    `timeouts` and `breaker` are those of `retry`. `capabilities` goes over the provider's row for the model.
    """

    provider: str
    model: str
    base_model: str = ""
    unsupported_params: Literal["drop", "reject"] = "drop"
    emulate: tuple[str, ...] = ()
    echo_model: Literal["requested", "upstream"] = "upstream"
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    retry: Retry = Retry()
    timeouts: Timeouts = Timeouts()
    breaker: Breaker = Breaker()
    limits: Limits = Limits()
    queue: Queue = Queue()
    max_event: Bytes = 16 * MIB
    max_response: Bytes = 64 * MIB
    price: Price | None = None


class Adapter(Entry, frozen=True, kw_only=True):
    """A named variation of a deployment: its model id, parameters that it sets, parameters that it defaults."""

    deployment: str
    model: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)


class When(Entry, frozen=True, kw_only=True):
    """Which requests a target takes; sizes in tokens, about. What is not said does not matter."""

    has_images: bool | None = None
    has_tools: bool | None = None
    stream: bool | None = None
    min_input: Count | None = None
    max_input: Count | None = None


class RouteTarget(Entry, frozen=True, kw_only=True):
    """One choice of a routing."""

    use: str
    weight: Weight = 1.0
    when: When | None = None
    limits: Limits = Limits()


class Hedge(Entry, frozen=True, kw_only=True):
    """A second attempt beside one that has shown nothing `after` so long, for `budget` of the requests at most."""

    after: Delay
    budget: Share = 0.05


class Mirror(Entry, frozen=True, kw_only=True):
    """A share of the requests, sent to another model as well; its answers are thrown away."""

    to: str
    share: Share = 1.0


class Routing(Entry, frozen=True, kw_only=True):
    """A choice among deployments, adapters and routings; `retry` is complete, None where the file's holds.

    `sticky` keeps requests together that have the same user, header or beginning. `retry`, `hedge` and `mirror` count
    for the routing that a client names, not for one that another leads to.
    """

    strategy: Literal["weighted", "priority", "least_busy", "lowest_latency"] = "priority"
    targets: Annotated[tuple[RouteTarget, ...], Meta(min_length=1)]
    fallback: tuple[str, ...] = ()
    sticky: Sticky | None = None
    hedge: Hedge | None = None
    mirror: Mirror | None = None
    retry: Retry | None = None


class Key(Entry, frozen=True, kw_only=True):
    """A client's key: the digest of it, what it may call and how much, until when."""

    hash: KeyHash
    models: tuple[str, ...] = ("*",)
    limits: Limits = Limits()
    expires: Instant | None = None


class State(Entry, frozen=True, kw_only=True):
    """Where limits and holds are counted: in each process, or in Redis for all that have the same `prefix` there.

    `timeout` is how long a request waits for Redis. Without an answer each process grants its share, or requests with
    limits are refused, or allowed. `file` keeps what was spent of budgets over a restart, and adds up what several
    workers spend; None: `state.sqlite` in $STATE_DIRECTORY where systemd sets it, else in no file.
    """

    store: Literal["memory", "redis"] = "memory"
    url: Secret | None = None
    prefix: Annotated[str, Meta(pattern="^[A-Za-z0-9._:-]{1,64}$")] = "sluiceway"
    timeout: Seconds = 0.02
    on_error: Literal["local_share", "refuse", "allow"] = "local_share"
    file: str | None = None


class AccessLog(Entry, frozen=True, kw_only=True):
    """One line per request; `to` is stdout, stderr or a file."""

    format: Literal["json", "text"] = "json"
    to: str = "stdout"


class Otlp(Entry, frozen=True, kw_only=True):
    """Spans and figures to an OpenTelemetry collector.

    `endpoint` is what stands before `/v1/traces`. `sample` is the share of the requests without a parent whose spans
    are sent; a parent decides for itself. `content` puts messages into spans.
    """

    endpoint: str
    sample: Share = 1.0
    content: bool = False


class Telemetry(Entry, frozen=True, kw_only=True):
    """What the gateway tells about itself; `access_log: null` is silence."""

    access_log: AccessLog | None = AccessLog()
    otlp: Otlp | None = None


class Config(Entry, frozen=True, kw_only=True):
    """gateway.yaml."""

    version: Literal[1] = 1
    server: Server = Server()
    providers: Annotated[Mapping[str, ProviderEntry], Named] = field(default_factory=dict)
    deployments: Annotated[Mapping[str, Deployment], Named] = field(default_factory=dict)
    adapters: Annotated[Mapping[str, Adapter], Named] = field(default_factory=dict)
    routings: Annotated[Mapping[str, Routing], Named] = field(default_factory=dict)
    retry: Retry = Retry()
    keys: Annotated[Mapping[str, Key], Named] = field(default_factory=dict)
    state: State = State()
    telemetry: Telemetry = Telemetry()
    include: tuple[str, ...] = ()
