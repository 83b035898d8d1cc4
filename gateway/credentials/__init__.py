"""Secrets that expire: refreshed in the background, read without await.

A static secret costs an attribute per request. Amazon's chain and Google's tokens come through their own libraries (the
extras `aws` and `google`), in a thread; Entra's three flows are small enough to be done here, and need no extra.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.contract import Credential
from gateway.credentials import aws, entra, google
from gateway.credentials.keeping import Fixed, NoCredential, Source

__all__ = ["NoCredential", "Source", "source"]


def source(kind: str, options: Mapping[str, Any]) -> Source:
    """What keeps a provider entry's secret current; a ValueError names the option that makes no sense.

    `kind` is what the provider's `credential` function returned. Nothing is fetched before `start`.
    """
    if kind not in KINDS:
        raise ValueError(f"no credential source {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind](options)


def _none(options: Mapping[str, Any]) -> Source:
    return Fixed(Credential())


def _key(options: Mapping[str, Any]) -> Source:
    """The api_key as given; a server of one's own may well need none."""
    key = options.get("api_key")
    return Fixed(Credential("key", token=str(key)) if key else Credential())


KINDS: Mapping[str, Callable[[Mapping[str, Any]], Source]] = {
    "none": _none,
    "key": _key,
    "aws": aws.source,
    "google": google.source,
    "entra": entra.source,
}
