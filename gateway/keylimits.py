"""What each client key may use: requests and tokens per minute, requests at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gateway.bucket import MINUTE
from gateway.config.types import Config, Limits
from gateway.contract import ChatRequest
from gateway.errors import GatewayError
from gateway.log import Record
from gateway.quotas import Quota, Rates
from gateway.traits import input_tokens

# What an answer is thought to take when the client sets no bound to it.
ANSWER_TOKENS = 1000
MOST_CHOICES = 128


class _Held:
    """What a key has used, and its limits, or the last that it had."""

    __slots__ = ("quota", "rates")

    def __init__(self, rates: Rates) -> None:
        self.quota = Quota()
        self.rates = rates

    def adopt(self, rates: Rates, now: float) -> None:
        """Go by these limits from now on; what was used stays used."""
        self.quota.rescale(now, self.rates, rates)
        self.rates = rates


class Lease:
    """What one request has taken of its key's limits; `settle` must be called once, when the request has ended."""

    __slots__ = ("_held", "_input", "_reserved")

    def __init__(self, held: _Held, now: float, size: int, reserved: int) -> None:
        self._held = held
        self._input = size
        self._reserved = reserved
        held.quota.take(now, held.rates, reserved)

    def settle(self, now: float, record: Record) -> None:
        """Put the tokens that were used in place of those that were thought of."""
        held = self._held
        held.quota.end(now, held.rates, self._reserved, self._tokens(record))

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
        self._held: dict[str, _Held] = {}
        self._limited: Mapping[str, _Held] = {}
        self.adopt(config, now)

    def adopt(self, config: Config, now: float) -> None:
        """Go by these limits from now on."""
        limits = {name: key.limits for name, key in config.keys.items() if key.limits != Limits()}
        for name, each in limits.items():
            rates = Rates(each.rpm, each.tpm, each.parallel).share(config.server.workers)
            self._held.setdefault(name, _Held(rates)).adopt(rates, now)
        self._limited = {name: self._held[name] for name in limits}

    def admit(self, record: Record, chat: ChatRequest, now: float) -> Lease | None:
        """Take what a request needs of its key's limits; None for a key that has none.

        Raises GatewayError with 429 when a limit is reached: then nothing is taken. Either way `record.allowance` holds
        the headers that tell the client about its limits.
        """
        held = self._limited.get(record.key)
        if held is None:
            return None
        quota, rates = held.quota, held.rates
        size = tokens = 0
        if rates.tpm is not None:
            size = input_tokens(chat)
            tokens = size + answer_tokens(chat)
        wait, limit = quota.obstacle(now, rates, tokens)
        if wait:
            record.limited = limit
            record.allowance = _headers(quota, rates, now)
            raise _refused(wait, limit, rates, tokens)
        lease = Lease(held, now, size, tokens)
        record.allowance = _headers(quota, rates, now)
        return lease


def answer_tokens(chat: ChatRequest) -> int:
    """The most that the answer may take, as far as the client says so."""
    most = chat.get("max_completion_tokens")
    if not isinstance(most, int):
        most = chat.get("max_tokens")
    choices = chat.get("n")
    each = max(0, most) if isinstance(most, int) else ANSWER_TOKENS
    return each * (min(max(1, choices), MOST_CHOICES) if isinstance(choices, int) else 1)


def _refused(wait: float, limit: str, rates: Rates, tokens: int) -> GatewayError:
    words = {
        "parallel": f"{rates.parallel} requests at once",
        "requests": f"{rates.rpm or 0:g} requests per minute",
        "tokens": f"{rates.tpm or 0:g} tokens per minute, about {tokens} wanted",
    }
    return GatewayError(
        f"The rate limit of your key is reached: {words[limit]}. Try again in {_span(wait)}.",
        status=429,
        kind="tokens" if limit == "tokens" else "requests",
        code="rate_limit_exceeded",
        retry_after=wait,
    )


def _headers(quota: Quota, rates: Rates, now: float) -> dict[str, str]:
    headers = {}
    if (rpm := rates.rpm) is not None:
        headers["x-ratelimit-limit-requests"] = f"{rpm:.0f}"
        headers["x-ratelimit-remaining-requests"] = str(quota.requests.left(now, rpm))
        headers["x-ratelimit-reset-requests"] = _span(quota.requests.back_in(now))
    if (tpm := rates.tpm) is not None:
        reserved = quota.reserved * MINUTE / tpm if tpm else 0.0
        headers["x-ratelimit-limit-tokens"] = f"{tpm:.0f}"
        headers["x-ratelimit-remaining-tokens"] = str(quota.left(now, tpm))
        headers["x-ratelimit-reset-tokens"] = _span(quota.tokens.back_in(now) + reserved)
    return headers


def _span(seconds: float) -> str:
    """Seconds as OpenAI writes them: 120ms, 1.5s, 6m0s; never less than it is."""
    thousandths = math.ceil(seconds * 1000)
    if thousandths < 1000:
        return f"{thousandths}ms"
    minutes, rest = divmod(thousandths / 1000, MINUTE)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
