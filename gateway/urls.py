"""Which URLs of a client the gateway may fetch, and from which addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote

MAX_URL = 8192
MAX_HOST = 253
PORT = 443

# Not only the special-purpose registry: 168.63.129.16 is Azure's host agent, reachable from inside a machine alone.
_NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    )
)
_UNICAST = IPv6Network("2000::/3")
# Protocol assignments with Teredo, documentation, 6to4, the old 6bone, documentation.
_NOT_PUBLIC_6 = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3ffe::/16", "3fff::/20")
)
# In a network that speaks IPv6 alone, the resolver puts every IPv4 address behind this prefix.
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = frozenset((0x00005EFE, 0x02005EFE))

# Names that mean something inside a network only. What they resolve to is looked at as well.
_INNER = frozenset(
    (
        *("localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "svc"),
        *("test", "invalid", "example", "onion", "arpa", "alt"),
    )
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_QUAD = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")
# Two versions of IDNA send these to two different hosts.
_AMBIGUOUS = frozenset("ßẞς")
_AS_WRITTEN = "".join(map(chr, range(0x21, 0x7F)))


class BadUrl(ValueError):
    """A URL that may not be fetched; the message says why, after the words "the URL"."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a URL leads: an ASCII host name or an IP address without brackets, a port, and path with query."""

    host: str
    port: int
    target: str

    @property
    def header(self) -> str:
        """The value of the Host header."""
        return f"[{self.host}]" if ":" in self.host else self.host


def verdict(url: str) -> str | None:
    """Why the gateway may not fetch the URL; None when only the addresses of its host remain to be judged."""
    try:
        site(url)
    except BadUrl as error:
        return str(error)
    return None


def site(url: str) -> Site:
    """Where the URL leads; raises BadUrl for every URL but https at port 443 of a host that looks public."""
    if len(url) > MAX_URL:
        raise BadUrl("is too long")
    # Parsers disagree about all of these.
    if not url.isprintable() or " " in url or "\\" in url:
        raise BadUrl("holds characters that no URL may hold")
    scheme, mark, rest = url.partition("://")
    if not mark or scheme.lower() != "https":
        raise BadUrl("must begin with https://")
    rest = rest.partition("#")[0]
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise BadUrl("must not hold credentials")
    host, port = _split(authority)
    if port not in ("", str(PORT)):
        raise BadUrl(f"must not name another port than {PORT}")
    target = rest[len(authority) :]
    return Site(_host(host), PORT, quote(target if target.startswith("/") else f"/{target}", safe=_AS_WRITTEN))


def public(address: str) -> bool:
    """May a host at this IP address be fetched from? False for whatever is not plainly on the internet."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return not any(found in network for network in _NOT_PUBLIC_4)
    if found.scope_id:
        return False
    number = int(found)
    if found in _NAT64:
        return public(str(IPv4Address(number & 0xFFFFFFFF)))
    if (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return False
    return found in _UNICAST and not any(found in network for network in _NOT_PUBLIC_6)


def _split(authority: str) -> tuple[str, str]:
    """Host and port as they are written; an IPv6 address keeps its brackets."""
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        if bracket and rest[:1] in ("", ":"):
            return host + bracket, rest[1:]
        raise BadUrl("has no valid host")
    host, _, port = authority.partition(":")
    return host, port


def _host(host: str) -> str:
    if host.startswith("["):
        if ":" not in host:
            raise BadUrl("has no valid host")
        return _literal(host[1:-1])
    name = _ascii(host).removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # Octal, hexadecimal, short and integer forms: a resolver would still take them for an address.
        if not _QUAD.fullmatch(name):
            raise BadUrl("has no valid host")
        return _literal(name)
    if not name or len(name) > MAX_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise BadUrl("has no valid host")
    if len(labels) < 2 or labels[-1] in _INNER:
        raise BadUrl("does not lead to a public host")
    return name


def _ascii(host: str) -> str:
    if host.isascii():
        return host.lower()
    if len(host) > MAX_HOST or not _AMBIGUOUS.isdisjoint(host):
        raise BadUrl("has no valid host")
    try:
        return host.encode("idna").decode().lower()
    except UnicodeError as error:
        raise BadUrl("has no valid host") from error


def _literal(text: str) -> str:
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError as error:
        raise BadUrl("has no valid host") from error
    if not public(text):
        raise BadUrl("does not lead to a public host")
    return str(address)
