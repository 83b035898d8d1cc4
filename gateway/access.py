"""Who may call what: client keys by their digest, and what a gateway without keys lets in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gateway.config.types import Key
from gateway.errors import GatewayError, Unauthorized

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_MISSING = "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'."
_WRONG = "Incorrect API key provided."


class Forbidden(GatewayError):
    """A browser page, or a name that was bound to a loopback address, may not use a gateway without keys."""

    status = 403
    kind = "permission_error"
    code = "forbidden"


@dataclass(frozen=True, slots=True)
class Caller:
    """A client that was let in: the name of its key, the models that it may ask for, and until when (Unix time)."""

    key: str
    models: Sequence[str] = ("*",)
    expires: float = math.inf

    def may_use(self, model: str) -> bool:
        """Is this name among the caller's models? A pattern such as `openai/*` covers what it matches."""
        models = self.models
        if model in models or "*" in models:
            return True
        return any("*" in pattern and fnmatchcase(model, pattern) for pattern in models)


ANYONE = Caller("")


class Access:
    """The keys of one configuration."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._keys = {
            bytes.fromhex(key.hash.removeprefix("sha256:")): Caller(name, tuple(key.models), key.expires or math.inf)
            for name, key in keys.items()
        }

    @property
    def open(self) -> bool:
        """Are there no keys at all?"""
        return not self._keys

    def identify(self, authorization: Sequence[str], now: float) -> Caller:
        """Who sends this `Authorization` header at this Unix time; raises Unauthorized.

        The SHA-256 digest of the whole token is looked up, so that no comparison depends on how much of it matches.
        """
        if not self._keys:
            return ANYONE
        if not authorization:
            raise Unauthorized(_MISSING)
        if len(authorization) > 1:
            raise Unauthorized("More than one Authorization header was sent.")
        scheme, _, token = authorization[0].partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized(_MISSING)
        digest = hashlib.sha256(token.strip(" ").encode("utf-8", "surrogateescape")).digest()
        known = self._keys.get(digest)
        if known is None or now >= known.expires:
            raise Unauthorized(_WRONG)
        return known


def check_local(host: str, origin: str | None, port: int) -> None:
    """Raise Forbidden unless a request to a gateway without keys came from a program on this machine.

    A page in a browser always sends `Origin` with a POST; a name bound to 127.0.0.1 shows in `Host`.
    """
    name, colon, given = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name, given = host, str(port)
    if origin is not None or name not in LOCAL_HOSTS or given != str(port):
        raise Forbidden("Without client keys, only programs on this machine may call: a local Host and no Origin.")
