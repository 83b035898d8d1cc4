"""The limits on the way to upstreams, counted by all gateways together; while Redis is away, this process's share."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.purses import ends_in
from gateway.quotas import SOON, Counts, Gate, Quota, Rates
from gateway.routes import Step
from gateway.sharing.charging import budget_of, rates_of
from gateway.sharing.script import Charge, Verdict
from gateway.sharing.shared import Shared, Ticket
from gateway.traits import Size

# All of them have one tag: a request may meet any two of them at once.
TAG = "targets"


class AtLimit(Exception):
    """A limit on the way to an upstream is reached; `wait` is for how many seconds.

    `spent`: it is a budget. `crowded`: it is only that too many requests are under way.
    """

    def __init__(self, wait: float, *, spent: bool = False, crowded: bool = False) -> None:
        super().__init__(f"{wait:g} s")
        self.wait = wait
        self.spent = spent
        self.crowded = crowded


class _Quota(Quota):
    """What this process alone has taken. It is in nobody's way as long as Redis counts."""

    __slots__ = ("_shared",)

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self._shared = shared

    def obstacle(self, now: float, rates: Rates, tokens: int) -> tuple[float, str]:
        """Nothing that this process knows by itself, unless it has to."""
        return (0.0, "") if self._shared.up else self.own_obstacle(now, rates, tokens)

    def own_obstacle(self, now: float, rates: Rates, tokens: int) -> tuple[float, str]:
        """What is in the way of a request as far as this process may grant."""
        if self._shared.on_error != "local_share":
            return 0.0, ""
        return super().obstacle(now, rates.share(self._shared.processes), tokens)

    def take(self, now: float, rates: Rates, tokens: int) -> None:
        """A request of about so many tokens begins."""
        super().take(now, rates.share(self._shared.processes), tokens)

    def end(self, now: float, rates: Rates, reserved: int, used: int) -> None:
        """It has ended."""
        super().end(now, rates.share(self._shared.processes), reserved, used)


class SharedCounts(Counts):
    """Quotas of which the common part is in Redis: `enter` asks for it."""

    __slots__ = ("_own", "shared")

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.shared = shared
        self._own: dict[str, _Quota] = {}

    def quota(self, name: str) -> _Quota:
        """What was taken of a limit by this process."""
        return self._own.get(name) or self._own.setdefault(name, _Quota(self.shared))

    async def enter(self, step: Step, size: Size, now: float) -> Ticket:
        """Pass all limits on the way of an attempt, or none; raises AtLimit."""
        charges = [charge for gate in step.gates for charge in self._charges(gate, step, size)]
        got = await self.shared.take(charges)
        if isinstance(got, Verdict):
            raise self._reached(step, charges, got)
        if got.verdict is None:
            wait = max(self.quota(gate.name).own_obstacle(now, gate.rates, size.prompt)[0] for gate in step.gates)
            reached = AtLimit(wait) if wait else self._own_shortage(step, size)
            if reached is not None:
                got.settle(0, 0)
                raise reached
        return got

    def _own_shortage(self, step: Step, size: Size) -> AtLimit | None:
        """The first budget of which this process's part does not bear a request; None for none."""
        tariff = step.attempt.tariff
        if self.shared.on_error != "local_share" or tariff is None:
            return None
        now, part, money = self.purses.clock(), 1 / self.shared.processes, tariff.estimate(*size)
        for gate in step.gates:
            if gate.budget is not None and gate.owner is not None:
                short = self.purses[gate.owner].shortage(now, gate.budget, money, part)
                if short is not None:
                    return AtLimit(SOON) if short.busy else AtLimit(short.wait, spent=True)
        return None

    def _reached(self, step: Step, charges: Sequence[Charge], refused: Verdict) -> AtLimit:
        waits = {charge.what: wait for charge, wait in zip(charges, refused.waits, strict=True) if wait}
        if waits.keys() == {"budget"}:
            periods = [gate.budget.per for gate in step.gates if gate.budget is not None]
            return AtLimit(max(ends_in(self.purses.clock(), per) for per in periods), spent=True)
        return AtLimit(max(waits.values()), crowded=waits.keys() == {"parallel"})

    def _charges(self, gate: Gate, step: Step, size: Size) -> list[Charge]:
        charges = rates_of(self.shared, TAG, gate.name, gate.rates, size.prompt)
        tariff = step.attempt.tariff
        if gate.budget is not None and gate.owner is not None and tariff is not None:
            money = tariff.estimate(*size)
            charges.append(budget_of(self.shared, TAG, gate.owner, gate.budget, money, self.purses.clock()))
        return charges
