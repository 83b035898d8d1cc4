"""Images that a client names by URL, fetched and put into its request as data."""

from __future__ import annotations

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.contract import ChatRequest
from gateway.envelope import Envelope
from gateway.errors import BadUpstreamResponse, InvalidRequest, UpstreamError
from gateway.hub import Json
from gateway.limits import Ledger
from gateway.upstream.dial import tls_context
from gateway.upstream.framing import Framing
from gateway.upstream.names import Address, Resolver
from gateway.urls import BadUrl, Site, public, site

MIB = 1024 * 1024
READ = 64 * 1024
# All addresses of a host are judged, so many are tried.
TRIES = 4
USER_AGENT = "sluiceway"

IMAGE = re.compile(r"image/[a-z0-9][a-z0-9.+-]{0,63}")
PDF = "application/pdf"
# An answer's first bytes say the same as its content type, for the types that every provider reads.
_MAGIC: Mapping[str, re.Pattern[bytes]] = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    PDF: re.compile(rb"%PDF-"),
}
# Where the URL stands in a part of this type.
_KEYS = {"image_url": "url", "file": "file_data"}
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SAME = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
# One text for all of these: a client must not learn which names exist inside, or what they resolve to.
_UNREACHABLE = "the host cannot be reached"

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[str, Address, int], Awaitable[Stream]]


@dataclass(frozen=True, slots=True)
class FetchBounds:
    """What may be fetched for one request: how many images, bytes of each and of all, seconds altogether.

    `sockets` is how many connections all requests together may have open.
    """

    count: int = 16
    each: int = 20 * MIB
    total: int = 50 * MIB
    seconds: float = 10.0
    sockets: int = 128


@dataclass(slots=True)
class Fetched:
    """What one request's attempts have fetched: `data` by part type and URL, and how many bytes (`size`).

    `held` is its room in the ledger, which whoever made this gives back when the request ends.
    """

    ledger: Ledger
    held: int = 0
    size: int = 0
    data: dict[tuple[str, str], str] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def hold(self, size: int) -> None:
        """Reserve memory; raises Overloaded when there is none."""
        self.ledger.take(size)
        self.held += size


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a request a URL stands: message, content part, and the keys down to it."""

    message: int
    part: int
    keys: tuple[str, ...]
    url: str

    @property
    def kind(self) -> str:
        """The part's type."""
        return self.keys[0]

    @property
    def key(self) -> tuple[str, str]:
        """What is the same for places that one fetch serves."""
        return self.kind, self.url

    @property
    def param(self) -> str:
        """The place as errors name it."""
        return ".".join((f"messages[{self.message}].content[{self.part}]", *self.keys))


class NotFetched(Exception):
    """An image cannot be had; the message says why and is safe to show."""


