"""The grammar of values with units: text that people write to numbers that code uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from string import ascii_letters
from typing import Any

from gateway.config.types import Address
from gateway.purses import Budget

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_COUNTS = {"": 1, "k": 1_000, "M": 1_000_000}

# No figure is longer than nine digits, so that none overflows anything.
_DURATION = r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,3})?(ms|s|m|h|d)"
_POSITIVE = r"(?!0(\.0+)?[a-z])"
_SIZE = r"([1-9][0-9]{0,8}B|(?!0(\.0+)?[A-Z])(0|[1-9][0-9]{0,5})(\.[0-9]{1,3})?(KiB|MiB|GiB))"
_COUNT = r"([1-9][0-9]{0,8}|(?!0(\.0+)?[kM])(0|[1-9][0-9]{0,5})((\.[0-9]{1,3})?k|(\.[0-9]{1,6})?M))"
_PERCENT = r"(100|[1-9]?[0-9](\.[0-9]{1,3})?)%"
_BUDGET = r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,2})? [A-Z]{3}/(day|month)"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2}))?"
# Not by a header that holds a secret.
_STICKY = r"(user|prefix|header:(?!([Aa]uthorization|[Cc]ookie|[Pp]roxy-[Aa]uthorization)$)[A-Za-z0-9-]{1,64})"
_ORIGIN_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)"
_ORIGIN = rf"[A-Za-z][A-Za-z0-9+.-]*://{_ORIGIN_HOST}(:[1-9][0-9]{{0,4}})?"
_HASH = r"sha256:[0-9a-f]{64}"
_PORT = r"(0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)"
_ADDRESS = rf"({_HOST}:{_PORT}|unix:/[^\x00-\x1f\x7f]+|fd:[A-Za-z0-9_.-]+)"


@dataclass(frozen=True, slots=True)
class Unit:
    """How one kind of value is written: the whole `pattern`, an `example`, and what it comes to.

    `number` says that a bare whole number from 1 is the same as its text. `secret` values are never quoted.
    `convert` raises ValueError for text that fits the pattern and still means nothing (31 February).
    """

    example: str
    pattern: str
    convert: Callable[[str], Any]
    number: bool = False
    secret: bool = False

    def parse(self, text: str) -> Any:
        """The value of the text; ValueError when it is not written that way."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError
        return self.convert(text)


def _scaled(text: str, factors: Mapping[str, float]) -> float:
    number = text.rstrip(ascii_letters)
    return float(number) * factors[text[len(number) :]]


def _duration(text: str) -> float:
    return round(_scaled(text, _SECONDS), 6)


def _delay(text: str) -> float:
    return 0.0 if text == "p95" else _duration(text)


def _size(text: str) -> int:
    return round(_scaled(text, _SIZES))


def _count(text: str) -> int:
    return round(_scaled(text, _COUNTS))


def _percent(text: str) -> float:
    return round(float(text[:-1]) / 100, 9)


def _date(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _budget(text: str) -> Budget:
    amount, rest = text.split(" ")
    currency, per = rest.split("/")
    return Budget(float(amount), currency, "day" if per == "day" else "month")


def _origin(text: str) -> str:
    """As browsers write it: in small letters, without the scheme's own port."""
    scheme, _, host = text.lower().partition("://")
    return f"{scheme}://{host.removesuffix({'http': ':80', 'https': ':443'}.get(scheme, ' '))}"


def _address(text: str) -> Address:
    if text.startswith("unix:"):
        return Address(path=text[5:])
    if text.startswith("fd:"):
        return Address(fd=text[3:])
    host, _, port = text.rpartition(":")
    if host.startswith("[") or host.replace(".", "").isdigit():
        host = str(ip_address(host.strip("[]")))
    return Address(host, int(port))


UNITS: Mapping[str, Unit] = {
    "duration": Unit("30s, 500ms, 5m or 1h, above 0", _POSITIVE + _DURATION, _duration),
    "duration or 0s": Unit("30s, 500ms, 5m or 1h, or 0s", _DURATION, _duration),
    "duration or p95": Unit("2s or 500ms, above 0, or p95", f"(p95|{_POSITIVE}{_DURATION})", _delay),
    "size": Unit("512KiB, 32MiB or 1GiB", _SIZE, _size),
    "count": Unit("600, 450k or 2M", _COUNT, _count, number=True),
    "percent": Unit("20%", _PERCENT, _percent),
    "mode": Unit('"0660" or "0600", in quotes', r"0?[0-7]{3}", lambda text: int(text, 8)),
    "date": Unit("2027-01-31 or 2027-01-31T12:00:00Z", _DATE, _date),
    "sticky": Unit("user, prefix or header:NAME", _STICKY, str),
    "origin": Unit("https://app.example or http://localhost:3000", _ORIGIN, _origin),
    "key hash": Unit("sha256: and 64 hexadecimal digits, from `sluiceway keys new`", _HASH, str, secret=True),
}
# Types of their own that are written as one text.
WRITTEN: Mapping[type, Unit] = {
    Address: Unit("127.0.0.1:4000, [::1]:4000, unix:/path.sock or fd:name", _ADDRESS, _address),
    Budget: Unit("20 USD/day or 500 EUR/month", _BUDGET, _budget),
}
