"""Bedrock's refusals, over HTTP and as frames of a stream, as the gateway's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from gateway.errors import UpstreamError
from gateway.eventstream import Frame
from gateway.hub import Json
from gateway.refusals import plain_text, refusal

# Exceptions whose status is not the one they come with, or that come in a frame without any.
_STATUS = {
    "AccessDeniedException": 403,
    "ConflictException": 409,
    "InternalServerException": 500,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ModelStreamErrorException": 424,
    "ModelTimeoutException": 408,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 429,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "ValidationException": 400,
}
_NO_ACCESS = re.compile(r"have access to the model|not authorized to perform: bedrock", re.I)
_SKEW = re.compile(r"signature (?:has )?expired|not yet current", re.I)
_PROFILE = re.compile(r"on-demand throughput isn.t supported", re.I)
_PROFILE_HINT = " This model needs an inference profile: name one (such as us., eu. or global. before the id) instead."


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error for an answer with status >= 400, or for an error object in a 200.

    `details` hold `clock_skew` (with the provider's `upstream_date`) and `credential_expired` where one more
    try with the right time or a fresh credential can help.
    """
    fields = _fields(body)
    lower = {name.lower(): value for name, value in headers.items()}
    kind = _kind(lower.get("x-amzn-errortype") or str(fields.get("__type") or ""))
    message = str(fields.get("message") or fields.get("Message") or "")
    return _error(status, kind, message, lower)


def read_exception(frame: Frame) -> UpstreamError:
    """The error that an exception or error frame of a stream speaks of."""
    fields = _fields(frame.payload)
    kind = str(frame.headers.get(":exception-type") or frame.headers.get(":error-code") or "")
    kind = kind[:1].upper() + kind[1:]
    message = str(fields.get("message") or frame.headers.get(":error-message") or fields.get("originalMessage") or "")
    return _error(500, kind, message, {})


def _error(status: int, kind: str, message: str, headers: Mapping[str, str]) -> UpstreamError:
    if _NO_ACCESS.search(message):
        details = {"provider": "bedrock", "upstream_status": status}
        text = "The provider account has no access to this model."
        return UpstreamError(text, code="model_not_available", cause="auth", details=details)
    if _PROFILE.search(message):
        message += _PROFILE_HINT
    error = refusal(_STATUS.get(kind, status), message, provider="bedrock", headers=headers, kind=kind)
    error.details = {**error.details, **_remedies(kind, message, headers)}
    return error


def _remedies(kind: str, message: str, headers: Mapping[str, str]) -> Json:
    if kind.startswith("ExpiredToken"):
        return {"credential_expired": True}
    if kind in ("InvalidSignatureException", "RequestTimeTooSkewed", "RequestExpired") and "date" in headers:
        skewed = kind != "InvalidSignatureException" or _SKEW.search(message)
        return {"clock_skew": True, "upstream_date": headers["date"]} if skewed else {}
    return {}


def _kind(name: str) -> str:
    """`com.amazon.coral#ThrottlingException:http://...` to `ThrottlingException`."""
    return name.partition(":")[0].rpartition("#")[2].strip()


def _fields(body: bytes) -> Json:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"message": plain_text(body)}
    if isinstance(fields, dict) and isinstance(inner := fields.get("error"), dict):
        return inner
    return fields if isinstance(fields, dict) else {}
