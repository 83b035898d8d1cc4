"""Credentials as request headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.contract import Credential, UpstreamRequest

Authorize = Callable[[UpstreamRequest, Credential, float], Mapping[str, str]]


def bearer(request: UpstreamRequest, credential: Credential, now: float) -> Mapping[str, str]:
    """`Authorization: Bearer TOKEN`; no header at all for a credential of kind none."""
    return {"authorization": f"Bearer {credential.token}"} if credential.token else {}


def header(name: str) -> Authorize:
    """The token alone under a header of its own; a bearer token (OAuth, Entra) still goes as Authorization."""

    def authorize(request: UpstreamRequest, credential: Credential, now: float) -> Mapping[str, str]:
        if credential.kind == "bearer" or not credential.token:
            return bearer(request, credential, now)
        return {name: credential.token}

    return authorize
