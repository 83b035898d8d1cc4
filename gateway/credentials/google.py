"""Google's access tokens: from a service account's file, or the application default credentials."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import orjson

from gateway.contract import Credential
from gateway.credentials.keeping import FetchError, Fresh, Kept, Source, extra

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
CALL_TIMEOUT = 10.0

# Not every type that google-auth knows: one of them names a program to run.
FACTORIES = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
    "external_account": ("google.auth.identity_pool", "from_info"),
}


def source(options: Mapping[str, Any]) -> Source:
    """Tokens for `credentials`: a file's path or its JSON; absent, true or `default` means the machine's own."""
    given, proxy = options.get("credentials"), options.get("proxy")

    async def fetch() -> Fresh:
        return await asyncio.to_thread(_fetch, given, proxy)

    return Kept("Google", fetch)


def _fetch(given: object, proxy: str | None) -> Fresh:
    """A new token; the file is read again each time, so that a replaced one is noticed."""
    transport, requests = extra("google.auth.transport.requests", "google"), extra("requests", "google")
    refused = extra("google.auth.exceptions", "google").GoogleAuthError
    with requests.Session() as session:
        session.trust_env = False  # no proxy and no netrc from the environment
        session.max_redirects = 0
        if proxy:
            session.proxies = {
                "https": proxy
            }  # not for the metadata server, which speaks plain http to this machine only
        request: Any = functools.partial(transport.Request(session), timeout=CALL_TIMEOUT)
        request.session = session  # where google-auth mounts the metadata server's client certificate
        try:
            credentials = _load(given, request)
            credentials.refresh(request)
        except refused as error:
            raise FetchError(f"Google's library gave up ({type(error).__name__})") from None
    expiry = credentials.expiry  # naive, in UTC
    lifetime = math.inf if expiry is None else expiry.replace(tzinfo=UTC).timestamp() - time.time()
    return Fresh(Credential("bearer", token=credentials.token or ""), lifetime)


def _load(given: object, request: Any) -> Any:
    if given in (None, True, "", "default"):
        credentials, _project = extra("google.auth", "google").default(scopes=SCOPES, request=request)
        return credentials
    content = _content(given)
    kind = content.get("type")
    if kind not in FACTORIES:
        known = ", ".join(FACTORIES)
        raise FetchError(f"the type in `credentials` is none of {known}; GOOGLE_APPLICATION_CREDENTIALS takes others")
    module, factory = FACTORIES[kind]
    return getattr(extra(module, "google").Credentials, factory)(content, scopes=SCOPES)


def _content(given: object) -> Mapping[str, Any]:
    """The credentials file as a mapping."""
    try:
        if isinstance(given, str):
            given = orjson.loads(given if given.lstrip().startswith("{") else Path(given).read_bytes())
    except OSError as error:
        raise FetchError(f"the file named by `credentials` cannot be read ({type(error).__name__})") from None
    except orjson.JSONDecodeError:
        raise FetchError("what `credentials` names is no JSON") from None
    if not isinstance(given, Mapping):
        raise FetchError("`credentials` is neither a path nor a JSON object")
    return given
