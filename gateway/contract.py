"""What a provider plugin and a dialect are: records of pure functions over bytes and values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from msgspec import Struct

from gateway.errors import GatewayError, UpstreamError
from gateway.hub import Json

Decision = Literal["forward", "rename", "convert", "emulate", "drop", "reject"]


class ChatRequest(Protocol):
    """A client's request, opened one level deep. Never mutated: an attempt may be made twice."""

    @property
    def model(self) -> str: ...
    @property
    def stream(self) -> bool: ...
    @property
    def wants_usage(self) -> bool:
        """Did the client ask for `stream_options.include_usage`?"""

    @property
    def headers(self) -> Mapping[str, str]:
        """The client's headers that a plugin may look at (`anthropic-beta`), lower case."""

    def names(self) -> Collection[str]:
        """The top-level keys, in the client's order; keys whose value is null included."""

    def get(self, name: str) -> Any:
        """The decoded top-level value; None when absent or null."""

    def edited(self, changes: Mapping[str, object], drop: Sequence[str] = ()) -> bytes:
        """The body in its own dialect with top-level keys replaced, added or removed; the rest byte for byte."""

    def parsed(self) -> Json:
        """The whole request in hub shape; cached; never to be mutated."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: values from gateway.yaml, ready for the provider's functions.

    `family` is the model name that capability rules look at (`base_model`, else `model`). `options` are the
    provider entry's own options (`api_version`, `region`, `project`, ...). `abilities` is what the provider's
    `models.yaml` says about the family. `without` names parameters that this attempt must leave out.
    """

    provider: str
    model: str
    base_url: str
    family: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    abilities: Mapping[str, Any] = field(default_factory=dict)
    unsupported: Literal["drop", "reject"] = "drop"
    emulate: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()


# Made for every request, and so structs: 0.15 µs each, where a frozen dataclass of this size takes 1.2.
class UpstreamRequest(Struct, frozen=True):
    """One HTTP request for a provider, without its credential.

    `url` is absolute and already percent-encoded. `dropped` and `translated` name the parameters that
    the client must be told of. `scope` is what a signature is bound to besides (AWS: `region/service`).
    """

    url: str
    body: bytes
    headers: Mapping[str, str] = {}
    method: str = "POST"
    dropped: tuple[str, ...] = ()
    translated: tuple[str, ...] = ()
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that is valid now: `token` for key and bearer, the three others for aws. Its repr tells nothing."""

    kind: Literal["none", "key", "bearer", "aws"] = "none"
    token: str = ""
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.kind}, ***)"


class Stamp(Struct, frozen=True):
    """What a pure transform cannot know by itself: an id without prefix and the time in Unix seconds."""

    id: str
    created: int


class Usage(Struct, frozen=True):
    """Tokens by the hub's rules: `prompt` includes `cached` and `cache_written`, `completion` includes `reasoning`.

    None means that the provider did not say. `source` is `reported`, `partial` (the stream ended early) or `estimated`.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    cache_written: int | None = None
    reasoning: int | None = None
    source: Literal["reported", "partial", "estimated"] = "reported"


class StreamDecoder(Protocol):
    """A provider's stream to hub chunks; one per answer. Work is linear however small the pieces are.

    `done` turns true with the provider's terminal event; bytes after it are ignored. `failure` is set, and
    nothing more is decoded, when the provider reports an error inside the stream or breaks its own framing.
    The last chunk of a healthy stream carries the usage with `choices: []`, if any is known.
    """

    done: bool
    failure: UpstreamError | None

    def feed(self, data: bytes) -> list[Json]:
        """Take bytes cut anywhere; return the chunks that they completed."""

    def finish(self) -> list[Json]:
        """Say that the upstream closed; return what is left, or raise Truncated if it was too early."""


@dataclass(frozen=True, slots=True)
class Translation:
    """How a provider is spoken to through the hub.

    `read_response` takes the whole body of a 2xx answer and returns a chat completion with normalised
    usage; it raises UpstreamError for an error inside a 200.
    """

    build_request: Callable[[ChatRequest, Target], UpstreamRequest]
    read_response: Callable[[bytes, ChatRequest, Target, Stamp], Json]
    open_stream: Callable[[ChatRequest, Target, Stamp], StreamDecoder]


