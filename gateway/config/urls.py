"""What may stand as an address of an upstream."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

_HOST = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*\.?", re.IGNORECASE)
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
    if parts.scheme not in ("http", "https"):
        return "must begin with https:// or http://"
    if "@" in parts.netloc:
        return "must not hold credentials: use api_key"
    if "?" in url or "#" in url:
        return "must not have a query or a fragment"
    if not (_HOST.fullmatch(host) or (":" in host and _is_ip(host))):
        return "has no valid host"
    if not _PATH.fullmatch(parts.path) or {".", ".."} & set(parts.path.split("/")):
        return "has no valid path"
    return ""


def is_loopback(host: str) -> bool:
    """Does the host name this machine only?"""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return _is_ip(name) and ip_address(name).is_loopback


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
