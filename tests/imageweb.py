"""The internet as image fetching sees it, one real server on loopback behind all names, and requests that need it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import orjson
import pytest
from upstreams import ScriptedUpstream, Step

from gateway.envelope import Envelope, open_envelope
from gateway.errors import InvalidRequest, Unreachable
from gateway.images import FetchBounds, Fetched, Images
from gateway.limits import Ledger

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 20
JPEG = b"\xff\xd8\xff\xe0" + b"\x01" * 20
GIF = b"GIF89a" + b"\x02" * 20
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 " + b"\x03" * 8
PDF = b"%PDF-1.7\n%%EOF\n"
HOST, ADDRESS = "images.example.com", "93.184.216.34"
URL = f"https://{HOST}/a.png"
CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n"


def served(body: bytes, kind: str = "image/png", status: str = "200 OK", **headers: str) -> Sequence[Step]:
    """Steps that answer with this body."""
    lines = {"Content-Type": kind, "Content-Length": str(len(body))}
    lines.update((name.replace("_", "-"), value) for name, value in headers.items())
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return [{"x": (f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body).hex()}, {"fin": True}]


class Web:
    """`names` are host names with their addresses; a list of lists is one answer after the other.

    `asked` are the names that were looked up, `opened` the (host, address, port) of every connection. `broken` are
    addresses that refuse.
    """

    def __init__(
        self, server: ScriptedUpstream, names: Mapping[str, Sequence[Any]], broken: Sequence[str] = ()
    ) -> None:
        self.server = server
        self.names = names
        self.broken = broken
        self.asked: list[str] = []
        self.opened: list[tuple[str, str, int]] = []

    async def resolve(self, host: str, port: int) -> list[tuple[int, str]]:
        """The addresses of a name; a literal address is its own."""
        found = self.names.get(host)
        if found is None and not host.replace(".", "").isdigit() and ":" not in host:
            raise Unreachable("The provider's host name does not resolve.")
        if found is None:
            found = [host]
        if found and isinstance(found[0], list):
            found = found[min(self.asked.count(host), len(found) - 1)]
        self.asked.append(host)
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in found]

    async def connect(
        self, host: str, address: tuple[int, str], port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the one server there is, whatever the address."""
        self.opened.append((host, address[1], port))
        if address[1] in self.broken:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    def images(self, **bounds: Any) -> Images:
        """Image fetching over this internet, by the real rules."""
        return Images(self.resolve, self.connect, bounds=FetchBounds(**bounds))


@contextlib.asynccontextmanager
async def web(
    *scripts: Sequence[Step], names: Mapping[str, Sequence[Any]] | None = None, broken: Sequence[str] = ()
) -> AsyncIterator[Web]:
    """An internet whose server runs these scripts; `images.example.com` exists."""
    async with ScriptedUpstream(*scripts) as server:
        yield Web(server, {HOST: [ADDRESS]} if names is None else names, broken)


def data(body: bytes, kind: str = "image/png") -> str:
    """A body as a data URL."""
    return f"data:{kind};base64,{b64encode(body).decode()}"


def image(url: str, **more: Any) -> dict[str, Any]:
    """A part that shows an image."""
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(url: str) -> dict[str, Any]:
    """A part that hands over a file."""
    return {"type": "file", "file": {"file_data": url, "filename": "a.pdf"}}


def chat(*parts: Any) -> Envelope:
    """A request with one message of these parts."""
    return open_envelope(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}))


def parts_of(request: Any) -> Any:
    """The parts of a request's first message."""
    return request.get("messages")[0]["content"]


def room(limit: int = 1 << 30) -> Fetched:
    """Nothing fetched yet, and so many bytes of memory for it."""
    return Fetched(Ledger(limit))


async def refusal(images: Images, request: Envelope, fetched: Fetched | None = None) -> InvalidRequest:
    """The error of a request that must not be served."""
    with pytest.raises(InvalidRequest) as caught:
        await images.inlined(request, (), fetched or room())
    error = caught.value
    assert (error.status, error.kind, error.code) == (400, "invalid_request_error", "invalid_image_url")
    return error


def refused(run: Callable[[Any], Any], *script: Step, part: Any = None, **bounds: Any) -> str:
    """Why this answer is not taken."""

    async def main() -> str:
        async with web(script) as internet:
            error = await refusal(internet.images(**bounds), chat(part or image(URL)))
            assert ADDRESS not in error.message
            place = "image_url.url" if part is None else "file.file_data"
            assert error.param == f"messages[0].content[0].{place}"
            return error.message

    return str(run(main()))
