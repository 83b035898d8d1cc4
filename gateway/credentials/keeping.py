"""A secret that is always at hand: fetched ahead of its expiry, read without await."""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.contract import Credential
from gateway.errors import Cause, UpstreamError

log = logging.getLogger("gateway.credentials")

EARLY = 300.0  # seconds before the expiry; metadata servers hand out the old token until about then
FETCH_TIMEOUT = 30.0
RETRY_FIRST, RETRY_LAST = 1.0, 60.0
# A revoked secret makes every request end in a 401; the source is then asked this often, not once per request.
FORCE_AGAIN = 5.0


class NoCredential(UpstreamError):
    """There is no secret that is valid now; nothing was sent, and another route may have one."""

    code = "upstream_auth_error"
    cause: Cause = "auth"
    sent = False


class FetchError(Exception):
    """A secret could not be had; the text is safe to show and to log."""


class Source(Protocol):
    """Where a provider entry's secret comes from."""

    def current(self) -> Credential:
        """The secret that is valid now, at once; raises NoCredential when there is none."""

    async def start(self) -> None:
        """Fetch for the first time; a failure is kept for `current`, and tried again in the background."""

    async def refresh(self) -> bool:
        """Fetch now, together with everybody else who asks; True when that gave a fresh secret."""

    async def close(self) -> None:
        """Stop refreshing. What was fetched stays readable: requests of an old configuration may still need it."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """A secret that never changes."""

    credential: Credential

    def current(self) -> Credential:
        """The secret."""
        return self.credential

    async def start(self) -> None: ...

    async def refresh(self) -> bool:
        """There is no other: False."""
        return False

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fresh:
    """What one fetch gave; `lifetime` is in seconds from now, infinite for a secret that does not expire."""

    credential: Credential
    lifetime: float = math.inf


Fetch = Callable[[], Awaitable[Fresh]]


class Kept:
    """A secret that expires. `what` names it in errors; `fetch` gets a new one or raises FetchError.

    The expiry is kept in the event loop's time, so that a step of the wall clock neither ends nor prolongs it.
    """

    def __init__(self, what: str, fetch: Fetch) -> None:
        self._what = what
        self._fetch = fetch
        self._now: Callable[[], float] = time.monotonic
        self._credential: Credential | None = None
        self._good_until = -math.inf
        self._why = "it has not been fetched yet"
        self._failures = 0
        self._forced_at = -math.inf
        self._flight: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def current(self) -> Credential:
        """The secret that is valid now; raises NoCredential when there is none."""
        if self._credential is None or self._now() >= self._good_until:
            raise NoCredential(f"The gateway has no valid {self._what} credential: {self._why}.")
        return self._credential

    async def start(self) -> None:
        """Fetch for the first time; from now on the secret is renewed before it expires."""
        self._now = asyncio.get_running_loop().time
        await self._join_flight()

    async def refresh(self) -> bool:
        """Fetch now, in one request for all who ask; True when that gave a fresh secret."""
        if self._flight is not None or self._now() - self._forced_at >= FORCE_AGAIN:
            self._forced_at = self._now()
            await self._join_flight()
        return self._failures == 0 and not self._closed

    async def close(self) -> None:
        """Stop refreshing, also in the middle of it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait((self._flight,))

    async def _join_flight(self) -> None:
        self._take_off()
        if self._flight is not None:
            # wait(), not shield(): a caller that goes away leaves the flight alone, and a closed one raises nothing.
            await asyncio.wait((self._flight,))

    def _take_off(self) -> None:
        if self._flight is None and not self._closed:
            self._flight = asyncio.create_task(self._fly())

    async def _fly(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                fresh = await self._fetch()
            self._land(_sound(fresh))
        except FetchError as error:
            self._miss(str(error))
        except TimeoutError:
            self._miss(f"its source did not answer within {FETCH_TIMEOUT:g} seconds")
        except Exception as error:  # foreign libraries raise what they like, and their texts may quote a secret
            self._miss(f"its source failed ({type(error).__name__})")
        finally:
            self._flight = None

    def _land(self, fresh: Fresh) -> None:
        self._credential = fresh.credential
        self._good_until = self._now() + fresh.lifetime
        self._why = "it has expired"
        self._failures = 0
        log.info("%s credential fetched, valid for %.0f s", self._what, fresh.lifetime)
        self._call_after((fresh.lifetime - min(EARLY, fresh.lifetime / 2)) * random.uniform(0.9, 1.0))

    def _miss(self, why: str) -> None:
        self._why = why
        self._failures += 1
        log.warning("%s credential not fetched: %s", self._what, why)
        # The exponent is bounded because 2.0**1024 overflows, after 17 hours of failing.
        longest = min(RETRY_LAST, RETRY_FIRST * 2.0 ** min(self._failures - 1, 16))
        self._call_after(longest * random.uniform(0.5, 1.0))

    def _call_after(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if math.isfinite(delay):
            self._timer = asyncio.get_running_loop().call_later(max(delay, RETRY_FIRST / 2), self._take_off)


def _sound(fresh: Fresh) -> Fresh:
    """The same, if it can go into a header and is not over; whoever sends it is spared a check per request."""
    credential = fresh.credential
    secrets = (credential.token, credential.access_key, credential.secret_key, credential.session_token)
    if not any(secrets) or not all(secret.isascii() and secret.isprintable() for secret in secrets):
        raise FetchError("its source handed out something that is no secret")
    if not fresh.lifetime > 0:  # NaN is refused as well
        raise FetchError("its source handed out an expired one (is this machine's clock right?)")
    return fresh


def extra(module: str, name: str) -> Any:
    """A module that comes with one of the package's extras, imported on first use: botocore takes 0.1 s."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise FetchError(f"a package is missing: pip install 'sluiceway[{name}]'") from None
