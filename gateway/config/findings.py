"""What is wrong with a configuration, and where it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; line and column count from 1."""

    path: str
    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake. Its text never holds a secret."""

    path: str
    line: int
    column: int
    level: Level
    where: str
    message: str

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{self.path}:{self.line}:{self.column}: {self.level}: {where}{self.message}"


class Findings:
    """Collects findings, in the order in which they are made."""

    def __init__(self) -> None:
        self._all: list[Finding] = []
        self._files: dict[str, int] = {}

    def begin(self, path: str) -> None:
        """Say that a file is read now: findings are listed in the order of their files."""
        self._files.setdefault(path, len(self._files))

    def error(self, mark: Mark, where: str, message: str) -> None:
        """Add a mistake that forbids to serve."""
        self._all.append(Finding(mark.path, mark.line, mark.column, "error", where, message))

    def warning(self, mark: Mark, where: str, message: str) -> None:
        """Add a mistake that only `--strict` forbids to serve."""
        self._all.append(Finding(mark.path, mark.line, mark.column, "warning", where, message))

    def listed(self, strict: bool) -> list[Finding]:
        """All of them, once each, by file and line; with `strict` every one is an error."""
        unique = dict.fromkeys(replace(each, level="error") if strict else each for each in self._all)
        return sorted(unique, key=lambda each: (self._files.get(each.path, 0), each.line, each.column))


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing when no known name is near."""
    words = {word.lower(): word for word in known}
    close = [words[word] for word in get_close_matches(name.lower(), words, n=1, cutoff=0.6)]
    return f" (did you mean '{close[0]}'?)" if close else ""


def shown(value: object) -> str:
    """A value as a message may quote it: short and on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
