"""The limits of client keys, counted by all gateways together; while Redis is away, this process's part of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from gateway.config.types import Config
from gateway.contract import ChatRequest
from gateway.errors import GatewayError
from gateway.keylimits import KeyLimits, Lease, Tariffs, _Held, allowance, over_budget, over_rate
from gateway.log import Record
from gateway.purses import Budget, Owner, Purse, Purses, Shortage, ends_in
from gateway.quotas import Quota, Rates
from gateway.sharing.charging import NANO, budget_of, rates_of
from gateway.sharing.script import Charge, Verdict
from gateway.sharing.shared import DEGRADED, Shared, Ticket
from gateway.traits import NO_SIZE, Size, size_of


class AskFirst(GatewayError):
    """Whether a request may be let in is not known here and now."""

    def __init__(self) -> None:
        super().__init__("The limits of this key are counted elsewhere.")


class _Asked(NamedTuple):
    """What a request wants, by the limits at that time: a reload may change them while Redis is asked."""

    held: _Held
    whole: Rates
    budget: Budget | None
    purse: Purse | None
    size: Size
    money: float
    charges: list[Charge]


class SharedLease(Lease):
    """What a request has taken here and in Redis."""

    __slots__ = ("_ticket",)

    def __init__(
        self, ticket: Ticket, held: _Held, now: float, size: Size, money: float, clock: Callable[[], float]
    ) -> None:
        super().__init__(held, now, size, money, clock)
        self._ticket = ticket

    def settle(self, now: float, record: Record) -> None:
        """Put what was used in place of what was thought of, here and there."""
        super().settle(now, record)
        self._ticket.settle(self._tokens(record), self._cost(record))


class SharedKeys(KeyLimits):
    """The limits of all keys. This process's own count follows what it lets in, and decides where Redis does not."""

    def __init__(self, config: Config, now: float, purses: Purses, tariffs: Tariffs, shared: Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._whole: dict[str, Rates] = {}
        super().__init__(config, now, purses, tariffs)
        shared.listeners.append(self._divide)

    def adopt(self, config: Config, now: float, tariffs: Tariffs) -> None:
        """Go by these limits from now on."""
        super().adopt(config, now, tariffs)
        limits = {name: config.keys[name].limits for name in self._limited}
        self._whole = {name: Rates(each.rpm, each.tpm, each.parallel) for name, each in limits.items()}
        self._divide()

    def admit(self, record: Record, chat: ChatRequest, now: float) -> Lease | None:
        """None for a key that has no limits; raises AskFirst for every other."""
        if record.key in self._limited:
            raise AskFirst
        return None

    async def ask(self, record: Record, chat: ChatRequest) -> Lease | None:
        """Take what a request needs of its key's limits; None for a key that has none. Raises as `KeyLimits.admit`."""
        held = self._limited.get(record.key)
        if held is None:
            return None
        whole, money = self._whole[record.key], 0.0
        size = size_of(chat) if whole.tpm is not None or held.budget is not None else NO_SIZE
        if held.budget is not None and held.purse is not None:
            money = self._affordable(held.budget, held.purse, size, record, chat)
        if not self._shared.up:
            record.allowance = DEGRADED
        charges = self._charges(record.key, held, whole, size, money)
        asked = _Asked(held, whole, held.budget, held.purse, size, money, charges)
        got = await self._shared.take(charges)
        now = self._loop.time()
        if isinstance(got, Verdict):
            raise self._refusal(asked, got, record, now)
        if got.verdict is None:
            self._stand_alone(asked, got, record, now)
        else:
            record.allowance = allowance(_seen(charges, got.verdict, now), whole, now)
        return SharedLease(got, held, now, size, money, self._purses.clock)

    def _charges(self, key: str, held: _Held, whole: Rates, size: Size, money: float) -> list[Charge]:
        tag = f"key:{key}"
        charges = rates_of(self._shared, tag, key, whole, sum(size))
        if held.budget is not None:
            owner = Owner("key", key, held.budget.currency)
            charges.append(budget_of(self._shared, tag, owner, held.budget, money, self._purses.clock()))
        return charges

    def _refusal(self, asked: _Asked, got: Verdict, record: Record, now: float) -> GatewayError:
        charges, whole = asked.charges, asked.whole
        record.allowance = allowance(_seen(charges, got, now), whole, now)
        waits = {charge.what: wait for charge, wait in zip(charges, got.waits, strict=True) if wait}
        taken = {charge.what: charge.amount for charge in charges}
        rates = [what for what in waits if what != "budget"]
        record.limited = max(rates, key=waits.__getitem__) if rates else "budget"
        if rates:
            return over_rate(
                waits[max(rates, key=waits.__getitem__)], record.limited, whole, int(taken.get("tokens", 0))
            )
        assert asked.budget is not None
        assert asked.purse is not None
        left = asked.budget.amount - got.states[-1] / NANO
        # What requests of this process have reserved may come back; what others' have is not known.
        busy = asked.money <= left + asked.purse.reserved
        short = Shortage(max(0.0, left), ends_in(self._purses.clock(), asked.budget.per), busy)
        return over_budget(short, asked.budget, asked.money)

    def _stand_alone(self, asked: _Asked, got: Ticket, record: Record, now: float) -> None:
        """Decide without Redis; raises GatewayError."""
        quota, rates, tokens = asked.held.quota, asked.held.rates, sum(asked.size)
        record.allowance = {**allowance(quota, rates, now), **DEGRADED}
        if self._shared.on_error != "local_share":
            return
        wait, limit = quota.obstacle(now, rates, tokens)
        if wait:
            got.settle(0, 0)
            record.limited = limit
            raise over_rate(wait, limit, rates, tokens)
        if asked.budget is None or asked.purse is None:
            return
        # While Redis was thought to be there, nobody looked at the part of the budget.
        part = 1 / self._shared.processes
        short = asked.purse.shortage(self._purses.clock(), asked.budget, asked.money, part)
        if short is not None:
            got.settle(0, 0)
            record.limited = "budget"
            raise over_budget(short, asked.budget, asked.money)

    def _divide(self) -> None:
        """Let this process's own count go by its part."""
        now = self._loop.time()
        for name, rates in self._whole.items():
            self._held[name].adopt(rates.share(self._shared.processes), now)
        self._purses.share = self._shared.part


def _seen(charges: list[Charge], verdict: Verdict, now: float) -> Quota:
    """The rates as all gateways together have left them."""
    quota = Quota()
    for place, charge in enumerate(charges):
        if charge.what == "requests":
            quota.requests.full_at = now + verdict.back_in(place)
        elif charge.what == "tokens":
            quota.tokens.full_at = now + verdict.back_in(place)
    return quota
