"""gateway.auth: which header carries which secret."""

from __future__ import annotations

from gateway.auth import bearer, header
from gateway.contract import Credential, UpstreamRequest

REQUEST = UpstreamRequest("https://p.test/v1", b"{}")


def test_a_token_goes_as_bearer() -> None:
    assert bearer(REQUEST, Credential("key", "s"), 0) == {"authorization": "Bearer s"}


def test_without_a_token_there_is_no_header() -> None:
    assert bearer(REQUEST, Credential(), 0) == {}
    assert header("x-api-key")(REQUEST, Credential(), 0) == {}


def test_a_key_goes_under_its_own_header_and_a_bearer_token_does_not() -> None:
    authorize = header("x-api-key")
    assert authorize(REQUEST, Credential("key", "s"), 0) == {"x-api-key": "s"}
    assert authorize(REQUEST, Credential("bearer", "s"), 0) == {"authorization": "Bearer s"}


def test_a_credential_does_not_show_itself() -> None:
    secret = Credential("aws", "t0ken", "acc3ss", "s3cret", "s3ssion")
    assert repr(secret) == str(secret) == "Credential(aws, ***)"
