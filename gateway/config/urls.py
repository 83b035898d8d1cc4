"""What may stand as an address of an upstream."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.egress import UNIX, UNIX_EXAMPLE, is_ip, socket_path, socket_problem, valid_host

_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")

LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def url_problem(url: str) -> str:
    """Why the URL cannot be a `base_url`; empty when it can. The URL itself is not quoted: it may hold a password."""
    # urlsplit itself takes out line breaks and what surrounds the URL.
    if not url.isascii() or not url.isprintable() or " " in url:
        return "not a URL"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "not a URL"
    if problem := _scheme_problem(parts.scheme):
        return problem
    if "@" in parts.netloc:
        return "must not hold credentials: use api_key"
    if "?" in url or "#" in url:
        return "must not have a query or a fragment"
    if problem := socket_problem(url) if parts.scheme == UNIX else _host_problem(host):
        return problem
    if not _PATH.fullmatch(parts.path) or {".", ".."} & set(parts.path.split("/")):
        return "has no valid path"
    return ""


def _scheme_problem(scheme: str) -> str:
    if scheme == "unix":
        return f"must be written {UNIX_EXAMPLE}"
    return "" if scheme in ("http", "https", UNIX) else "must begin with https:// or http://"


def _host_problem(host: str) -> str:
    return "" if valid_host(host) else "has no valid host"


def is_local(url: str) -> bool:
    """Does the URL lead to this machine only?"""
    return bool(socket_path(url)) or is_loopback(urlsplit(url).hostname or "")


def is_loopback(host: str) -> bool:
    """Does the host name this machine only?"""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return is_ip(name) and ip_address(name).is_loopback
