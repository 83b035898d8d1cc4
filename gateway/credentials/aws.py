"""Amazon's credentials: as given, from the environment, or from botocore's chain."""

from __future__ import annotations

import asyncio
import logging
import os
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from gateway.contract import Credential
from gateway.credentials.keeping import FetchError, Fixed, Fresh, Kept, Source, extra

DAY = 86400


def source(options: Mapping[str, Any]) -> Source:
    """The options' own keys; with a profile, that; else what the environment says, else the chain."""
    if given := _pair(options, ("access_key_id", "secret_access_key", "session_token")):
        return Fixed(given)
    profile, region, proxy = options.get("profile"), options.get("region"), options.get("proxy")
    if not profile and (ambient := _ambient()):
        return Fixed(ambient)

    async def fetch() -> Fresh:
        return await asyncio.to_thread(_fetch, profile, region, proxy)

    return Kept("AWS", fetch)


def _ambient() -> Credential | None:
    if token := os.environ.get("AWS_BEARER_TOKEN_BEDROCK"):
        return Credential("key", token=token)
    return _pair(os.environ, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))


def _pair(values: Mapping[str, Any], names: tuple[str, str, str]) -> Credential | None:
    """The keys under these names; None without any, and a ValueError for half of a pair."""
    access, secret, session = (str(values.get(name) or "") for name in names)
    if bool(access) != bool(secret):
        raise ValueError(f"{names[0]} and {names[1]} belong together: one of them is missing")
    return Credential("aws", access_key=access, secret_key=secret, session_token=session) if access else None


def _fetch(profile: str | None, region: str | None, proxy: str | None) -> Fresh:
    """Ask the chain, in a session of its own: a cached answer would be the secret that has just been refused."""
    client_error = extra("botocore.exceptions", "aws").ClientError
    try:
        found = _session(profile, region, proxy).get_credentials()
        if found is None:
            raise FetchError("neither a profile, web identity, container nor instance offers one")
        frozen = found.get_frozen_credentials()
    except client_error as error:
        raise FetchError(f"STS refused ({error.response.get('Error', {}).get('Code')})") from None
    credential = Credential(
        "aws", access_key=frozen.access_key, secret_key=frozen.secret_key, session_token=frozen.token or ""
    )
    expires_within: Callable[[int], bool] | None = getattr(found, "refresh_needed", None)
    return Fresh(credential, _lifetime(expires_within)) if expires_within else Fresh(credential)


def _session(profile: str | None, region: str | None, proxy: str | None) -> Any:
    session = extra("botocore.session", "aws").Session(profile=profile)
    if region:
        session.set_config_variable("region", region)
    # It logs what it receives on the way down, and on a failed refresh the refusal's text, which may quote the token.
    logging.getLogger("botocore").setLevel(logging.CRITICAL)
    # Not None, even without one: this is what keeps the environment's proxies from seeing the token.
    proxies = {"https": proxy} if proxy else {}
    config = extra("botocore.config", "aws").Config
    calm = config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1}, proxies=proxies)
    session.set_default_client_config(calm)
    return session


def _lifetime(expires_within: Callable[[int], bool]) -> float:
    """Whole seconds left; botocore tells its expiry only by answering yes or no. At most a day, then ask again."""
    return float(bisect_left(range(DAY), True, key=expires_within) - 1)
