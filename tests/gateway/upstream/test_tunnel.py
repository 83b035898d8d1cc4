"""gateway.upstream.tunnel: a provider reached through a proxy, and every way in which a proxy says no."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from connectproxy import ConnectProxy
from upstreams import OK_BODY, ScriptedUpstream, Step, certificates

from gateway.egress import Proxy, read_proxy
from gateway.errors import Unreachable
from gateway.upstream import Account, Endpoint
from gateway.upstream.names import Resolver
from gateway.upstream.tunnel import MAX_ANSWER
from tests.gateway.upstream.support import BODY, Noted, head

OK: list[Step] = [{"t": "{{OK}}"}]
LOGIN = "us/er:p@ss:word"
ENCODED = "dXMvZXI6cEBzczp3b3Jk"
Run = Callable[[Any], Any]


def by(proxy: str, url: str) -> Endpoint:
    return Account({}, Resolver(), certificates().ca_file, read_proxy(proxy)).endpoint(url)


async def exchanged(place: Endpoint, timeout: float = 5) -> Noted:
    noted = Noted()
    (await place.connect(timeout)).send(head(place), BODY, noted)
    async with asyncio.timeout(10):
        await noted.ended.wait()
    return noted


async def refusal(place: Endpoint, timeout: float = 5) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await place.connect(timeout)
    assert place.connections == 0
    assert (caught.value.cause, caught.value.sent) == ("connect", False)
    return caught.value


@pytest.mark.parametrize("tls", [None, "good"])
def test_a_provider_that_only_the_proxy_knows_is_reached(on_either: Run, tls: Any) -> None:
    async def main() -> None:
        async with ScriptedUpstream(OK, tls=tls) as upstream:
            names = {"localhost": ("127.0.0.1", upstream.port)}
            async with ConnectProxy(names, LOGIN) as proxy:
                place = by(proxy.url, f"{'https' if tls else 'http'}://localhost:7/v1")
                assert (await exchanged(place)).body == OK_BODY.encode()
                request = upstream.requests[0].lower()
                assert b"\r\nhost: localhost:7\r\n" in request
                assert b"proxy-authorization" not in request
                assert proxy.asked == [
                    b"CONNECT localhost:7 HTTP/1.1\r\nhost: localhost:7\r\n"
                    b"proxy-authorization: Basic " + ENCODED.encode() + b"\r\n\r\n"
                ]
                assert place.idle() is not None

    on_either(main())


def test_the_certificate_must_be_the_providers_not_the_proxys(on_either: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(OK, tls="good") as upstream:
            names = {"provider.test": ("127.0.0.1", upstream.port)}
            async with ConnectProxy(names) as proxy:
                asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
                assert (await refusal(by(proxy.url, "https://provider.test"))).code == "upstream_tls_error"
                assert upstream.requests == []
                assert proxy.hosts == ["provider.test:443"]

    on_either(main())


def test_an_ipv6_address_is_named_in_brackets(on_either: Run) -> None:
    async def main() -> None:
        async with ConnectProxy({"[2001:db8::1]": ("127.0.0.1", 1)}) as proxy:
            await refusal(by(proxy.url, "http://[2001:db8::1]/v1"))
            assert proxy.hosts == ["[2001:db8::1]:80"]

    on_either(main())


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([{"t": "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 6\r\n\r\nsecret"}], "status 407"),
        ([{"t": "HTTP/1.0 403 Forbidden\r\n"}, {"fin": True}], "status 403"),
        ([{"t": "HTTP/1.1 502 secret\r\n"}, {"rep": {"t": "x", "n": MAX_ANSWER}}, {"stall": True}], "status 502"),
        ([{"t": "HTTP/1.1 101 Switching Protocols\r\n\r\n"}, {"stall": True}], "status 101"),
        ([{"fin": True}], "closed"),
        ([{"rst": True}], "closed"),
        ([{"t": "HTTP/1.1 200 OK\r\n"}, {"fin": True}], "not answer in HTTP"),
        (
            [{"t": "HTTP/1.1 200 OK\r\nX: "}, {"rep": {"t": "x", "n": MAX_ANSWER}}, {"stall": True}],
            "not answer in HTTP",
        ),
        ([{"t": "HTTP/2.0 200 OK\r\n\r\n"}, {"stall": True}], "not answer in HTTP"),
        ([{"t": "SSH-2.0-secret\r\n\r\n"}, {"stall": True}], "not answer in HTTP"),
        ([{"x": "1503010002020a"}, {"fin": True}], "not answer in HTTP"),
        ([{"t": "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"}, {"stall": True}], "more than a head"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_a_proxy_that_opens_no_tunnel_is_an_error_without_a_secret(
    on_either: Run, steps: list[Step], said: str
) -> None:
    async def main() -> None:
        async with ScriptedUpstream(steps) as proxy:
            error = await refusal(by(proxy.url.replace("//", "//user:secret@"), "https://provider.test"))
            assert said in error.message
            assert (error.status, error.code) == (502, "upstream_proxy_error")
            assert "secret" not in f"{error!r} {error.body()}"
            assert "provider.test" not in error.message
            await asyncio.wait_for(proxy.connections[0].closed.wait(), 5)

    on_either(main())


def test_a_proxy_that_is_not_there_is_no_providers_refusal(on_either: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(refuses=True) as proxy:
            for url in (proxy.url, "http://no-such-proxy.invalid:3128"):
                error = await refusal(by(url, "https://provider.test"))
                assert (error.message, error.code) == ("The egress proxy cannot be reached.", "upstream_proxy_error")

    on_either(main())


@pytest.mark.parametrize("steps", [[{"stall": True}], [{"drip": {"t": "HTTP/1.1 200 OK\r\n", "every": 0.02}}]])
def test_the_connect_timeout_covers_the_proxy(on_either: Run, steps: list[Step]) -> None:
    async def main() -> None:
        async with ScriptedUpstream(steps) as proxy:
            error = await refusal(by(proxy.url, "https://provider.test"), 0.1)
            assert (error.status, error.code) == (504, "upstream_connect_timeout")
            await asyncio.wait_for(proxy.connections[0].closed.wait(), 5)

    on_either(main())


def test_a_handshake_that_hangs_behind_the_proxy_counts_to_the_connect_timeout(on_either: Run) -> None:
    async def main() -> None:
        async with (
            ScriptedUpstream(tls="hang") as upstream,
            ConnectProxy({"localhost": ("127.0.0.1", upstream.port)}) as proxy,
        ):
            assert (await refusal(by(proxy.url, "https://localhost"), 0.2)).code == "upstream_connect_timeout"
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)

    on_either(main())


def test_the_environments_proxies_are_not_used(on_either: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")

    async def main() -> None:
        async with ScriptedUpstream(OK) as upstream:
            assert (await exchanged(Account({}, Resolver()).endpoint(upstream.url + "/"))).status == 200

    on_either(main())


def test_a_proxys_password_shows_in_no_repr() -> None:
    place = by("http://user:secret@127.0.0.1:1", "https://provider.test").place
    assert isinstance(place.tls, ssl.SSLContext)
    assert isinstance(place.proxy, Proxy)
    assert place.proxy.authorization == "Basic dXNlcjpzZWNyZXQ="
    assert "secret" not in repr(place)
    assert "dXNlcjpzZWNyZXQ=" not in repr(place)
