"""Entra tokens for Azure: a client secret, a workload identity or a managed identity, each one HTTP request."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from yarl import URL

from gateway.contract import Credential
from gateway.credentials.keeping import Fetch, FetchError, Fresh, Kept, Source

RESOURCE = "https://cognitiveservices.azure.com"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TIMEOUT = aiohttp.ClientTimeout(total=10)
LARGEST = 64 * 1024
# An error's name, and nothing that could be an echo of what was sent.
ERROR_NAME = re.compile(r"[a-z_]{1,40}")

# Option of `entra`, the variable that stands in for it, and the default.
NAMES = {
    "tenant_id": ("AZURE_TENANT_ID", ""),
    "client_id": ("AZURE_CLIENT_ID", ""),
    "client_secret": ("AZURE_CLIENT_SECRET", ""),
    "token_file": ("AZURE_FEDERATED_TOKEN_FILE", ""),
    "authority": ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com"),
    "metadata": ("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://169.254.169.254"),
    "resource": ("", RESOURCE),
}


def source(options: Mapping[str, Any]) -> Source:
    """Tokens by `entra`: true, or a mapping with any of NAMES; the environment fills in what it leaves out."""
    given = options.get("entra")
    given = given if isinstance(given, Mapping) else {}
    if unknown := sorted(set(given) - set(NAMES)):
        raise ValueError(f"entra: no option {unknown[0]!r}; there are {', '.join(NAMES)}")
    value = {name: str(given.get(name) or os.environ.get(env) or default) for name, (env, default) in NAMES.items()}
    registered = value["tenant_id"] and value["client_id"]
    if not registered and (given.get("client_secret") or given.get("token_file")):
        raise ValueError("entra: client_secret and token_file need tenant_id and client_id")
    return Kept("Entra", _flow(value, options.get("proxy")) if registered else _managed(value))


def _flow(value: Mapping[str, str], proxy: str | None) -> Fetch:
    """The flow for a registered application; without a secret of its own it is a managed identity's."""
    url = _authority(value["authority"]) / value["tenant_id"] / "oauth2/v2.0/token"
    form = {
        "grant_type": "client_credentials",
        "client_id": value["client_id"],
        "scope": value["resource"].rstrip("/") + "/.default",
    }
    if value["client_secret"]:
        return _Call("POST", url, form={**form, "client_secret": value["client_secret"]}, proxy=proxy).fetch
    if not value["token_file"]:
        return _managed(value)
    path = Path(value["token_file"])

    async def with_assertion() -> Fresh:
        # Read each time: the file's token is replaced every hour or so.
        proof = {"client_assertion_type": ASSERTION, "client_assertion": _assertion(path)}
        return await _Call("POST", url, form={**form, **proof}, proxy=proxy).fetch()

    return with_assertion


def _authority(text: str) -> URL:
    url = URL(text if "://" in text else f"https://{text}")
    if url.scheme != "https" and url.host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError("entra: the authority takes the secret, so it must be an https address")
    return url


def _assertion(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise FetchError(f"the federated token's file cannot be read ({type(error).__name__})") from None


def _managed(value: Mapping[str, str]) -> Fetch:
    """The identity of the machine: App Service's endpoint when its variables are set, else the metadata service.

    Both answer this machine only, so no proxy is asked.
    """
    client = {"client_id": value["client_id"]} if value["client_id"] else {}
    query = {"resource": value["resource"], **client}
    endpoint, header = os.environ.get("IDENTITY_ENDPOINT"), os.environ.get("IDENTITY_HEADER")
    if endpoint and header:
        url = URL(endpoint).update_query({**query, "api-version": "2019-08-01"})
        return _Call("GET", url, {"X-IDENTITY-HEADER": header}).fetch
    url = URL(value["metadata"]) / "metadata/identity/oauth2/token"
    return _Call("GET", url.update_query({**query, "api-version": "2018-02-01"}), {"Metadata": "true"}).fetch


@dataclass(frozen=True, slots=True)
class _Call:
    """One request for a token."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)

    async def fetch(self) -> Fresh:
        """The token, by a connection of its own: the next one is needed in an hour."""
        try:
            async with (
                aiohttp.ClientSession(timeout=TIMEOUT, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(
                    self.method,
                    self.url,
                    headers=self.headers,
                    data=self.form,
                    allow_redirects=False,
                    proxy=self.proxy,
                ) as response,
            ):
                return _read_token(response.status, await _body(response))
        except (aiohttp.ClientError, OSError) as error:  # OSError: a TimeoutError is one
            raise FetchError(f"the token endpoint did not answer ({type(error).__name__})") from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LARGEST:
            raise FetchError("the token endpoint's answer is too large")
    return bytes(body)


def _read_token(status: int, body: bytes) -> Fresh:
    """The token in an answer of either endpoint; the metadata service writes its numbers as strings."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    token = answer.get("access_token")
    if status != 200 or not isinstance(token, str):
        raise FetchError(f"the token endpoint answered {status}{_reason(answer)}")
    try:
        left = float(answer["expires_in"]) if "expires_in" in answer else float(answer["expires_on"]) - time.time()
    except (KeyError, TypeError, ValueError):
        raise FetchError("the token endpoint did not say how long its token lasts") from None
    return Fresh(Credential("bearer", token=token), left)


def _reason(answer: Mapping[str, Any]) -> str:
    """The error's name and Entra's number for it; its description may quote what was sent."""
    name, codes = answer.get("error"), answer.get("error_codes")
    known = name if isinstance(name, str) and ERROR_NAME.fullmatch(name) else ""
    number = f" AADSTS{codes[0]}" if isinstance(codes, list) and codes and type(codes[0]) is int else ""
    return f" {known}{number}".rstrip()
