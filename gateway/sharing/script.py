"""What is asked of Redis and what it answers: the arguments of the one script, and its answers as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Literal, NamedTuple

SOURCE = files("gateway.sharing").joinpath("limits.lua").read_bytes()
# Redis knows a script by this digest; it guards nothing.
DIGEST = sha1(SOURCE, usedforsecurity=False).hexdigest()
MICRO = 1_000_000

Reply = Sequence[Any]


class Command(NamedTuple):
    """One call of the script. All of its keys have the same tag in braces: a cluster keeps them in one place."""

    keys: tuple[str, ...]
    arguments: tuple[str | bytes | int | float, ...]


What = Literal["requests", "tokens", "parallel", "budget"]
KINDS: Mapping[What, str] = {"requests": "rate", "tokens": "rate", "parallel": "held", "budget": "spent"}


class Charge(NamedTuple):
    """What a request takes of one limit: requests and tokens per minute, requests at once, money in a period.

    `lasts` is for how many seconds money is remembered after its last change.
    """

    what: What
    key: str
    limit: float
    amount: float
    lasts: float = 0.0


class Verdict(NamedTuple):
    """Whether all charges were granted; per charge the seconds to wait and how things stand, in the script's terms.

    `states` holds what is held or spent; for a rate `back_in` tells it.
    """

    granted: bool
    now: int
    waits: tuple[float, ...]
    states: tuple[int, ...]

    def back_in(self, place: int) -> float:
        """Seconds until the rate in this place is whole again."""
        return max(0, self.states[place] - self.now) / MICRO


class Who(NamedTuple):
    """A process, and for how many seconds what it holds lasts without a word from it."""

    name: str
    lease: float

    @property
    def arguments(self) -> tuple[str, int]:
        """As the script wants it."""
        return self.name, int(self.lease * MICRO)


def take(who: Who, charges: Sequence[Charge]) -> Command:
    """Take all of these or nothing; `verdict` reads the answer."""
    arguments: list[str | int | float] = ["take", *who.arguments]
    for charge in charges:
        arguments += (KINDS[charge.what], charge.limit, charge.amount, int(charge.lasts * MICRO))
    return Command(tuple(charge.key for charge in charges), tuple(arguments))


def verdict(reply: Reply) -> Verdict:
    """The answer to `take`."""
    granted, now, *rest = (int(each) for each in reply)
    return Verdict(bool(granted), now, tuple(wait / MICRO for wait in rest[::2]), tuple(rest[1::2]))


def settle(who: Who, charges: Sequence[Charge], granted: Verdict) -> Command | None:
    """Correct what was taken: the amounts of these charges are what it was more than thought. None when it was right.

    A rate gives back at most what time has not filled up since the taking.
    """
    keys: list[str] = []
    arguments: list[str | int | float] = ["settle", *who.arguments]
    for charge, state in zip(charges, granted.states, strict=True):
        if charge.amount:
            extra = int(charge.lasts * MICRO) if charge.what == "budget" else state
            keys.append(charge.key)
            arguments += (KINDS[charge.what], charge.limit, charge.amount, extra)
    return Command(tuple(keys), tuple(arguments)) if keys else None


def renew(who: Who, key: str, count: int) -> Command:
    """So much is truly held of this key."""
    return Command((key,), ("renew", *who.arguments, count))


def beat(who: Who, prefix: str, held: Mapping[str, float]) -> Command:
    """A sign of life, with upstreams that asked to be left alone for so many seconds; `heard` reads the answer."""
    pairs = [part for name, seconds in held.items() for part in (name, int(seconds * MICRO))]
    keys = (f"{prefix}:{{all}}:processes", f"{prefix}:{{all}}:holds")
    return Command(keys, ("beat", *who.arguments, *pairs))


class Heard(NamedTuple):
    """How many processes are alive, and which upstreams want to be left alone for how many seconds."""

    processes: int
    held: Mapping[str, float]


def heard(reply: Reply) -> Heard:
    """The answer to `beat`."""
    held = {bytes(name).decode(): int(left) / MICRO for name, left in zip(reply[1::2], reply[2::2], strict=True)}
    return Heard(int(reply[0]), held)
