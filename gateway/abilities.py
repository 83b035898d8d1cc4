"""What a model family can do, looked up in rows of patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

# A row: {"match": "claude-sonnet-4-5*" or a list of patterns, ability: value, ...}
Rows = Sequence[Mapping[str, Any]]


def abilities(rows: Rows, family: str) -> Mapping[str, Any]:
    """Merge every row that matches the family, later rows over earlier ones; `match` itself is left out."""
    found: dict[str, Any] = {}
    for row in rows:
        patterns = [row["match"]] if isinstance(row["match"], str) else row["match"]
        if any(fnmatchcase(family, pattern) for pattern in patterns):
            found.update((name, value) for name, value in row.items() if name != "match")
    return found
