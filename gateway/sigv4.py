"""AWS Signature Version 4: the headers that prove who sends a request."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from gateway.contract import Credential

ALGORITHM = "AWS4-HMAC-SHA256"
_DEFAULT_PORT = {"http": ":80", "https": ":443"}


def sign(  # noqa: PLR0917 - what a signature covers
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    credential: Credential,
    region: str,
    service: str,
    now: float,
) -> dict[str, str]:
    """The headers to add: `authorization`, `x-amz-date` and, for temporary credentials, `x-amz-security-token`.

    Of `headers` only content-type and x-amz-* are signed: proxies rewrite the others. `url` is percent-encoded
    already and must go out exactly so, with the `Host` that follows from it (`host` in `headers` wins).
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    added = {"x-amz-date": stamp}
    if credential.session_token:
        added["x-amz-security-token"] = credential.session_token
    signed = _signed_headers(url, {**headers, **added})
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    request = canonical_request(method, url, signed, body)
    text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = hmac.digest(_key(credential.secret_key, scope), text.encode(), "sha256").hex()
    added["authorization"] = (
        f"{ALGORITHM} Credential={credential.access_key}/{scope}, "
        f"SignedHeaders={';'.join(signed)}, Signature={signature}"
    )
    return added


def canonical_request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> str:
    """The text that is signed; `headers` are exactly those to sign, with lower-case names in order.

    Every service but S3 has the path encoded once more, though it is encoded in the URL already.
    """
    parts = urlsplit(url)
    lines = (
        method.upper(),
        quote(_without_dots(parts.path), safe="/-_.~"),
        _sorted_query(parts.query),
        *(f"{name}:{value}" for name, value in headers.items()),
        "",
        ";".join(headers),
        hashlib.sha256(body).hexdigest(),
    )
    return "\n".join(lines)


def _signed_headers(url: str, headers: Mapping[str, str]) -> dict[str, str]:
    chosen = {"host": _host(url)}
    for name, value in headers.items():
        lower = name.lower()
        if lower in ("host", "content-type") or lower.startswith("x-amz-"):
            chosen[lower] = " ".join(value.split())
    return dict(sorted(chosen.items()))


def _host(url: str) -> str:
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2].lower().removesuffix(_DEFAULT_PORT.get(parts.scheme, ":"))


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")


def _sorted_query(query: str) -> str:
    if not query:
        return ""
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&"))
    return "&".join(f"{name}={value}" for name, value in pairs)


def _key(secret: str, scope: str) -> bytes:
    # Four HMACs cost 5 µs; a cache of derived keys would keep secrets alive for that.
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
