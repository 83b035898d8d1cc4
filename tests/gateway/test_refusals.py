"""A provider's refusal becomes the right error, with nothing in it that should stay here."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.errors import UpstreamError
from gateway.refusals import MAX_MESSAGE, plain_text, redact, refusal, retry_after


def refused(status: int, message: str = "no", **more: Any) -> UpstreamError:
    return refusal(status, message, provider="acme", **{"headers": {}, **more})


@pytest.mark.parametrize(
    ("status", "shown", "cause", "kind", "code"),
    [
        (400, 400, "request", "invalid_request_error", "invalid_request"),
        (401, 502, "auth", "upstream_error", "upstream_auth_error"),
        (402, 429, "429", "insufficient_quota", "insufficient_quota"),
        (403, 502, "auth", "upstream_error", "upstream_auth_error"),
        (404, 404, "request", "not_found_error", "model_not_found"),
        (405, 502, "answer", "upstream_error", "upstream_error"),
        (408, 504, "timeout", "timeout_error", "upstream_timeout"),
        (409, 409, "request", "conflict_error", "conflict"),
        (410, 404, "request", "not_found_error", "model_not_found"),
        (413, 413, "request", "invalid_request_error", "request_too_large"),
        (422, 422, "request", "invalid_request_error", "invalid_request"),
        (424, 502, "5xx", "upstream_error", "upstream_error"),
        (429, 429, "429", "rate_limit_error", "rate_limit_exceeded"),
        (500, 500, "5xx", "server_error", "upstream_error"),
        (502, 502, "5xx", "upstream_error", "upstream_error"),
        (503, 503, "5xx", "overloaded_error", "overloaded"),
        (504, 504, "timeout", "timeout_error", "upstream_timeout"),
        (520, 502, "5xx", "upstream_error", "upstream_error"),
        (524, 504, "timeout", "timeout_error", "upstream_timeout"),
        (529, 503, "5xx", "overloaded_error", "overloaded"),
        (307, 502, "answer", "upstream_error", "upstream_error"),
        (999, 502, "answer", "upstream_error", "upstream_error"),
    ],
)
def test_a_status_has_one_fate(status: int, shown: int, cause: str, kind: str, code: str) -> None:
    error = refused(status)
    assert (error.status, error.cause, error.kind, error.code) == (shown, cause, kind, code)
    assert error.details["provider"] == "acme"
    assert error.details["upstream_status"] == status


def test_a_providers_own_code_type_and_param_are_kept() -> None:
    error = refused(400, code="unsupported_value", kind="invalid_request_error", param="temperature")
    assert (error.code, error.kind, error.param) == ("unsupported_value", "invalid_request_error", "temperature")
    assert "upstream_code" not in error.details


def test_a_code_that_is_no_identifier_moves_to_the_details() -> None:
    error = refused(429, code="RateLimitReached", kind="credit_limit")
    assert (error.code, error.kind) == ("rate_limit_exceeded", "rate_limit_error")
    assert error.details["upstream_code"] == "RateLimitReached"
    assert error.details["upstream_type"] == "credit_limit"


@pytest.mark.parametrize("code", ["429", 429])
def test_a_number_as_code_is_replaced(code: object) -> None:
    error = refused(429, code=code)
    assert error.code == "rate_limit_exceeded"
    assert error.details["upstream_code"] == "429"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "Incorrect API key provided: sk-abcd*****2345."),
        (400, "Incorrect API key provided: xai-abcdefgh"),
        (400, "API key not valid. Please pass a valid API key."),
        (403, "Team 1234 is blocked"),
    ],
)
def test_a_refusal_of_our_key_is_never_the_clients_fault_and_never_repeated(status: int, message: str) -> None:
    error = refused(status, message, code="invalid_api_key", kind="invalid_request_error")
    assert (error.status, error.code, error.cause) == (502, "upstream_auth_error", "auth")
    assert message not in str(error.body())
    assert "invalid_api_key" not in str(error.body())


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, ...",
        "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "The prompt is too long: 9000, model maximum context length: 8192",
        "The input token count exceeds the maximum number of tokens allowed 1048576.",
        "Input is too long for requested model.",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097.",
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_overflow_of_the_context_has_the_code_that_agents_look_for(status: int, message: str) -> None:
    error = refused(status, message)
    assert (error.status, error.code, error.cause) == (400, "context_length_exceeded", "request")
    assert error.message == message


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "filtered", "content_filter"),
        (400, "the prompt triggered the content management policy", None),
        (403, "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO", None),
    ],
)
def test_a_filtered_prompt_is_the_clients_400(status: int, message: str, code: str | None) -> None:
    error = refused(status, message, code=code)
    assert (error.status, error.code, error.cause) == (400, "content_filter", "request")


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (429, "You exceeded your current quota, please check your plan.", "insufficient_quota"),
        (429, "Your team has used all available credits", "Some resource has been exhausted"),
        (400, "Your credit balance is too low to access the API.", None),
        (402, "Payment required", None),
    ],
)
def test_an_empty_account_is_insufficient_quota(status: int, message: str, code: str | None) -> None:
    error = refused(status, message, code=code)
    assert (error.status, error.code, error.kind, error.cause) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "429",
    )


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        (503, None, 503),
        ("429", None, 429),
        (None, "rate_limit_error", 429),
        (None, "server_error", 500),
        ("The service is currently unavailable", None, 503),
        ("Some resource has been exhausted", None, 429),
        ("invalid_value", "invalid_request_error", 400),
        (None, "authentication_error", 502),
        ("9", "who knows", 502),
        (None, None, 502),
    ],
)
def test_an_error_inside_a_200_gets_the_status_it_speaks_of(code: object, kind: object, status: int) -> None:
    assert refused(200, code=code, kind=kind).status == status


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdef0123456789",
        "Bearer abc.def",
        "bearer xyz",
        "invalid-*****2345",
        "xai-AbCd1234",
        "AIzaSyA1234567890abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "org-REDACTED1",
        "0123456789abcdef0123456789abcdef",
        "https://platform.openai.com/account/api-keys",
        "acme-eu.openai.azure.com",
        "api.x.ai",
        "10.0.0.7:8000",
    ],
)
def test_keys_accounts_and_hosts_never_reach_a_message(secret: str) -> None:
    assert secret not in redact(f"Look: {secret} is not good")
    assert secret not in str(refused(400, f"Look: {secret} is not good", code=secret, kind=secret, param=secret).body())


@pytest.mark.parametrize(
    "text",
    [
        "The model `meta-llama/Llama-3.3-70B-Instruct-Turbo` does not exist",
        "Unsupported value: 'messages[0].role' does not support 'developer' with this model.",
        "max_tokens must be <= 4,096; see messages.0.content.1",
        "the key-value pairs of org_name, proj_name and key_id must be strings",
        "accounts/fireworks/models/llama4maverickinstructbasic/versions/2 is not deployed",
        "claude-sonnet-4-5-20250929 needs key tools.0.function",
    ],
)
def test_an_ordinary_message_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_a_message_is_bounded_and_printable() -> None:
    assert len(redact("word " * 5_000)) == MAX_MESSAGE
    assert redact("a\x00b\ud800c\r\n") == "a b c"


def test_redaction_is_linear_for_hostile_text() -> None:
    started = time.perf_counter()
    for text in ("a." * 100_000, "*" * 100_000, "sk-" * 100_000, "1.2.3." * 50_000, "A1" * 100_000):
        redact(text)
    assert time.perf_counter() - started < 1.0


def test_an_empty_message_is_replaced() -> None:
    assert refused(500, "").message == "The provider answered with status 500."


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"Failed to deserialize the JSON body", "Failed to deserialize the JSON body"),
        (b"<html>oh</html>", ""),
        (b"\x00\x01", ""),
        (b"\xff\xfe\xfd\xfc", ""),
        (b"", ""),
    ],
)
def test_only_text_is_taken_from_an_answer_without_json(body: bytes, text: str) -> None:
    assert plain_text(body) == text


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, "", 1.5),
        ({"retry-after-ms": "0", "retry-after": "1"}, "", 1.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, "", None),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "-4"}, "", None),
        ({"retry-after": "9999999"}, "", 86_400.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, "", 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "120ms"}, "", 0.12),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "6m0s"}, "", None),
        ({}, "Please retry after 6 seconds.", 6.0),
        ({}, "Please try again in 3.89s. Visit", 3.89),
        ({}, "Please try again in 1m30s", 90.0),
        ({}, "Please try again in 120ms", 0.12),
        ({}, "Please try again later", None),
        ({}, "", None),
    ],
)
def test_the_wait_is_read_where_the_provider_states_it(
    headers: dict[str, str], message: str, seconds: float | None
) -> None:
    assert retry_after(headers, message) == (None if seconds is None else pytest.approx(seconds))


def test_a_wait_is_only_given_where_waiting_helps() -> None:
    assert refused(429, headers={"retry-after": "7"}).retry_after == 7.0
    assert refused(400, headers={"retry-after": "7"}).retry_after is None
