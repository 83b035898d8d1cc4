from __future__ import annotations

import orjson
import pytest

from gateway.errors import UpstreamError
from gateway.hub import Json
from plugins.bedrock import PROVIDER
from tests import corpus

SUFFIX = ":http://internal.amazon.com/coral/com.amazon.bedrock/"
DATE = {"Date": "Sun, 22 Nov 2026 18:10:00 GMT"}


def refused(status: int, kind: str, message: str = "Too bad", **headers: str) -> UpstreamError:
    body = orjson.dumps({"message": message})
    return PROVIDER.read_error(status, {"x-amzn-ErrorType": kind + SUFFIX, **headers}, body)


@pytest.mark.parametrize(
    ("status", "kind", "shown", "code", "cause"),
    [
        (400, "ValidationException", 400, "invalid_request", "request"),
        (400, "ServiceQuotaExceededException", 429, "rate_limit_exceeded", "429"),
        (403, "AccessDeniedException", 502, "upstream_auth_error", "auth"),
        (403, "UnrecognizedClientException", 502, "upstream_auth_error", "auth"),
        (403, "MissingAuthenticationTokenException", 502, "upstream_auth_error", "auth"),
        (404, "ResourceNotFoundException", 404, "model_not_found", "request"),
        (408, "ModelTimeoutException", 504, "upstream_timeout", "timeout"),
        (400, "ConflictException", 409, "conflict", "request"),
        (424, "ModelErrorException", 502, "upstream_error", "5xx"),
        (429, "ThrottlingException", 429, "rate_limit_exceeded", "429"),
        (429, "ModelNotReadyException", 429, "rate_limit_exceeded", "429"),
        (500, "InternalServerException", 500, "upstream_error", "5xx"),
        (503, "ServiceUnavailableException", 503, "overloaded", "5xx"),
    ],
)
def test_an_exception_has_its_status_code_and_cause(status: int, kind: str, shown: int, code: str, cause: str) -> None:
    error = refused(status, kind)
    assert (error.status, error.code, error.cause) == (shown, code, cause)
    assert error.details["provider"] == "bedrock"


@pytest.mark.parametrize(
    "body",
    [
        {"message": "Slow down", "__type": "com.amazon.coral.availability#ThrottlingException"},
        {"Message": "Slow down", "__type": "ThrottlingException"},
    ],
)
def test_the_class_may_stand_in_the_body(body: Json) -> None:
    error = PROVIDER.read_error(400, {}, orjson.dumps(body))
    assert (error.status, error.message) == (429, "Slow down")


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[]", b"null"])
def test_a_body_that_tells_nothing_still_gives_an_error(body: bytes) -> None:
    error = PROVIDER.read_error(502, {}, body)
    assert error.status == 502
    assert "502" in error.message


def test_too_long_an_input_has_openais_code() -> None:
    error = refused(400, "ValidationException", "Input is too long for requested model.")
    assert (error.status, error.code) == (400, "context_length_exceeded")


def test_no_access_to_the_model_says_so_without_blaming_the_client() -> None:
    error = refused(403, "AccessDeniedException", "You don't have access to the model with the specified model ID.")
    assert (error.status, error.code, error.cause) == (502, "model_not_available", "auth")


def test_a_model_that_needs_a_profile_says_how() -> None:
    text = "Invocation of model ID x.y with on-demand throughput isn\u2019t supported."
    assert "inference profile" in refused(400, "ValidationException", text).message


def test_a_wrong_clock_is_told_apart_from_a_wrong_key() -> None:
    late = refused(403, "InvalidSignatureException", "Signature expired: 20261122T180000Z is now earlier than", **DATE)
    assert late.details["clock_skew"] is True
    assert late.details["upstream_date"] == DATE["Date"]
    assert late.code == "upstream_auth_error"
    early = refused(403, "InvalidSignatureException", "Signature not yet current: 20261122T190000Z", **DATE)
    assert early.details["clock_skew"] is True
    wrong = refused(403, "InvalidSignatureException", "The request signature we calculated does not match", **DATE)
    assert "clock_skew" not in wrong.details
    assert "clock_skew" not in refused(403, "InvalidSignatureException", "Signature expired").details


def test_an_expired_credential_is_marked() -> None:
    assert refused(403, "ExpiredTokenException").details["credential_expired"] is True


def test_nothing_of_our_account_is_shown() -> None:
    text = (
        "User: arn:aws:iam::123456789012:user/ops is not authorized; key AKIAIOSFODNN7EXAMPLE at bedrock.amazonaws.com"
    )
    for status, kind in ((403, "AccessDeniedException"), (400, "ValidationException")):
        shown = str(refused(status, kind, text).body())
        assert "AKIA" not in shown
        assert "amazonaws" not in shown


@pytest.mark.parametrize("case", corpus.cases("bedrock", kind="error", framing="json"))
def test_recorded_refusals_are_read(case: Json) -> None:
    response = case["response"]
    error = PROVIDER.read_error(response["status"], response.get("headers") or {}, corpus.body(case))
    assert error.status == {400: 400, 403: 502, 429: 429}[response["status"]]
    assert error.message


def test_an_error_object_may_hold_the_message() -> None:
    error = PROVIDER.read_error(400, {}, b'{"error":{"message":"Malformed"}}')
    assert error.message == "Malformed"
