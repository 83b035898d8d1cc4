"""What the OpenAI-like providers share: their refusals as errors."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.openai_errors import error_reader, read_refusal


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"m","type":"t","code":"c"}}', "m", "c"),
        (b'{"code":"c","error":"text"}', "text", "c"),
        (b'{"error":"short","message":"a longer text"}', "a longer text", None),
        (b'{"detail":"text"}', "text", None),
        (b'{"detail":[{"msg":"one"},{"msg":"two"}]}', "one; two", None),
        (b'{"statusCode":401,"message":"denied"}', "denied", None),
        (b'{"fault":{"faultstring":"text"}}', "text", None),
        (b'{"object":"error","message":"m","code":400}', "m", 400),
        (b'[{"error":{"message":"m"}}]', "m", None),
        (b'"text"', "text", None),
        (b"Failed to deserialize", "Failed to deserialize", None),
        (b"<html>", "", None),
        (b"[]", "", None),
        (b'{"error":{}}', "", None),
        (b"", "", None),
    ],
)
def test_every_shape_of_a_refusal_is_read(body: bytes, message: str, code: Any) -> None:
    said = read_refusal(body)
    assert (said.message, said.code) == (message, code)


def test_a_status_about_our_account_is_our_fault() -> None:
    error = error_reader("p", account=frozenset((412,)))(412, {}, b'{"error":{"message":"suspended"}}')
    assert (error.status, error.code) == (502, "upstream_auth_error")
