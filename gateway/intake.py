"""Requests on their way in: what strict HTTP forbids, and bodies bounded in bytes and seconds."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import BadFraming
from gateway.front import MIB, Bounds, Request, RequestTimeout
from gateway.limits import Ledger


class TooLarge(BadFraming):
    """The body is larger than the gateway takes."""

    status = 413
    code = "request_too_large"


async def read_body(request: Request, bounds: Bounds, ledger: Ledger) -> bytes:
    """The whole request body, whose size stays reserved in the ledger: the caller gives it back.

    Refused by its declared length before a byte is read; else while it is read. Raises TooLarge, Overloaded,
    RequestTimeout or BadFraming.
    """
    headers = request.head.headers
    declared = headers.get("Content-Length")
    content = request.content
    if declared is not None and int(declared) > bounds.max_body:
        raise TooLarge(f"The request body is larger than {bounds.max_body} bytes.")
    if content.is_eof():
        body = content.read_nowait()
        ledger.take(len(body))
        return body
    reserved = Reserved(ledger)
    try:
        reserved.reach(int(declared or 0))
        if headers.get("Expect"):
            request.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await _read_slowly(request, bounds, reserved)
    except BaseException:
        ledger.give_back(reserved.size)
        raise


class Reserved:
    """What one request body has of the ledger: its declared size, or as much as has come."""

    __slots__ = ("_ledger", "size")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.size = 0

    def reach(self, size: int) -> None:
        """Have so much; raises Overloaded."""
        if size > self.size:
            self._ledger.take(size - self.size)
            self.size = size


async def _read_slowly(request: Request, bounds: Bounds, reserved: Reserved) -> bytes:
    client = request.client
    pieces: list[bytes] = []
    size = 0
    if not reserved.size:
        client.reads(request.content)
    try:
        async with asyncio.timeout(bounds.body_timeout + (reserved.size or bounds.max_body) / MIB):
            while piece := await request.content.readany():
                size += len(piece)
                if size > bounds.max_body:
                    raise TooLarge(f"The request body is larger than {bounds.max_body} bytes.")
                reserved.reach(size)
                pieces.append(piece)
    except TimeoutError as error:
        raise RequestTimeout("The request body did not arrive in time.") from error
    except (web.HTTPException, HttpProcessingError, web.RequestPayloadError) as error:
        raise BadFraming("The request body's framing is broken.") from error
    finally:
        client.reads(None)
    return b"".join(pieces)


def check_request(request: Request) -> None:
    """Raise BadFraming for what a strict HTTP/1.1 server must not let through; the connection is then closed."""
    message = request.head
    headers = message.headers
    if message.version not in {(1, 1), (1, 0)}:
        raise BadFraming("Only HTTP/1.1 and HTTP/1.0 are spoken here.", status=505)
    if message.chunked and (message.version == (1, 0) or headers.get("Transfer-Encoding", "").lower() != "chunked"):
        raise BadFraming("This transfer coding is not supported.")
    if not message.chunked and "Transfer-Encoding" in headers:
        raise BadFraming("This transfer coding is not supported.", status=501)
    if message.upgrade:
        raise BadFraming("No other protocol is spoken here.")
    if len(headers.getall("Authorization", ())) > 1 or len(headers.getall("Host", ())) > 1:
        raise BadFraming("A header that may stand once stands twice.")
    if "Content-Encoding" in headers:
        raise BadFraming("A packed request body is not supported.", status=415, code="unsupported_media_type")
    if (expect := headers.get("Expect")) is not None and expect.lower() != "100-continue":
        raise BadFraming("This expectation cannot be met.", status=417)
