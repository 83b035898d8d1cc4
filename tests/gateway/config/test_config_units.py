"""Values with units."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.config.types import Address, Budget
from gateway.config.units import UNITS, WRITTEN

GOOD = [
    *(("duration", text, value) for text, value in (("30s", 30.0), ("500ms", 0.5), ("5m", 300.0), ("1h", 3600.0))),
    *(("duration", text, value) for text, value in (("1.5s", 1.5), ("1d", 86400.0), ("0.5s", 0.5))),
    ("duration or 0s", "0s", 0.0),
    *(("size", text, value) for text, value in (("32MiB", 32 << 20), ("1GiB", 1 << 30), ("1.5KiB", 1536), ("7B", 7))),
    *(("count", text, value) for text, value in (("600", 600), ("450k", 450_000), ("2M", 2_000_000), ("1.5k", 1500))),
    *(("percent", text, value) for text, value in (("20%", 0.2), ("0%", 0.0), ("100%", 1.0), ("0.5%", 0.005))),
    ("date", "2027-01-31", datetime(2027, 1, 31, tzinfo=UTC).timestamp()),
    ("date", "2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC).timestamp()),
    ("key hash", "sha256:" + "0a" * 32, "sha256:" + "0a" * 32),
    ("origin", "https://App.example:443", "https://app.example"),
    ("origin", "http://[::1]:3000", "http://[::1]:3000"),
    ("origin", "http://localhost:80", "http://localhost"),
    ("origin", "http://localhost:443", "http://localhost:443"),
    ("origin", "capacitor://localhost", "capacitor://localhost"),
]
BAD = [
    *(
        ("duration", text)
        for text in ("", "30", "s", "-1s", "0s", "0.0ms", "1 s", "1e3", "12:30:45", "01s", "1w", "1.s")
    ),
    *(("duration", text) for text in ("inf", ".inf", "nan", "30s\n", "9999999999s", "３s")),
    *(("size", text) for text in ("32MB", "32M", "0B", "0KiB", "1.5B", "-1MiB", "32mib", "32 MiB", "")),
    *(("count", text) for text in ("0", "0k", "-1", "1.5", "1.0005k", "2G", "1e3", "600rpm", "1_000")),
    *(("percent", text) for text in ("20", "101%", "-1%", "100.5%", "0.2")),
    *(("date", text) for text in ("2027-02-31", "2027", "31.01.2027", "2027-01-31 12:00", "2027-13-01")),
    *(
        ("origin", text)
        for text in ("*", "null", "app.example", "https://", "https://a/", "https://*.a", "https://a:b")
    ),
    *(("key hash", text) for text in ("sha256:", "sha256:" + "0A" * 32, "md5:" + "0" * 64, "0" * 64)),
]
ADDRESSES = [
    ("127.0.0.1:4000", Address("127.0.0.1", 4000)),
    ("localhost:0", Address("localhost", 0)),
    ("[::1]:65535", Address("::1", 65535)),
    ("unix:/run/s.sock", Address(path="/run/s.sock")),
    ("fd:http", Address(fd="http")),
]


@pytest.mark.parametrize(("unit", "text", "value"), GOOD)
def test_a_value_with_its_unit_is_understood(unit: str, text: str, value: object) -> None:
    assert UNITS[unit].parse(text) == value


@pytest.mark.parametrize(("unit", "text"), BAD)
def test_anything_else_is_refused(unit: str, text: str) -> None:
    with pytest.raises(ValueError):
        UNITS[unit].parse(text)


@pytest.mark.parametrize(("text", "address"), ADDRESSES)
def test_an_address_is_read_and_written_alike(text: str, address: Address) -> None:
    assert WRITTEN[Address].parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["4000", ":4000", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:010", "999.0.0.1:80",
                                  "::1:80", "[::g]:80", "unix:x", "fd:", "a b:80", "-:80"])  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        WRITTEN[Address].parse(text)


def test_a_budget_is_money_per_time() -> None:
    assert WRITTEN[Budget].parse("20 USD/day") == Budget(20.0, "USD", "day")
    assert WRITTEN[Budget].parse("0.50 EUR/month") == Budget(0.5, "EUR", "month")
    for text in ("20", "20 USD", "-1 USD/day", "20 usd/day", "20 USD/week", "20USD/day"):
        with pytest.raises(ValueError):
            WRITTEN[Budget].parse(text)


def test_every_unit_has_an_example_that_it_takes() -> None:
    for unit in (*UNITS.values(), *WRITTEN.values()):
        first = unit.example.split(",")[0].split(" or ")[0].removesuffix(" and 64 hexadecimal digits").strip('"')
        assert unit.secret or unit.parse(first) is not None
