"""The limits on the way to upstreams, counted by all gateways together; while Redis is away, this process's share."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.quotas import Counts, Gate, Quota, Rates
from gateway.sharing.script import Charge, Verdict
from gateway.sharing.shared import Shared, Ticket

# All of them have one tag: a request may meet any two of them at once.
TAG = "targets"


class AtLimit(Exception):
    """A limit on the way to an upstream is reached; `wait` is for how many seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"{wait:g} s")
        self.wait = wait


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

    __slots__ = ("_own", "_shared")

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self._shared = shared
        self._own: dict[str, _Quota] = {}

    def quota(self, name: str) -> _Quota:
        """What was taken of a limit by this process."""
        return self._own.get(name) or self._own.setdefault(name, _Quota(self._shared))

    async def enter(self, gates: Sequence[Gate], tokens: int, now: float) -> Ticket:
        """Pass all of these limits or none; raises AtLimit."""
        got = await self._shared.take([charge for gate in gates for charge in self._charges(gate, tokens)])
        if isinstance(got, Verdict):
            raise AtLimit(max(got.waits))
        if got.verdict is None:
            wait = max(self.quota(gate.name).own_obstacle(now, gate.rates, tokens)[0] for gate in gates)
            if wait:
                got.settle(None)
                raise AtLimit(wait)
        return got

    def _charges(self, gate: Gate, tokens: int) -> list[Charge]:
        rates = gate.rates
        found: list[Charge] = []
        if rates.rpm is not None:
            found.append(Charge("requests", self._shared.key(TAG, gate.name, "rpm"), rates.rpm, 1))
        if rates.tpm is not None:
            found.append(Charge("tokens", self._shared.key(TAG, gate.name, "tpm"), rates.tpm, tokens))
        if rates.parallel is not None:
            found.append(Charge("parallel", self._shared.key(TAG, gate.name, "parallel"), rates.parallel, 1))
        return found
