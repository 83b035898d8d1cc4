"""Plain values as the YAML that gateway.yaml is written in: an entry on one line where it fits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from gateway.config.document import scalar
from gateway.config.reader import AMBIGUOUS

WIDTH = 120

# What stands without quotes; a colon only where it can end no key.
_PLAIN = re.compile(r"[A-Za-z0-9_/](:(?=[A-Za-z0-9])|[A-Za-z0-9_./@*%+-])*")

Notes = Mapping[str, Sequence[str]]


def document(values: Mapping[str, Any], notes: Notes | None = None) -> str:
    """A whole file. `notes` are comments by dotted place (`deployments.gpt`); those under "" begin the file."""
    notes = notes or {}
    lines = [*_comments(notes.get("", ()), "")]
    for name, value in values.items():
        if lines:
            lines.append("")
        if isinstance(value, Mapping) and value:
            lines += [*_comments(notes.get(name, ()), ""), f"{text(name)}:"]
            for key, entry in value.items():
                lines += _comments(notes.get(f"{name}.{key}", ()), "  ")
                lines += _entry(key, entry, "  ")
        else:
            lines += [*_comments(notes.get(name, ()), ""), f"{text(name)}: {flow(value)}"]
    return "\n".join(lines) + "\n"


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{text(str(key))}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    if isinstance(value, str):
        return text(value)
    written = json.dumps(value, default=str)
    # YAML 1.1 takes a number with an exponent for text, unless it has a point.
    return (
        written.replace("e", ".0e", 1)
        if isinstance(value, float) and "e" in written and "." not in written
        else written
    )


def text(value: str) -> str:
    """A text, in quotes where any reader could take it for something else."""
    if _PLAIN.fullmatch(value) and not AMBIGUOUS.fullmatch(value) and isinstance(scalar(value), str):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else _escaped(char) for char in quoted)


def _escaped(char: str) -> str:
    return f"\\U{ord(char):08x}" if ord(char) > 0xFFFF else f"\\u{ord(char):04x}"


def _entry(name: str, value: Any, pad: str) -> Iterator[str]:
    line = f"{pad}{text(name)}: {flow(value)}"
    if len(line) <= WIDTH or not value or not isinstance(value, Mapping | list | tuple):
        yield line
        return
    yield f"{pad}{text(name)}:"
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _entry(str(key), each, f"{pad}  ")
    else:
        yield from (f"{pad}  - {flow(each)}" for each in value)


def _comments(lines: Sequence[str], pad: str) -> Iterator[str]:
    for line in lines:
        shown = "".join(char if char.isprintable() else " " for char in line)
        yield from wrap(
            shown,
            WIDTH,
            initial_indent=f"{pad}# ",
            subsequent_indent=f"{pad}#   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
