"""One deployment of LiteLLM on its way to gateway.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.cli.litellm.report import Row

Entry = dict[str, Any]


@dataclass(slots=True)
class Piece:
    """One deployment of a group: its entry, what an adapter presets, and how the group chooses it."""

    group: str
    deployment: Entry
    default: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    weight: dict[str, float] = field(default_factory=dict)
    order: float | None = None
    name: str = ""
    rows: list[Row] = field(default_factory=list)
    preset_rows: list[Row] = field(default_factory=list)

    @property
    def presets(self) -> bool:
        """Does it need an adapter?"""
        return bool(self.default or self.set)


def is_name(text: str) -> bool:
    """Can this be the name of a model?"""
    return 0 < len(text) <= 200 and text == text.strip() and text.isprintable()


def put(entry: Entry, place: str, value: Any) -> None:
    """Set an option by its dotted place."""
    *way, name = place.split(".")
    for step in way:
        entry = entry.setdefault(step, {})
    entry[name] = value
