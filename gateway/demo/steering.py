"""How a model's name steers the demo: `demo-` and a switch, anywhere in the name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# Refusals before anything is answered.
TROUBLES = frozenset(("fail", "overloaded", "busy", "error400", "auth", "forbidden", "missing", "context"))

# What the answer's bytes suffer on their way.
MISCHIEF = frozenset(
    (
        *("slow", "drip", "stall", "hang", "reset", "cut", "shortlength"),
        *("html", "badgateway", "flood", "midstream", "firsterror", "error200"),
    )
)

# What the answer says.
CONTENT = frozenset(("steps", "filtered", "redacted"))

_SWITCH = re.compile(r"demo-([a-z]+\d*)(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch and its number; an empty name is the ordinary demo."""

    name: str = ""
    number: int = 1


@lru_cache(maxsize=256)
def switch_of(model: str) -> Switch:
    """The switch in a model's name."""
    for name, number in _SWITCH.findall(model):
        if name in TROUBLES or name in MISCHIEF or name in CONTENT:
            return Switch(name, int(number or 1))
    return Switch()
