"""A way through an HTTP proxy: CONNECT, its answer, and nothing of either in an error."""

from __future__ import annotations

import asyncio
import re
import socket

from gateway.egress import Proxy
from gateway.errors import Unreachable

PROXY_ERROR = "upstream_proxy_error"
# A proxy's refusal may bring a page along, which is not read.
MAX_ANSWER = 16 * 1024

_ANSWER = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")
_END = b"\r\n\r\n"


async def open_tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Have the proxy at the other end of the socket connect to a host; raises Unreachable."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(sock, _request(proxy, host, port))
        answer = b""
        while _END not in answer:
            data = await loop.sock_recv(sock, MAX_ANSWER)
            answer += data
            if not data or len(answer) > MAX_ANSWER:
                break
    except TimeoutError:
        raise
    except OSError as error:
        raise Unreachable("The egress proxy closed the connection.", code=PROXY_ERROR) from error
    if why := _refusal(answer):
        raise Unreachable(f"The egress proxy {why}.", code=PROXY_ERROR)


def _request(proxy: Proxy, host: str, port: int) -> bytes:
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    secret = f"proxy-authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    return f"CONNECT {name} HTTP/1.1\r\nhost: {name}\r\n{secret}\r\n".encode("ascii")


def _refusal(answer: bytes) -> str:
    """Why the answer opens no tunnel; empty when it does."""
    if not answer:
        return "closed the connection"
    found = _ANSWER.match(answer)
    if found and found[1][:1] != b"2":
        return f"refused to connect (status {int(found[1])})"
    _, end, more = answer.partition(_END)
    if not found or not end:
        return "did not answer in HTTP"
    # The provider's first bytes come only after ours: what follows the head here is not the provider's.
    return "answered with more than a head" if more else ""
