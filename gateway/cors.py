"""Which pages in a browser may call (CORS): preflights answered, answers marked for the origins that were named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# What official SDKs send from a browser, and what the gateway itself reads. `*` would not cover Authorization.
_SENT = re.compile(
    r"accept|accept-language|anthropic-beta|authorization|content-language|content-type|idempotency-key|traceparent"
    r"|tracestate|user-agent|x-request-id|(openai|x-stainless)-[a-z0-9-]{1,64}",
    re.IGNORECASE,
)
_SHOWN = ", ".join(
    (
        *("retry-after", "retry-after-ms", "x-request-id", "x-upstream-request-id", "x-should-retry"),
        *("x-gateway-deployment", "x-gateway-attempts", "x-gateway-config", "x-gateway-state"),
        *("x-gateway-dropped-params", "x-gateway-translated-params"),
        *(f"x-ratelimit-{what}-{unit}" for unit in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    )
)
# No browser keeps the answer to a preflight longer than two hours, whatever it is told.
_KEPT = "7200"
_ANYBODY: Mapping[str, str] = {"vary": "Origin"}


class Cors:
    """The origins of one configuration; `headers` are further ones that a routing chooses by."""

    def __init__(self, origins: Iterable[str], headers: Iterable[str]) -> None:
        self._marks: Mapping[str, Mapping[str, str]] = {
            origin: {"access-control-allow-origin": origin, "access-control-expose-headers": _SHOWN, **_ANYBODY}
            for origin in origins
        }
        self._headers = frozenset(name.lower() for name in headers)

    def stranger(self, asked: Mapping[str, str]) -> str | None:
        """The origin of a page that was not named; None for any other client."""
        origin = asked.get("Origin")
        return None if origin in self._marks else origin

    def marks(self, asked: Mapping[str, str]) -> Mapping[str, str]:
        """What every answer to a request with these headers says, so that a browser shows it to the page."""
        return self._marks.get(asked.get("Origin", ""), _ANYBODY)

    def preflight(self, method: str, asked: Mapping[str, str]) -> dict[str, str] | None:
        """The answer to a browser that asks before it sends; None when it does not, or for a page that may not call."""
        origin = asked.get("Origin", "")
        if method != "OPTIONS" or origin not in self._marks or "Access-Control-Request-Method" not in asked:
            return None
        wanted = [name.strip() for name in asked.get("Access-Control-Request-Headers", "").split(",")]
        sent = [name for name in wanted if _SENT.fullmatch(name) or name.lower() in self._headers]
        answer = {
            "access-control-allow-origin": origin,
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": ", ".join(sent) or "authorization, content-type",
            "access-control-max-age": _KEPT,
            "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        }
        # A page on the internet that calls an address of this machine or network.
        if asked.get("Access-Control-Request-Private-Network") == "true":
            answer["access-control-allow-private-network"] = "true"
        return answer


def cors_of(origins: Iterable[str], headers: Iterable[str]) -> Cors | None:
    """Who answers browsers; None where no origin is named."""
    found = tuple(origins)
    return Cors(found, headers) if found else None
