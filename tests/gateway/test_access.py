"""gateway.access: who is let in."""

from __future__ import annotations

import hashlib

import pytest

from gateway.access import ANYONE, Access, Caller, Forbidden, check_local
from gateway.config.types import Key
from gateway.errors import Unauthorized


def key(secret: bytes, *models: str, expires: float | None = None) -> Key:
    return Key(hash="sha256:" + hashlib.sha256(secret).hexdigest(), models=models or ("*",), expires=expires)


ACCESS = Access(
    {
        "app": key(b"sk-app", "gpt", "openai/*"),
        "old": key(b"sk-old", expires=1000.0),
        "odd": key(b"\xff\xfe-key"),
    }
)


def test_a_key_is_known_by_its_digest() -> None:
    assert ACCESS.identify(["Bearer sk-app"], 0) == Caller("app", ("gpt", "openai/*"))
    assert not ACCESS.open


@pytest.mark.parametrize("header", ["bearer sk-app", "BEARER sk-app", "Bearer   sk-app ", "BeArEr sk-app"])
def test_the_scheme_is_read_in_any_case_and_spaces_do_not_matter(header: str) -> None:
    assert ACCESS.identify([header], 0).key == "app"


@pytest.mark.parametrize(
    "header",
    [
        "Bearer sk-wrong",
        "Bearer",
        "Bearer ",
        "Bearer sk-app\t",
        "Bearer SK-APP",
        "Bearer sk-app sk-app",
        "Bearer sk-ap",
    ],
)
def test_a_wrong_key_is_refused(header: str) -> None:
    with pytest.raises(Unauthorized, match="Incorrect API key") as caught:
        ACCESS.identify([header], 0)
    assert "sk-" not in caught.value.message


@pytest.mark.parametrize("headers", [[], [""], ["sk-app"], ["Basic sk-app"], ["Bearersk-app"], ["\udcff"]])
def test_without_a_bearer_token_a_key_is_asked_for(headers: list[str]) -> None:
    with pytest.raises(Unauthorized, match="didn't provide an API key"):
        ACCESS.identify(headers, 0)


def test_two_headers_are_refused_even_if_both_are_right() -> None:
    with pytest.raises(Unauthorized, match="More than one"):
        ACCESS.identify(["Bearer sk-app", "Bearer sk-app"], 0)


def test_a_key_ends_at_its_expiry() -> None:
    assert ACCESS.identify(["Bearer sk-old"], 999.9).key == "old"
    for now in (1000.0, 2000.0):
        with pytest.raises(Unauthorized, match="Incorrect"):
            ACCESS.identify(["Bearer sk-old"], now)


def test_bytes_that_are_no_utf_8_are_compared_as_they_came() -> None:
    assert ACCESS.identify([b"Bearer \xff\xfe-key".decode("utf-8", "surrogateescape")], 0).key == "odd"
    with pytest.raises(Unauthorized):
        ACCESS.identify(["Bearer \udcff"], 0)


def test_without_keys_anyone_is_let_in_with_or_without_a_header() -> None:
    access = Access({})
    assert access.open
    for headers in ([], ["Bearer x"], ["a", "b"]):
        assert access.identify(headers, 0) is ANYONE
    assert ANYONE.may_use("whatever")


@pytest.mark.parametrize(
    ("models", "model", "allowed"),
    [
        (("gpt",), "gpt", True),
        (("gpt",), "gpt-4", False),
        (("gpt",), "GPT", False),
        (("*",), "x", True),
        (("openai/*",), "openai/gpt", True),
        (("openai/*",), "openai/a/b", True),
        (("openai/*",), "azure/gpt", False),
        (("a?c",), "abc", False),
        (("[ab]",), "a", False),
        ((), "a", False),
    ],
)
def test_a_caller_may_use_its_models_and_what_a_star_covers(models: tuple[str, ...], model: str, allowed: bool) -> None:
    assert Caller("k", models).may_use(model) is allowed


@pytest.mark.parametrize("host", ["127.0.0.1:4000", "localhost:4000", "[::1]:4000", "localhost", "127.0.0.1", "[::1]"])
def test_programs_on_this_machine_may_call_without_a_key(host: str) -> None:
    check_local(host, None, 4000)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:4000", "http://localhost:4000"),
        ("localhost:4000", ""),
        ("localhost:4000", "null"),
        ("evil.test:4000", None),
        ("evil.test", None),
        ("localhost:4001", None),
        ("localhost:", None),
        ("localhost.evil.test:4000", None),
        ("127.0.0.1.evil.test", None),
        ("user@localhost:4000", None),
        ("[::1]:4001", None),
        ("[::2]:4000", None),
        ("::1:4000", None),
        ("0.0.0.0:4000", None),
        ("", None),
    ],
)
def test_pages_and_rebound_names_may_not(host: str, origin: str | None) -> None:
    with pytest.raises(Forbidden) as caught:
        check_local(host, origin, 4000)
    assert caught.value.status == 403
