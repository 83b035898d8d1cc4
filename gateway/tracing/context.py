"""The W3C trace context: what a client's `traceparent` and `tracestate` say, and how ours is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PARENT, STATE = "traceparent", "tracestate"
SAMPLED = 1
MOST_MEMBERS = 32

# A later version may say more, after one more dash; version 255 is none.
_PARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?", re.ASCII
)
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_*/@-]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]")


@dataclass(frozen=True, slots=True)
class Parent:
    """The span that a request comes from: its trace and its own id in hexadecimal digits, its flags and its state."""

    trace: str
    span: str
    flags: int
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Is the trace recorded by whoever began it?"""
        return bool(self.flags & SAMPLED)

    def headers(self) -> Mapping[str, str]:
        """The two headers as they go to an upstream."""
        return carried(self.trace, self.span, self.flags, self.state)


def carried(trace: str, span: str, flags: int, state: str) -> Mapping[str, str]:
    """The headers that tell an upstream which span its own work belongs to."""
    told = {PARENT: f"00-{trace}-{span}-{flags:02x}"}
    return {**told, STATE: state} if state else told


def read_parent(parents: Sequence[str], states: Sequence[str]) -> Parent | None:
    """The context of a request by its `traceparent` and `tracestate` lines; None when there is none that is valid."""
    found = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "00" and more is not None:
        return None
    known = int(flags, 16) if version == "00" else int(flags, 16) & SAMPLED
    return Parent(trace, span, known, _state(",".join(states)) if states else "")


def _state(text: str) -> str:
    """The list as it came, if every member of it is valid and none stands twice; else nothing of it."""
    members = [member for each in text.split(",") if (member := each.strip(" \t"))]
    keys = {found[1] for member in members if (found := _MEMBER.fullmatch(member))}
    return ",".join(members) if len(keys) == len(members) <= MOST_MEMBERS else ""
