"""gateway.urls: what is fetched is plainly on the internet, however a client writes its address."""

from __future__ import annotations

import pytest

from gateway.urls import MAX_URL, BadUrl, Site, public, site, verdict

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1"),
    *("169.253.255.255", "192.167.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "168.63.129.17"),
    *("2606:4700:4700::1111", "2a00:1450:4001:830::200e", "2001:4860:4860::8888", "64:ff9b::808:808"),
]
NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.7"),
    *("203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *(
        "64:ff9b:1::808:808",
        "100::1",
        "2001::1",
        "2001:0:4136:e378::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
    ),
    *("3ffe::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
    *("2606:4700::1%1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1"),
    *("", "localhost", "1.1.1", "01.1.1.1", "example.com", "1.1.1.1 "),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_on_the_internet_is_public(address: str) -> None:
    assert public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_every_other_address_is_not(address: str) -> None:
    assert not public(address)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("https://images.example.com", Site("images.example.com", 443, "/")),
        ("https://images.example.com/a.png", Site("images.example.com", 443, "/a.png")),
        ("HTTPS://Images.Example.COM:443/A?b=%2F&c#d?e", Site("images.example.com", 443, "/A?b=%2F&c")),
        ("https://images.example.com.:/x", Site("images.example.com", 443, "/x")),
        ("https://images.example.com?x=1", Site("images.example.com", 443, "/?x=1")),
        ("https://images.example.com#@127.0.0.1/", Site("images.example.com", 443, "/")),
        ("https://images.example.com/@a:b@c", Site("images.example.com", 443, "/@a:b@c")),
        ("https://bücher.example.com/ä?ü", Site("xn--bcher-kva.example.com", 443, "/%C3%A4?%C3%BC")),
        ("https://ｅxample。com/", Site("example.com", 443, "/")),
        ("https://a_b.c-d.example.com/", Site("a_b.c-d.example.com", 443, "/")),
        ("https://8.8.8.8./", Site("8.8.8.8", 443, "/")),
        ("https://[2606:4700:0::1111]/", Site("2606:4700::1111", 443, "/")),
        ("https://[2606:4700::1111]:443/x", Site("2606:4700::1111", 443, "/x")),
    ],
)
def test_a_url_leads_to_one_place(url: str, where: Site) -> None:
    assert site(url) == where
    assert verdict(url) is None


def test_an_ipv6_address_stands_in_brackets_in_the_host_header() -> None:
    assert site("https://[2606:4700::1111]/").header == "[2606:4700::1111]"
    assert site("https://images.example.com/").header == "images.example.com"


SCHEME = "must begin with https://"
SIGNS = "holds characters that no URL may hold"
HOST = "has no valid host"
INNER = "does not lead to a public host"


CREDENTIALS = "must not hold credentials"
PORT = "must not name another port than 443"
REFUSED = {
    SCHEME: [
        *("http://images.example.com/", "ftp://a.example.com/", "file:///etc/passwd", "data:image/png;base64,AAAA"),
        *("gopher://127.0.0.1:6379/_I", "https:/a.example.com", "https:a.example.com", "//a.example.com/", ""),
        *("jar:https://a.example.com/", "https", "://a.example.com/"),
    ],
    SIGNS: [
        *(
            f"https://a.example.com{tail}"
            for tail in ("/ x", "/\r\nX: y", "/\t", "\\@b.example.com/", "/\x00", "/\x7f")
        ),
        *(f"https://a.example.com/{sign}" for sign in ("\ud800", "\u2028", "\u00a0", "\u202e", "\u200d")),
        " https://a.example.com/",
    ],
    CREDENTIALS: [f"https://{user}@a.example.com/" for user in ("u", "u:p", "", "127.0.0.1:443")],
    PORT: [
        *(f"https://a.example.com:{port}/" for port in ("22", "80", "0443", "x", ":1", "443:443")),
        *("https://8.8.8.8:8080/", "https://[2606:4700::1111]:80/", "https://::1/"),
    ],
    HOST: [
        *("", ".", "..", "a..example.com", ".example.com", "a.example.com..", "-a.example.com", "a-.example.com"),
        *(
            "a%2ecom",
            "127%2e0.0.1",
            "a!b.com",
            f"{'a' * 64}.com",
            ".".join(["a" * 60] * 5),
            "faß.example.com",
            "é" * 300,
        ),
        *("127.1", "2130706433", "0177.0.0.1", "0x7f.1", "0x7f000001", "127.0.0.0x1", "127.0.0.01", "256.1.1.1"),
        *("1.1.1.1.1", "a.1", "a.0x", "１２７.1", "8.8.8.8..", "[::1", "[::1]x", "[]", "[a]", "[::1]443", "[8.8.8.8]"),
        f"{'é' * 64}.com",
    ],
    INNER: [
        *("localhost", "LOCALHOST.", "ｌocalhost", "a.localhost", "router", "redis", "metadata.google.internal"),
        *("a.svc.cluster.local", "nas.lan", "x.home.arpa", "a.onion", "127.0.0.1", "127.0.0.1.", "１２７.0.0.1"),
        *("169.254.169.254", "224.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[fe80::1%25eth0]", "[fe80::1%eth0]"),
        *("[2002:7f00:1::]", "[fec0::1]"),
    ],
    "is too long": [f"https://a.example.com/{'x' * MAX_URL}"],
}
CASES = [(url if why not in (HOST, INNER) else f"https://{url}/", why) for why, urls in REFUSED.items() for url in urls]


@pytest.mark.parametrize(("url", "why"), CASES)
def test_every_other_url_is_refused_with_its_reason(url: str, why: str) -> None:
    assert verdict(url) == why


def test_a_bad_url_says_nothing_of_an_address() -> None:
    with pytest.raises(BadUrl) as caught:
        site("https://u:secret@10.1.2.3/")
    assert "10.1" not in str(caught.value)
    assert "secret" not in str(caught.value)
