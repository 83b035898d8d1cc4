"""The operators' listener: read-only pages by path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from gateway.access import LOCAL_HOSTS
from gateway.errors import GatewayError
from gateway.front import CLOSE, KEEP, Request, answer, head

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """What an operator gets to see."""

    body: bytes
    kind: str = TEXT
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


# Makes a page for an `Accept` header.
Maker = Callable[[str], Awaitable[Page]]


class Admin:
    """The pages, each made when it is asked for."""

    def __init__(self, makers: Mapping[str, Maker]) -> None:
        self._makers = makers

    async def handle(self, request: Request) -> web.StreamResponse:
        """Serve one page."""
        message = request.head
        page = await self._page(request)
        stays = not message.should_close
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff", **page.headers}
        if message.method == "HEAD":
            size = {"content-type": page.kind, "content-length": str(len(page.body))}
            request.client.write(head(page.status, {**headers, **size}, keep_alive=stays))
        else:
            request.client.write(answer(page.status, headers, page.body, keep_alive=stays, kind=page.kind))
        return KEEP if stays else CLOSE

    async def _page(self, request: Request) -> Page:
        message = request.head
        maker = self._makers.get(message.path.partition("?")[0])
        if maker is None or message.method not in {"GET", "HEAD"}:
            missing = GatewayError("There is no such page.", status=404, kind="invalid_request_error", code="not_found")
            return Page(orjson.dumps(missing.body()), "application/json", 404)
        host = message.headers.get("Host", "")
        name = "[::1]" if "[" in host else host.partition(":")[0]
        if message.headers.get("Origin") is not None and name not in LOCAL_HOSTS:
            return Page(b"not for other origins\n", status=403)
        return await maker(message.headers.get("Accept", ""))