class Mender(Protocol):
    """Repairs what would break an official SDK in an answer that otherwise passes as it is; one per answer."""

    def chunk(self, payload: bytes) -> bytes | None:
        """The payload of one event: the same object when it is sound, a mended one, or None to leave it out."""

    def body(self, body: bytes) -> bytes:
        """A whole JSON answer: the same object when it is sound, else a mended one."""

    def finish(self) -> list[bytes]:
        """Payloads to add before the stream's end; none for a stream that was sound."""


@dataclass(frozen=True, slots=True)
class Native:
    """A dialect that a provider speaks itself: the request is edited at its top, the answer passes by unread.

    `open_mender` is None where nothing the provider sends breaks a client.
    """

    build_request: Callable[[ChatRequest, Target], UpstreamRequest]
    open_mender: Callable[[ChatRequest, Target], Mender] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What happens to one parameter: see `gateway.fields`."""

    decision: Decision
    to: str = ""
    convert: Callable[[Any], Any] | None = None
    note: str = ""


Table = Mapping[str, Row]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one option of a provider or deployment entry in gateway.yaml."""

    option: str
    message: str


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as a value; `dataclasses.replace` is the only inheritance.

    * `native`: dialect name to how its bytes are passed on. `chat`: how every other dialect is served.
    * `table`: the decision for every parameter, for one target (model families differ).
    * `read_error`: an answer with status >= 400, or the error object of a 200, to our error.
    * `authorize`: the headers that carry the credential, given the finished request and the Unix time.
    * `base_url`: the default, with `{option}` placeholders. `options`: names that the provider entry may
      carry besides the common ones; `check`: what is wrong with them or with a deployment's model.
    * `credential`: which source keeps the secret current, by the entry's options: `key` (api_key as given),
      or the name of a source in `gateway.credentials`.
    * `models`: the package resource of the capability data, if there is any. `env`: where `serve` without
      a file looks for the key.
    * `own_urls`: how URLs begin that only the provider can read; they are never fetched for it (`s3://`).
    """

    name: str
    read_error: Callable[[int, Mapping[str, str], bytes], UpstreamError]
    authorize: Callable[[UpstreamRequest, Credential, float], Mapping[str, str]]
    table: Callable[[Target], Table]
    base_url: str = ""
    native: Mapping[str, Native] = field(default_factory=dict)
    chat: Translation | None = None
    options: frozenset[str] = frozenset()
    check: Callable[[Mapping[str, Any], str], Sequence[Problem]] = lambda options, model: ()
    credential: Callable[[Mapping[str, Any]], str] = lambda options: "key"
    models: str = ""
    env: str = ""
    own_urls: tuple[str, ...] = ()


class StreamEncoder(Protocol):
    """Hub chunks to the client's stream; one per answer."""

    def feed(self, chunk: Json) -> bytes: ...
    def fail(self, error: GatewayError) -> bytes: ...
    def finish(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way that clients speak: its path, and its requests, answers and errors as bytes."""

    name: str
    path: str
    open_request: Callable[[bytes, Mapping[str, str]], ChatRequest]
    write_response: Callable[[Json, ChatRequest], bytes]
    open_stream: Callable[[ChatRequest], StreamEncoder]
    write_error: Callable[[GatewayError], bytes]


class Relay(Protocol):
    """What happens to one answer's bytes on their way to the client.

    `done` turns true when the answer is complete; `failure` is set when it turned out to be an error.
    `started` turns true with the first event that is no error: until then nothing may reach the client.
    `events` counts what passed, comments and pings left out. What leaves is always whole events. Where `verbatim`,
    some of them leave as they came, and `lets_pass` says which.
    """

    done: bool
    started: bool
    events: int
    failure: UpstreamError | None
    verbatim: bool

    def feed(self, data: bytes) -> bytes: ...
    def lets_pass(self, chunk: bytes) -> bool:
        """Is this HTTP chunk, framing included, to leave as it came? Then it is taken for fed."""

    def fail(self, error: GatewayError) -> bytes: ...
    def finish(self) -> bytes: ...
    def usage(self) -> Usage | None: ...