class Dialer:
    """Opens TLS connections to an address that was judged before; no name is resolved here."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls

    async def __call__(self, host: str, address: Address, port: int) -> Stream:
        """Connect to `address`, and to nothing else; its certificate must be that of `host`."""
        if self._tls is None:
            self._tls = tls_context()
        family, number = address
        return await asyncio.open_connection(number, port, family=family, ssl=self._tls, server_hostname=host)


class Images:
    """Fetches for all requests. `public` judges every address that `resolve` gives, `connect` opens a judged one."""

    def __init__(
        self,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
        judge: Callable[[str], bool] = public,
        bounds: FetchBounds = FetchBounds(),
    ) -> None:
        # A resolver apart from that of the providers: names that hang must not keep their threads.
        self._resolver = Resolver()
        self._resolve = resolve or self._resolver.resolve
        self._connect = connect or Dialer()
        self._public = judge
        self._bounds = bounds
        self._slots = asyncio.Semaphore(bounds.sockets)

    def close(self) -> None:
        """Let the resolver's threads end."""
        self._resolver.close()

    async def inlined(
        self, chat: ChatRequest, own: tuple[str, ...], fetched: Fetched, deadline: float = float("inf")
    ) -> ChatRequest:
        """The request with data: URLs in place of web URLs; the same object when it has none.

        URLs that begin with one of `own` stay: the provider knows them. Raises InvalidRequest that names the part for
        every other URL that cannot be fetched, and Overloaded when the ledger has no room.
        """
        messages, most = chat.get("messages"), self._bounds.count
        found = [place for place in places(messages) if not place.url.startswith(own)]
        if not found:
            return chat
        if len(found) > most:
            raise _refusal(found[most], f"at most {most} are fetched for one request")
        # Two attempts of a request may run at once: the second takes what the first has fetched.
        async with fetched.turn:
            await self._complete(found, fetched, deadline)
        assert isinstance(chat, Envelope)
        return chat.with_values({"messages": replaced(messages, {place: fetched.data[place.key] for place in found})})

    async def _complete(self, found: list[Place], fetched: Fetched, deadline: float) -> None:
        """Fetch what is not there yet: everything or, where one fails, nothing."""
        wanted: dict[tuple[str, str], list[Place]] = {}
        for place in found:
            if place.key not in fetched.data:
                wanted.setdefault(place.key, []).append(place)
        until = min(asyncio.get_running_loop().time() + self._bounds.seconds, deadline)
        before = fetched.size
        try:
            await _all(self._fetch(same, fetched, until) for same in wanted.values())
        except BaseException:
            fetched.size = before
            for key in wanted:
                fetched.data.pop(key, None)
            raise

    async def _fetch(self, same: list[Place], fetched: Fetched, until: float) -> None:
        """Fetch one URL for all its places."""
        place = same[0]
        try:
            async with asyncio.timeout_at(until), self._slots:
                fetched.data[place.key] = await self._get(site(place.url), place.kind, fetched, len(same))
        except BadUrl as error:
            raise _refusal(place, f"the URL {error}") from error
        except NotFetched as error:
            raise _refusal(place, str(error)) from error
        except TimeoutError as error:
            raise _refusal(place, "it did not come in time") from error
        except UpstreamError as error:
            raise _refusal(place, "the server's answer is broken") from error
        except OSError as error:
            raise _refusal(place, _UNREACHABLE) from error

    async def _get(self, where: Site, kind: str, fetched: Fetched, times: int) -> str:
        reader, writer = await self._open(where)
        try:
            writer.write(_request(where, kind))
            answer = Unpacked()
            body = bytearray()
            while not answer.complete:
                if data := await reader.read(READ):
                    piece = answer.feed(data)
                    self._check(answer, kind)
                    body += piece
                    self._account(fetched, len(body), len(piece) * times)
                else:
                    answer.finish()
        finally:
            writer.transport.abort()
        media_type = _declared(answer)
        _check_content(media_type, body)
        return f"data:{media_type};base64,{b64encode(body).decode()}"

    async def _open(self, where: Site) -> Stream:
        """A connection to an address of the host, if every address of it is public."""
        try:
            addresses = await self._resolve(where.host, where.port)
        except UpstreamError as error:
            raise NotFetched(_UNREACHABLE) from error
        if not all(self._public(number) for _, number in addresses):
            raise NotFetched(_UNREACHABLE)
        failure: OSError | None = None
        for address in addresses[:TRIES]:
            try:
                return await self._connect(where.host, address, where.port)
            except OSError as error:
                failure = error
        raise NotFetched(_UNREACHABLE) from failure

    def _check(self, answer: Framing, kind: str) -> None:
        """Refuse an answer by its head, as soon as that is there."""
        if not answer.status:
            return
        if 300 <= answer.status < 400:
            raise NotFetched("the URL redirects")
        if answer.status != 200:
            raise NotFetched(f"the server answered with status {answer.status}")
        if not _allowed(_declared(answer), kind):
            raise NotFetched("its content type is not allowed")
        if int(answer.headers.get("content-length", 0)) > self._bounds.each:
            raise NotFetched(f"it is larger than {self._bounds.each} bytes")

    def _account(self, fetched: Fetched, size: int, more: int) -> None:
        """Count bytes against what one image, one request and the process may have."""
        fetched.size += more
        if size > self._bounds.each:
            raise NotFetched(f"it is larger than {self._bounds.each} bytes")
        if fetched.size > self._bounds.total:
            raise NotFetched(f"this request's images are larger than {self._bounds.total} bytes together")
        fetched.hold(more * 4 // 3)


class Unpacked(Framing):
    """An answer's framing that refuses every content coding."""

    __slots__ = ()

    def unpack(self, coding: str) -> None:
        """No coding is undone here."""
        if coding != "identity":
            raise BadUpstreamResponse("The image is packed.")


def places(messages: Any) -> Iterator[Place]:
    """Every URL with a scheme and `//` in an image_url part, or in a file part's data."""
    for number, message in enumerate(_items(messages)):
        for index, part in enumerate(_items(message.get("content") if isinstance(message, dict) else None)):
            keys, url = _url_of(part)
            if isinstance(url, str) and _ADDRESS.match(url):
                yield Place(number, index, keys, url)


def replaced(messages: Sequence[Any], data: Mapping[Place, str]) -> list[Any]:
    """The messages with other URLs at these places; what does not change is the same object."""
    fresh = list(messages)
    for place, url in data.items():
        message = fresh[place.message]
        content = list(message["content"])
        content[place.part] = _put(content[place.part], place.keys, url)
        fresh[place.message] = {**message, "content": content}
    return fresh


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _url_of(part: Any) -> tuple[tuple[str, ...], Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _KEYS:
        return (), None
    body = part.get(kind)
    if isinstance(body, dict):
        return (kind, _KEYS[kind]), body.get(_KEYS[kind])
    return (kind,), body if kind == "image_url" else None


def _put(value: Json, keys: tuple[str, ...], url: str) -> Json:
    return {**value, keys[0]: _put(value[keys[0]], keys[1:], url) if keys[1:] else url}


def _request(where: Site, kind: str) -> bytes:
    accept = "image/*" if kind == "image_url" else f"{PDF}, image/*"
    head = f"GET {where.target} HTTP/1.1\r\nhost: {where.header}\r\nuser-agent: {USER_AGENT}\r\naccept: {accept}\r\n"
    return f"{head}accept-encoding: identity\r\nconnection: close\r\n\r\n".encode("ascii")


def _declared(answer: Framing) -> str:
    name = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return _SAME.get(name, name)


def _allowed(media_type: str, kind: str) -> bool:
    return IMAGE.fullmatch(media_type) is not None or (kind == "file" and media_type == PDF)


def _check_content(media_type: str, body: bytearray) -> None:
    found = next((name for name, magic in _MAGIC.items() if magic.match(body)), "")
    if not body or ((found or media_type in _MAGIC) and found != media_type):
        raise NotFetched("its content is not what its content type says")


def _refusal(place: Place, why: str) -> InvalidRequest:
    what = "image" if place.kind == "image_url" else "file"
    return InvalidRequest(f"The {what} cannot be fetched: {why}.", code="invalid_image_url", param=place.param)


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first that fails ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
