"""Everything that can go wrong, divided by whose fault it is and whether another route may help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

# What `retry.on` in gateway.yaml may name, plus the causes that never lead to another attempt.
Cause = Literal["connect", "timeout", "429", "5xx", "reset", "auth", "request", "answer", "client"]


class GatewayError(Exception):
    """A failure that a client may see: `message`, `kind` (OpenAI's `type`), `code`, `param` and an HTTP `status`.

    The message is safe to show: no secret, no upstream host, no traceback. `details` are further
    keys of the error object (`provider`, `upstream_status`, ...). `retry_after` is in seconds. `closes` says that the
    client's connection cannot be used any more.
    """

    status = 500
    kind = "server_error"
    code: str | None = "internal_error"
    cause: Cause = "client"
    closes = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
        cause: Cause | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.details: Mapping[str, Any] = details or {}
        if status is not None:
            self.status = status
        if kind is not None:
            self.kind = kind
        if code is not None:
            self.code = code
        if cause is not None:
            self.cause = cause

    def body(self) -> dict[str, Any]:
        """The JSON object of OpenAI's error shape."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": {**self.details, **error}}


class InvalidRequest(GatewayError):
    """The client's request cannot be served as it stands."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"


class BadFraming(InvalidRequest):
    """The request's bytes do not allow to tell where the next request would begin."""

    closes = True


class UnsupportedParameter(InvalidRequest):
    """A parameter that the target cannot honour and that may not be dropped; `param` names it."""

    code = "unsupported_parameter"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"Unsupported parameter: '{param}' {why}.", param=param)


class Unauthorized(GatewayError):
    """The client's own key is missing or wrong."""

    status = 401
    kind = "invalid_request_error"
    code = "invalid_api_key"


class ModelNotFound(GatewayError):
    """No such model for this key: unknown and forbidden look the same."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class Overloaded(GatewayError):
    """The gateway has no room now; the client may come back after `retry_after` seconds."""

    status = 503
    kind = "overloaded_error"
    code = "overloaded"


class RateLimited(GatewayError):
    """Everything that could serve the request has had as much as it may have for now."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"


class BudgetSpent(GatewayError):
    """There is no money left for the request; a client that retries by itself is told not to."""

    status = 402
    kind = "insufficient_quota"
    code = "insufficient_quota"
    no_retry = True


class NoHealthyUpstream(GatewayError):
    """Everything that could serve the request is left alone because of its failures."""

    status = 503
    kind = "overloaded_error"
    code = "no_healthy_upstream"


class UpstreamError(GatewayError):
    """The provider could not be reached, answered with an error, or with something unreadable.

    `cause` is the class that retry and fallback rules look at; `sent` says whether the provider may
    have begun to work on the request, so that repeating it may be billed twice. `no_retry` tells a client that
    retries by itself not to.
    """

    status = 502
    kind = "upstream_error"
    code = "upstream_error"
    cause: Cause = "answer"
    sent = True
    no_retry = False


class Unreachable(UpstreamError):
    """No connection came about: nothing was sent, another attempt is always safe."""

    code = "upstream_connect_error"
    cause: Cause = "connect"
    sent = False


class UpstreamTimeout(UpstreamError):
    """The provider was silent for longer than a timer allows."""

    status = 504
    kind = "timeout_error"
    code = "upstream_timeout"
    cause: Cause = "timeout"


class UpstreamReset(UpstreamError):
    """The connection broke after the request was sent and before an answer came."""

    code = "upstream_reset"
    cause: Cause = "reset"


class BadUpstreamResponse(UpstreamError):
    """The provider's answer is not what its protocol allows."""

    code = "upstream_bad_response"


class Truncated(UpstreamError):
    """The provider's answer ended before its terminal event."""

    code = "upstream_truncated"


def where(error: BaseException) -> str:
    """An exception's class and the line that raised it: enough to find a fault, nothing of the request."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    at = f" at {place.tb_frame.f_code.co_filename.rpartition('/')[2]}:{place.tb_lineno}" if place else ""
    return f"{type(error).__name__}{at}"
