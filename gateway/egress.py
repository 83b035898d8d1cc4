"""How an upstream is reached when a host and a port do not say it all: through a proxy, or by a Unix socket."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, unquote_to_bytes, urlsplit

# As other clients write it: the socket's path, percent-encoded, stands where a host would.
UNIX = "http+unix"
UNIX_EXAMPLE = "http+unix://%2Frun%2Fmodel.sock/v1"
# What the kernel takes, less the zero at the end.
MAX_SOCKET_PATH = 107
MASK = "***"

_HOST = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*\.?", re.IGNORECASE)
_SOCKET = re.compile(r"([A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")


class BadProxy(ValueError):
    """Not the URL of a proxy; the message says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT; `authorization` is the value of its header, empty for none."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)


def read_proxy(url: str) -> Proxy:
    """The proxy that `http://user:password@host:port` names; raises BadProxy."""
    parts = _split(url)
    host = parts.hostname or ""
    if parts.scheme != "http":
        raise BadProxy("must begin with http://: proxies are spoken to without TLS, with TLS to the provider inside")
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise BadProxy("must be http://host:port, or http://user:password@host:port")
    if not valid_host(host):
        raise BadProxy("has no valid host")
    if not parts.port:
        raise BadProxy("must name a port: clients do not agree on a default")
    return Proxy(host, parts.port, _basic(parts))


def masked(url: str) -> str:
    """The URL of a proxy that `read_proxy` takes, without its name and password."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    return f"http://{MASK}@{host}" if "@" in url else f"http://{host}"


def socket_path(url: str) -> str:
    """The path of the Unix socket that a URL names; empty when it names none."""
    scheme, _, rest = url.partition("://")
    return unquote(rest.partition("/")[0]) if scheme == UNIX else ""


def socket_problem(url: str) -> str:
    """Why the socket of an `http+unix` URL cannot be one; empty when it can."""
    place = url.partition("://")[2].partition("/")[0]
    path = socket_path(url)
    if not _SOCKET.fullmatch(place) or not path.startswith("/") or not path.isprintable():
        return f"must name a socket's absolute path, with %2F for /: {UNIX_EXAMPLE}"
    return "has a path that is too long for a socket" if len(path.encode()) > MAX_SOCKET_PATH else ""


def host_header(url: str) -> str:
    """The Host header for requests to a URL; behind a Unix socket there is no other name than localhost."""
    return "localhost" if socket_path(url) else urlsplit(url).netloc.rpartition("@")[2]


def valid_host(host: str) -> bool:
    """Is it a host's name or an IP address without brackets?"""
    return bool(_HOST.fullmatch(host)) or (":" in host and is_ip(host))


def is_ip(host: str) -> bool:
    """Is it an IP address?"""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _split(url: str) -> SplitResult:
    # urlsplit itself takes out line breaks and what surrounds the URL.
    if not url.isascii() or not url.isprintable() or " " in url:
        raise BadProxy("not a URL")
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        # From None: the original quotes the URL.
        raise BadProxy("not a URL") from None
    return parts


def _basic(parts: SplitResult) -> str:
    if "@" not in parts.netloc:
        return ""
    name, password = unquote_to_bytes(parts.username or ""), unquote_to_bytes(parts.password or "")
    if not name or b":" in name:
        raise BadProxy("must have a name without a colon before its password")
    return "Basic " + b64encode(name + b":" + password).decode()
