"""The operators' listener: is it alive, is it ready."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from aiohttp import web

from gateway.access import LOCAL_HOSTS
from gateway.errors import GatewayError
from gateway.front import CLOSE, KEEP, Request, answer

Page = Callable[[], tuple[int, str, bytes]]


class Admin:
    """Read-only pages by path; each returns status, content type and body."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self._pages = pages

    async def handle(self, request: Request) -> web.StreamResponse:
        """Serve one page."""
        head = request.head
        page = self._pages.get(head.path.partition("?")[0])
        host = (
            head.headers.get("Host", "").partition(":")[0] if "[" not in head.headers.get("Host", "") else "[::1]"
        )
        if page is None or head.method not in {"GET", "HEAD"}:
            missing = GatewayError("There is no such page.", status=404, kind="invalid_request_error", code="not_found")
            status, kind, body = 404, "application/json", orjson.dumps(missing.body())
        elif head.headers.get("Origin") is not None and host not in LOCAL_HOSTS:
            status, kind, body = 403, "text/plain", b"not for other origins\n"
        else:
            status, kind, body = page()
        request.client.write(answer(status, {}, body, keep_alive=not head.should_close, kind=kind))
        return CLOSE if head.should_close else KEEP
