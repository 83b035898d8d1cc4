"""gateway.egress: proxies and Unix sockets out of URLs, and what of them may be shown."""

from __future__ import annotations

import pytest

from gateway.egress import BadProxy, Proxy, host_header, masked, read_proxy, socket_path, socket_problem, valid_host


@pytest.mark.parametrize(
    ("url", "proxy", "shown"),
    [
        ("http://proxy.corp:3128", Proxy("proxy.corp", 3128), "http://proxy.corp:3128"),
        ("http://10.0.0.1:80/", Proxy("10.0.0.1", 80), "http://10.0.0.1:80"),
        ("HTTP://[::1]:8080", Proxy("::1", 8080), "http://[::1]:8080"),
        ("http://u:p@p:1", Proxy("p", 1, "Basic dTpw"), "http://***@p:1"),
        ("http://u@p:1", Proxy("p", 1, "Basic dTo="), "http://***@p:1"),
        ("http://a%40b:c%2Fd%3Ae@p:1", Proxy("p", 1, "Basic YUBiOmMvZDpl"), "http://***@p:1"),
        ("http://u:p@q@p:1", Proxy("p", 1, "Basic dTpwQHE="), "http://***@p:1"),
        ("http://u:%C3%A9@p:1", Proxy("p", 1, "Basic dTrDqQ=="), "http://***@p:1"),
    ],
)
def test_a_proxy_is_read_and_shown_without_its_password(url: str, proxy: Proxy, shown: str) -> None:
    assert read_proxy(url) == proxy
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *(
            (url, "not a URL")
            for url in (
                "http://h:x",
                "http://h:99999",
                "http://[::1",
                "http://h :1",
                "http://hé:1",
                "http://u:s3c#ret@h:1",
            )
        ),
        *((url, "must begin with http://") for url in ("proxy:3128", "https://s3cret@h:1", "socks5://h:1", "")),
        *((url, "must be http://host:port") for url in ("http://h:1/x", "http://h:1?s3cret")),
        *((url, "no valid host") for url in ("http://:1", "http://u:s3cret@:1", "http://a..b:1", "http://[:]:1")),
        *((url, "must name a port") for url in ("http://h", "http://u:s3cret@h/", "http://h:0")),
        *((url, "name without a colon") for url in ("http://@h:1", "http://:s3cret@h:1", "http://u%3Av:s3cret@h:1")),
    ],
)
def test_what_is_no_proxy_says_why_and_quotes_nothing(url: str, why: str) -> None:
    with pytest.raises(BadProxy) as caught:
        read_proxy(url)
    assert why in str(caught.value) or (why == "no valid host" and str(caught.value) == "not a URL")
    assert "s3c" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "path", "host"),
    [
        ("http+unix://%2Frun%2Fmodel.sock/v1/chat", "/run/model.sock", "localhost"),
        ("http+unix://%2Ftmp%2Fa%20b", "/tmp/a b", "localhost"),
        ("https://h.test/%2Frun", "", "h.test"),
        ("http://[::1]:81/v1", "", "[::1]:81"),
    ],
)
def test_a_socket_stands_where_a_host_would(url: str, path: str, host: str) -> None:
    assert socket_path(url) == path
    assert host_header(url) == host


@pytest.mark.parametrize(
    ("place", "why"),
    [
        *((place, "") for place in ("%2Frun%2Fx.sock", "%2f" + "x" * 106, "%2Fa%20b", "%2F%C3%A9")),
        *((place, "absolute path") for place in ("", "run%2Fx", "%2Frun%", "%2Frun%0A", "%2Frun%00", "h:1", "%2Fa:1")),
        ("%2F" + "x" * 107, "too long"),
    ],
)
def test_what_is_no_socket_says_why(place: str, why: str) -> None:
    problem = socket_problem(f"http+unix://{place}/v1")
    assert why in problem
    assert bool(problem) == bool(why)


def test_hosts_are_names_or_addresses() -> None:
    assert all(map(valid_host, ("h", "h.test", "h.test.", "127.0.0.1", "::1", "a_b.c-d")))
    assert not any(map(valid_host, ("", "-", "a..b", "a b", "[::1]", "a/b", "::g")))
