"""What each client key may use: requests and tokens per minute, requests at once, money per day or month."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from gateway.bucket import MINUTE
from gateway.config.types import Config, Limits
from gateway.contract import ChatRequest
from gateway.errors import BudgetSpent, GatewayError, InvalidRequest
from gateway.log import Record
from gateway.prices import Tariff
from gateway.purses import Budget, Owner, Purse, Purses, Shortage, span, worth_saying
from gateway.quotas import SOON, Quota, Rates
from gateway.traits import NO_SIZE, Size, size_of

Tariffs = Callable[[str], Tariff | None]


class _Held:
    """What a key has used, and its limits, or the last that it had. A key with a budget has a purse."""

    __slots__ = ("budget", "purse", "quota", "rates")

    def __init__(self, rates: Rates) -> None:
        self.quota = Quota()
        self.rates = rates
        self.budget: Budget | None = None
        self.purse: Purse | None = None

    def adopt(self, rates: Rates, now: float) -> None:
        """Go by these limits from now on; what was used stays used."""
        self.quota.rescale(now, self.rates, rates)
        self.rates = rates


class Lease:
    """What one request has taken of its key's limits; `settle` must be called once, when the request has ended."""

    __slots__ = ("_clock", "_held", "_input", "_money", "_purse", "_reserved")

    def __init__(self, held: _Held, now: float, size: Size, money: float, clock: Callable[[], float]) -> None:
        self._held = held
        self._input = size.prompt
        self._reserved = sum(size) if held.rates.tpm is not None else 0
        held.quota.take(now, held.rates, self._reserved)
        self._purse, self._money, self._clock = held.purse, money, clock
        if held.purse is not None:
            held.purse.reserve(money)

    def settle(self, now: float, record: Record) -> None:
        """Put the tokens and the money that were used in place of those that were thought of."""
        held = self._held
        held.quota.end(now, held.rates, self._reserved, self._tokens(record))
        if self._purse is not None:
            self._purse.settle(self._clock(), self._money, self._cost(record))

    def _tokens(self, record: Record) -> int:
        """All of a request that failed come back, except those that a broken stream has shown to be used."""
        usage = record.usage
        if usage is None:
            return self._reserved if record.code == "ok" else 0
        prompt = usage.prompt if usage.prompt is not None else self._input
        return prompt + (usage.completion or 0)

    def _cost(self, record: Record) -> float:
        """As with tokens: the estimate stands for an answer that does not say what it took."""
        if record.cost is not None:
            return record.cost
        return self._money if record.code == "ok" else 0.0


class KeyLimits:
    """The limits of all keys. What was used is kept by name when a reload changes them.

    With several workers each grants its share: a limit of 600 is one of 300 in each of two. One request at once is the
    least of a share. `tariffs` says what a model's tokens cost at most.
    """

    def __init__(self, config: Config, now: float, purses: Purses, tariffs: Tariffs) -> None:
        self._held: dict[str, _Held] = {}
        self._limited: Mapping[str, _Held] = {}
        self._purses = purses
        self._tariffs = tariffs
        self.adopt(config, now, tariffs)

    def adopt(self, config: Config, now: float, tariffs: Tariffs) -> None:
        """Go by these limits from now on."""
        self._tariffs = tariffs
        limits = {name: key.limits for name, key in config.keys.items() if key.limits != Limits()}
        for name, each in limits.items():
            rates = Rates(each.rpm, each.tpm, each.parallel).share(config.server.workers)
            held = self._held.setdefault(name, _Held(rates))
            held.adopt(rates, now)
            held.budget = each.budget
            held.purse = self._purses[Owner("key", name, each.budget.currency)] if each.budget is not None else None
        self._limited = {name: self._held[name] for name in limits}

    def admit(self, record: Record, chat: ChatRequest, now: float) -> Lease | None:
        """Take what a request needs of its key's limits; None for a key that has none.

        Raises GatewayError with 429 when a limit is reached, and with 402 when the budget is spent: then nothing is
        taken. Either way `record.allowance` holds the headers that tell the client about its rates.
        """
        held = self._limited.get(record.key)
        if held is None:
            return None
        quota, rates = held.quota, held.rates
        size = size_of(chat) if rates.tpm is not None or held.budget is not None else NO_SIZE
        wait, limit = quota.obstacle(now, rates, sum(size))
        if wait:
            record.limited = limit
            record.allowance = allowance(quota, rates, now)
            raise over_rate(wait, limit, rates, sum(size))
        money = 0.0
        if held.budget is not None and held.purse is not None:
            money = self._affordable(held.budget, held.purse, size, record, chat)
        lease = Lease(held, now, size, money, self._purses.clock)
        record.allowance = allowance(quota, rates, now)
        return lease

    def _affordable(self, budget: Budget, purse: Purse, size: Size, record: Record, chat: ChatRequest) -> float:
        """What the request may cost; raises GatewayError where the budget does not bear it."""
        tariff = self._tariffs(chat.model)
        if tariff is None:
            message = "Your key has a budget, and nobody has said what this model costs."
            raise InvalidRequest(message, param="model", code="model_not_available")
        money = tariff.estimate(*size)
        short = purse.shortage(self._purses.clock(), budget, money, self._purses.share)
        if short is not None:
            record.limited = "budget"
            raise over_budget(short, budget, money)
        return money


def over_budget(short: Shortage, budget: Budget, money: float) -> GatewayError:
    """What a client is told whose budget does not bear a request that may cost so much."""
    left = f"{_coins(short.left)} {budget.currency} is left and this request may cost {_coins(money)}"
    if short.busy:
        message = f"The rest of your key's budget of {budget} is reserved by requests under way: {left}. Try again."
        return GatewayError(
            message, status=429, kind="insufficient_quota", code="rate_limit_exceeded", retry_after=SOON
        )
    message = f"The budget of your key, {budget}, is spent: {left}. It begins anew in {span(short.wait)}."
    return BudgetSpent(message, retry_after=worth_saying(short.wait))


def _coins(amount: float) -> str:
    return f"{amount:.6f}".rstrip("0").rstrip(".")


def over_rate(wait: float, limit: str, rates: Rates, tokens: int) -> GatewayError:
    """What a client is told that has to wait."""
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


def allowance(quota: Quota, rates: Rates, now: float) -> dict[str, str]:
    """The headers that tell a client about its rates."""
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
