"""In which order the targets of a routing are tried: pure functions over what is known of each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Chance = Callable[[], float]
# Added to the cost of a target that is busy and has not yet answered anything: one probe at a time finds out.
UNKNOWN = 1_000.0


@dataclass(frozen=True, slots=True)
class Option:
    """One target at the moment of the choice: its share, requests under way, seconds to a first event (0: unknown)."""

    name: str
    weight: float = 1.0
    active: int = 0
    latency: float = 0.0


Strategy = Callable[[Sequence[Option], Chance], list[int]]


def priority(options: Sequence[Option], chance: Chance) -> list[int]:
    """The order of the file."""
    return list(range(len(options)))


def weighted(options: Sequence[Option], chance: Chance) -> list[int]:
    """Drawn by weight, without putting back; a weight of 0 is never drawn."""
    left = [index for index, option in enumerate(options) if option.weight > 0]
    order = []
    while left:
        point = chance() * sum(options[index].weight for index in left)
        for index in left:
            point -= options[index].weight
            if point < 0 or index == left[-1]:
                order.append(index)
                left.remove(index)
                break
    return order


def least_busy(options: Sequence[Option], chance: Chance) -> list[int]:
    """Fewest requests under way per weight first; equals in drawn order."""
    return sorted(weighted(options, chance), key=lambda index: options[index].active / options[index].weight)


def lowest_latency(options: Sequence[Option], chance: Chance) -> list[int]:
    """Of two drawn by weight the one that is expected to answer sooner, then all others by the same measure.

    Two choices instead of the best of all: requests that decide at the same moment do not all run to the same target.
    """
    drawn = weighted(options, chance)
    rest = sorted(drawn[2:], key=lambda index: _cost(options[index]))
    return sorted(drawn[:2], key=lambda index: _cost(options[index])) + rest


def rendezvous(options: Sequence[Option], key: bytes) -> list[int]:
    """The order that belongs to a key: stable, in shares by weight, and little changed when a target comes or goes."""
    scores = {index: _score(option, key) for index, option in enumerate(options) if option.weight > 0}
    return sorted(scores, key=lambda index: scores[index], reverse=True)


STRATEGIES: Mapping[str, Strategy] = {
    "priority": priority,
    "weighted": weighted,
    "least_busy": least_busy,
    "lowest_latency": lowest_latency,
}


def _cost(option: Option) -> float:
    if not option.latency:
        return UNKNOWN * option.active / option.weight
    return option.latency * (option.active + 1) / option.weight


def _score(option: Option, key: bytes) -> float:
    digest = hashlib.blake2b(key, digest_size=8, person=hashlib.blake2b(option.name.encode(), digest_size=16).digest())
    point = (int.from_bytes(digest.digest(), "big") + 0.5) / 2**64
    # The logarithm makes the chance of the highest score proportional to the weight.
    return -option.weight / math.log(point) if point < 1 else math.inf
