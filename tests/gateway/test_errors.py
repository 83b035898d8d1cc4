"""gateway.errors: the shape that clients see, and the classes that retry rules look at."""

from __future__ import annotations

from typing import get_args

import pytest

from gateway import errors
from gateway.errors import (
    BadFraming,
    BadUpstreamResponse,
    Cause,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    Truncated,
    Unauthorized,
    Unreachable,
    UnsupportedParameter,
    UpstreamError,
    UpstreamReset,
    UpstreamTimeout,
)

FAMILY = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, GatewayError)]


def test_the_body_has_openais_four_keys_and_the_details() -> None:
    error = GatewayError("Sorry.", param="seed", details={"provider": "xai", "upstream_status": 503})
    assert error.body() == {
        "error": {
            "provider": "xai",
            "upstream_status": 503,
            "message": "Sorry.",
            "type": "server_error",
            "param": "seed",
            "code": "internal_error",
        }
    }


def test_details_cannot_take_the_place_of_the_four_keys() -> None:
    body = GatewayError("Ours.", details={"message": "theirs", "code": "theirs"}).body()
    assert body["error"]["message"] == "Ours."
    assert body["error"]["code"] == "internal_error"


def test_each_value_of_a_class_can_be_replaced_in_one_error() -> None:
    error = UpstreamError("m", status=529, kind="k", code="c", cause="5xx", retry_after=1.5)
    assert (error.status, error.kind, error.code, error.cause, error.retry_after) == (529, "k", "c", "5xx", 1.5)
    assert (UpstreamError.status, UpstreamError.kind, UpstreamError.code) == (502, "upstream_error", "upstream_error")
    assert str(error) == error.message == "m"


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InvalidRequest("m"), 400, "invalid_request_error", "invalid_request"),
        (BadFraming("m"), 400, "invalid_request_error", "invalid_request"),
        (UnsupportedParameter("n", "why"), 400, "invalid_request_error", "unsupported_parameter"),
        (Unauthorized("m"), 401, "invalid_request_error", "invalid_api_key"),
        (ModelNotFound("m"), 404, "invalid_request_error", "model_not_found"),
        (Overloaded("m"), 503, "overloaded_error", "overloaded"),
        (UpstreamError("m"), 502, "upstream_error", "upstream_error"),
        (Unreachable("m"), 502, "upstream_error", "upstream_connect_error"),
        (UpstreamTimeout("m"), 504, "timeout_error", "upstream_timeout"),
        (UpstreamReset("m"), 502, "upstream_error", "upstream_reset"),
        (BadUpstreamResponse("m"), 502, "upstream_error", "upstream_bad_response"),
        (Truncated("m"), 502, "upstream_error", "upstream_truncated"),
    ],
)
def test_each_class_has_its_status_type_and_code(error: GatewayError, status: int, kind: str, code: str) -> None:
    assert (error.status, error.kind, error.code) == (status, kind, code)


@pytest.mark.parametrize("kind", FAMILY)
def test_every_class_has_a_known_cause_and_an_error_status(kind: type[GatewayError]) -> None:
    assert kind.cause in get_args(Cause)
    assert 400 <= kind.status <= 599


def test_only_a_connection_that_never_came_about_was_surely_not_billed() -> None:
    assert [kind for kind in FAMILY if issubclass(kind, UpstreamError) and not kind.sent] == [Unreachable]


def test_only_bad_framing_costs_the_client_its_connection() -> None:
    assert [kind for kind in FAMILY if kind.closes] == [BadFraming]


def test_an_unsupported_parameter_is_named() -> None:
    error = UnsupportedParameter("logit_bias", "is not supported by this model")
    assert error.param == "logit_bias"
    assert error.message == "Unsupported parameter: 'logit_bias' is not supported by this model."
