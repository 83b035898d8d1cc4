"""A provider's refusal as our error: whose fault it is, when to come back, and a message that is safe to show."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from gateway.errors import Cause, UpstreamError

MAX_MESSAGE = 2_000
LONGEST_WAIT = 86_400.0


class Fate(NamedTuple):
    """What a client sees and what retry rules look at."""

    status: int
    kind: str
    code: str
    cause: Cause


_BAD_REQUEST = Fate(400, "invalid_request_error", "invalid_request", "request")
_AUTH = Fate(502, "upstream_error", "upstream_auth_error", "auth")
_QUOTA = Fate(429, "insufficient_quota", "insufficient_quota", "429")
_FILTERED = Fate(400, "invalid_request_error", "content_filter", "request")
_TOO_LONG = Fate(400, "invalid_request_error", "context_length_exceeded", "request")
_TIMEOUT = Fate(504, "timeout_error", "upstream_timeout", "timeout")
_OVERLOADED = Fate(503, "overloaded_error", "overloaded", "5xx")
_ODD = Fate(502, "upstream_error", "upstream_error", "answer")

# A client may be blamed for its request only (400, 404, 409, 413, 422, 429); what concerns our account, our
# headers or our configuration is 502.
_FATES: dict[int, Fate] = {
    400: _BAD_REQUEST,
    401: _AUTH,
    402: _QUOTA,
    403: _AUTH,
    404: Fate(404, "not_found_error", "model_not_found", "request"),
    407: _AUTH,
    408: _TIMEOUT,
    409: Fate(409, "conflict_error", "conflict", "request"),
    410: Fate(404, "not_found_error", "model_not_found", "request"),
    413: Fate(413, "invalid_request_error", "request_too_large", "request"),
    422: Fate(422, "invalid_request_error", "invalid_request", "request"),
    424: Fate(502, "upstream_error", "upstream_error", "5xx"),
    425: _OVERLOADED,
    429: Fate(429, "rate_limit_error", "rate_limit_exceeded", "429"),
    500: Fate(500, "server_error", "upstream_error", "5xx"),
    501: Fate(501, "server_error", "upstream_error", "answer"),
    502: Fate(502, "upstream_error", "upstream_error", "5xx"),
    503: _OVERLOADED,
    504: _TIMEOUT,
    524: _TIMEOUT,  # the edge in front of the provider gave up waiting
    529: _OVERLOADED,
}

# What an error object inside a 200 means, by its type or code.
_IMPLIED: dict[str, int] = {
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "some resource has been exhausted": 429,
    "tokens": 429,
    "requests": 429,
    "insufficient_quota": 402,
    "billing_error": 402,
    "overloaded_error": 503,
    "service_unavailable": 503,
    "the service is currently unavailable": 503,
    "server_error": 500,
    "api_error": 500,
    "internal_error": 500,
    "timeout_error": 504,
    "invalid_request_error": 400,
    "client specified an invalid argument": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
}
_KINDS = frozenset(
    (
        *("invalid_request_error", "not_found_error", "conflict_error", "rate_limit_error", "insufficient_quota"),
        *("tokens", "requests", "server_error", "api_error", "overloaded_error", "service_unavailable"),
        *("timeout_error", "upstream_error", "image_generation_user_error"),
    )
)
_PLAIN_CODE = re.compile(r"[a-z][a-z0-9_]{1,63}")
_AUTH_TEXT = re.compile(
    r"incorrect api key|invalid api key|api key not valid|api_key_invalid|invalid x-api-key|invalid subscription key",
    re.I,
)
_QUOTA_TEXT = re.compile(
    r"exceeded your current quota|used all available credits|credit balance is too low|monthly spending limit", re.I
)
_LONG_TEXT = re.compile(
    r"maximum context length|maximum prompt length|context[ _]length[ _]exceeded|context window|prompt is too long"
    r"|input is too long|too many input tokens|exceeds the maximum number of tokens"
    r"|(?:maximum number of|exceeds the model's) input tokens|max_new_tokens.{0,40}must be",
    re.I,
)
_FILTER_TEXT = re.compile(r"SAFETY_CHECK_TYPE|content management policy|ResponsibleAIPolicyViolation")
_FILTER_CODES = frozenset(("content_filter", "responsibleaipolicyviolation"))

_SECRETS = re.compile(
    r"(?i:\bbearer\s+[^\s,;\"']+)"
    r"|\b(?:sk|xai|gsk|tgp)[-_][A-Za-z0-9*_\-]{4,}"
    r"|\b(?:pk|rk|fw|org|proj|key)[-_](?=[a-z]*[A-Z0-9*])[A-Za-z0-9*_\-]{4,}"
    r"|\b(?:AIza|AKIA|ASIA|ABSK|ya29\.|eyJ)[A-Za-z0-9_\-./+=*]{8,}"
    r"|\b[A-Za-z0-9_\-]*\*{3,}[A-Za-z0-9_\-]*"
    r"|\b(?=[A-Za-z]*[0-9])[A-Za-z0-9]{32,}={0,2}"
)
_HOSTS = re.compile(
    r"\b[a-z][a-z0-9+.]{1,9}://[^\s\"'<>)\]]+"
    r"|\b(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}(?:com|net|org|ai|io|dev|cloud|aws|us|cn|internal|local)\b"
    r"(?::\d+)?(?:/[^\s\"'<>)\],]*)?"
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_WAIT_TEXT = re.compile(
    r"(?:retry|try again) (?:after|in) (?:(\d+)h)?(?:(\d+)m(?!s))?"
    r"(?:(\d+(?:\.\d+)?) ?(ms|milliseconds?|s|seconds?)\b)?",
    re.I,
)
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)(ms|s))?")


def refusal(
    status: int,
    message: str,
    *,
    provider: str,
    headers: Mapping[str, str],
    code: object = None,
    kind: object = None,
    param: object = None,
) -> UpstreamError:
    """The error that a client gets for a provider's refusal.

    `status` is the provider's own (a 200 that holds an error object included); `code`, `kind` (OpenAI's `type`)
    and `param` are whatever stood in its error object. `headers` have lower-case names; a wait that a provider
    states elsewhere may be given as `retry-after`. What the client sees under another name stays readable in
    `details`: `upstream_status`, `upstream_code`, `upstream_type`.
    """
    words = "" if code is None else str(code)
    type_ = kind if isinstance(kind, str) else ""
    fate = _fate(status, message, words, type_)
    known = fate.cause != "auth"
    shown_code = words if known and _PLAIN_CODE.fullmatch(words) and fate not in _FIXED else fate.code
    shown_kind = type_ if known and type_ in _KINDS and fate not in _FIXED else fate.kind
    details: dict[str, Any] = {"provider": provider, "upstream_status": status}
    if words and words != shown_code and known:
        details["upstream_code"] = redact(words)[:100]
    if type_ and type_ != shown_kind and known:
        details["upstream_type"] = redact(type_)[:100]
    return UpstreamError(
        _message(fate, status, message),
        status=fate.status,
        kind=shown_kind,
        code=shown_code,
        param=redact(param)[:200] if isinstance(param, str) else None,
        cause=fate.cause,
        retry_after=retry_after(headers, message) if fate.cause in ("429", "5xx", "timeout") else None,
        details=details,
    )


_FIXED = (_AUTH, _QUOTA, _FILTERED, _TOO_LONG)


def _fate(status: int, message: str, code: str, kind: str) -> Fate:
    if 200 <= status < 300:
        status = _implied(code, kind)
    head = message[:MAX_MESSAGE]
    if status in (400, 403, 422) and (code.lower() in _FILTER_CODES or _FILTER_TEXT.search(head)):
        return _FILTERED
    if status < 500 and (code == "invalid_api_key" or _AUTH_TEXT.search(head)):
        return _AUTH
    if status in (400, 413, 422) and (code == "context_length_exceeded" or _LONG_TEXT.search(head)):
        return _TOO_LONG
    if status in (400, 429) and ("insufficient_quota" in (code, kind) or _QUOTA_TEXT.search(head)):
        return _QUOTA
    found = _FATES.get(status)
    if found is None:
        return _ODD._replace(cause="5xx") if 500 <= status < 600 else _ODD
    return found


def _implied(code: str, kind: str) -> int:
    """The status that an error object inside a 200 speaks of; 502 when it tells nothing."""
    if code.isascii() and code.isdigit() and 400 <= int(code[:4]) < 600:
        return int(code[:4])
    return _IMPLIED.get(code.lower()) or _IMPLIED.get(kind.lower()) or 502


def _message(fate: Fate, status: int, message: str) -> str:
    if fate.cause == "auth":
        return "The provider refused the gateway's own credential or account."
    return redact(message) or f"The provider answered with status {status}."


def redact(text: str) -> str:
    """The text without what looks like a key, an account or a host; at most MAX_MESSAGE characters."""
    text = _UNPRINTABLE.sub(" ", text[: 2 * MAX_MESSAGE]).strip()
    text = _HOSTS.sub("[host]", _SECRETS.sub("[redacted]", text))
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def plain_text(body: bytes) -> str:
    """The text of an answer that is no JSON; empty for a page of HTML and for what is no text."""
    text = body[: 2 * MAX_MESSAGE].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") or "\x00" in text or text.count("\ufffd") > 2 else text


def retry_after(headers: Mapping[str, str], message: str = "") -> float | None:
    """The seconds to wait that a provider asks for, in its headers or its text.

    In this order: `retry-after-ms`, `retry-after`, the reset of a limit that has nothing left, the message. A date
    is counted from the answer's own `date`. Zero counts as nothing said.
    """
    waits = (
        _number(headers.get("retry-after-ms"), 0.001),
        _number(headers.get("retry-after"), 1.0),
        _until(headers.get("retry-after"), headers.get("date")),
        _reset(headers),
        _stated(message),
    )
    return next((min(wait, LONGEST_WAIT) for wait in waits if wait), None)


def _number(text: str | None, unit: float) -> float | None:
    try:
        value = float(text) * unit if text else 0.0
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None


def _until(text: str | None, now: str | None) -> float | None:
    end, start = _date(text), _date(now)
    return None if end is None or start is None else max((end - start).total_seconds(), 0.0)


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
    return date if date is not None and date.tzinfo is not None else None


def _reset(headers: Mapping[str, str]) -> float | None:
    """When the limit that has nothing left is filled again; both kinds of limit must be."""
    waits = [
        wait
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0"
        and (match := _DURATION.fullmatch(headers.get(f"x-ratelimit-reset-{what}", "")))
        and (wait := _duration(match))
    ]
    return max(waits, default=None)


def _stated(message: str) -> float | None:
    match = _WAIT_TEXT.search(message[:MAX_MESSAGE])
    return _duration(match) if match else None


def _duration(match: re.Match[str]) -> float:
    hours, minutes, amount, unit = match.groups()
    seconds = float(amount or 0) * (0.001 if (unit or "").lower().startswith("m") else 1.0)
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds
