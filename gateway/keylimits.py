"""What each client key may use: requests and tokens per minute, requests at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gateway.bucket import MINUTE, Bucket
from gateway.config.types import Config, Limits
from gateway.contract import ChatRequest
from gateway.errors import GatewayError
from gateway.log import Record
from gateway.traits import input_tokens

# What an answer is thought to take when the client sets no bound to it.
ANSWER_TOKENS = 1000
MOST_CHOICES = 128
# Nobody knows when a request in flight ends; this is what a client is told when only that would help.
SOON = 1.0


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of one key in one process; None is no limit."""

    rpm: float | None
    tpm: float | None
    parallel: int | None


class _Used:
    """What a key has used, and its limits, or the last that it had.

    Tokens of running requests are `reserved` by an estimate; the bucket holds those that were truly used.
    """

    __slots__ = ("active", "rates", "requests", "reserved", "tokens")

    def __init__(self, rates: Rates) -> None:
        self.active = 0
        self.reserved = 0
        self.rates = rates
        self.requests = Bucket()
        self.tokens = Bucket()

    def adopt(self, rates: Rates, now: float) -> None:
        """Go by these limits from now on; what was used stays used."""
        old, self.rates = self.rates, rates
        if old.rpm is not None and rates.rpm is not None:
            self.requests.rescale(now, old.rpm, rates.rpm)
        if old.tpm is not None and rates.tpm is not None:
            self.tokens.rescale(now, old.tpm, rates.tpm)

    def left(self, now: float, tpm: float) -> int:
        """Tokens that a request may reserve."""
        return max(0, self.tokens.left(now, tpm) - self.reserved)


class _Refusal(NamedTuple):
    """A limit that stands in the way, and for how long."""

    wait: float
    limit: str
    words: str


class Lease:
    """What one request has taken of its key's limits; `settle` must be called once, when the request has ended."""

    __slots__ = ("_input", "_reserved", "_used")

    def __init__(self, used: _Used, rates: Rates, now: float, size: int, reserved: int) -> None:
        self._used = used
        self._input = size
        self._reserved = reserved
        used.active += 1
        used.reserved += reserved
        if rates.rpm is not None:
            used.requests.take(now, rates.rpm, 1)

    def settle(self, now: float, record: Record) -> None:
        """Put the tokens that were used in place of those that were thought of."""
        used = self._used
        used.active -= 1
        used.reserved -= self._reserved
        if used.rates.tpm is not None:
            used.tokens.take(now, used.rates.tpm, self._tokens(record))

    def _tokens(self, record: Record) -> int:
        """All of a request that failed come back, except those that a broken stream has shown to be used."""
        usage = record.usage
        if usage is None:
            return self._reserved if record.code == "ok" else 0
        prompt = usage.prompt if usage.prompt is not None else self._input
        return prompt + (usage.completion or 0)


class KeyLimits:
    """The limits of all keys. What was used is kept by name when a reload changes them.

    With several workers each grants its share: a limit of 600 is one of 300 in each of two. One request at once is the
    least of a share.
    """

    def __init__(self, config: Config, now: float) -> None:
        self._used: dict[str, _Used] = {}
        self._limited: Mapping[str, _Used] = {}
        self.adopt(config, now)

    def adopt(self, config: Config, now: float) -> None:
        """Go by these limits from now on."""
        limits = {name: key.limits for name, key in config.keys.items() if key.limits != Limits()}
        for name, each in limits.items():
            rates = _share(each, config.server.workers)
            self._used.setdefault(name, _Used(rates)).adopt(rates, now)
        self._limited = {name: self._used[name] for name in limits}

    def admit(self, record: Record, chat: ChatRequest, now: float) -> Lease | None:
        """Take what a request needs of its key's limits; None for a key that has none.

        Raises GatewayError with 429 when a limit is reached: then nothing is taken. Either way `record.allowance` holds
        the headers that tell the client about its limits.
        """
        used = self._limited.get(record.key)
        if used is None:
            return None
        rates = used.rates
        size = tokens = 0
        if rates.tpm is not None:
            size = input_tokens(chat)
            tokens = size + _answer_tokens(chat)
        refusal = _obstacle(used, rates, now, tokens)
        if refusal is not None:
            record.limited = refusal.limit
            record.allowance = _headers(used, rates, now)
            raise _refused(refusal)
        lease = Lease(used, rates, now, size, tokens)
        record.allowance = _headers(used, rates, now)
        return lease


def _share(limits: Limits, workers: int) -> Rates:
    return Rates(
        limits.rpm / workers if limits.rpm is not None else None,
        limits.tpm / workers if limits.tpm is not None else None,
        max(1, limits.parallel // workers) if limits.parallel is not None else None,
    )


def _answer_tokens(chat: ChatRequest) -> int:
    """The most that the answer may take, as far as the client says so."""
    most = chat.get("max_completion_tokens")
    if not isinstance(most, int):
        most = chat.get("max_tokens")
    choices = chat.get("n")
    each = max(0, most) if isinstance(most, int) else ANSWER_TOKENS
    return each * (min(max(1, choices), MOST_CHOICES) if isinstance(choices, int) else 1)


def _obstacle(used: _Used, rates: Rates, now: float, tokens: int) -> _Refusal | None:
    """The limit that is in the way for longest."""
    found = []
    if rates.parallel is not None and used.active >= rates.parallel:
        found.append(_Refusal(SOON, "parallel", f"{rates.parallel} requests at once"))
    if rates.rpm is not None and (wait := used.requests.wait(now, rates.rpm, 1)):
        found.append(_Refusal(wait, "requests", f"{rates.rpm:g} requests per minute"))
    if rates.tpm is not None and (wait := _wait_for_tokens(used, rates.tpm, now, tokens)):
        found.append(_Refusal(wait, "tokens", f"{rates.tpm:g} tokens per minute, about {tokens} wanted"))
    return max(found, default=None)


def _wait_for_tokens(used: _Used, tpm: float, now: float, tokens: int) -> float:
    """A request that is larger than its limit is let in when nothing else is under way and no token was used lately."""
    wait = used.tokens.wait(now, tpm, used.reserved + tokens)
    if used.reserved and used.reserved + tokens > tpm:
        return max(SOON, wait)
    return wait


def _refused(refusal: _Refusal) -> GatewayError:
    return GatewayError(
        f"The rate limit of your key is reached: {refusal.words}. Try again in {_span(refusal.wait)}.",
        status=429,
        kind="tokens" if refusal.limit == "tokens" else "requests",
        code="rate_limit_exceeded",
        retry_after=refusal.wait,
    )


def _headers(used: _Used, rates: Rates, now: float) -> dict[str, str]:
    headers = {}
    if (rpm := rates.rpm) is not None:
        headers["x-ratelimit-limit-requests"] = f"{rpm:.0f}"
        headers["x-ratelimit-remaining-requests"] = str(used.requests.left(now, rpm))
        headers["x-ratelimit-reset-requests"] = _span(used.requests.back_in(now))
    if (tpm := rates.tpm) is not None:
        reserved = used.reserved * MINUTE / tpm if tpm else 0.0
        headers["x-ratelimit-limit-tokens"] = f"{tpm:.0f}"
        headers["x-ratelimit-remaining-tokens"] = str(used.left(now, tpm))
        headers["x-ratelimit-reset-tokens"] = _span(used.tokens.back_in(now) + reserved)
    return headers


def _span(seconds: float) -> str:
    """Seconds as OpenAI writes them: 120ms, 1.5s, 6m0s; never less than it is."""
    thousandths = math.ceil(seconds * 1000)
    if thousandths < 1000:
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths / 1000, MINUTE)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
