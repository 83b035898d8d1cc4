"""What became of each field of the source; a field that nobody asks for is reported all the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

Grade = Literal["exact", "approximate", "manual", "unsupported"]
GRADES: Mapping[Grade, str] = {
    "exact": "means the same here",
    "approximate": "means nearly the same; the note says what differs",
    "manual": "something is left to do by hand",
    "unsupported": "left out: the gateway has nothing like it",
}
REFERENCE = "os.environ/"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True)
class Row:
    """One field of the source: `to` is where it went in gateway.yaml. Neither holds a value of the source."""

    field: str
    grade: Grade
    to: str = ""
    note: str = ""

    def __str__(self) -> str:
        goes = f" -> {self.to}" if self.to else ""
        return f"{self.grade}: {self.field}{goes}{f' ({self.note})' if self.note else ''}"


class Report:
    """The rows in the order of the source, and the variables that the environment must have."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.rows: list[Row] = []
        self.variables: dict[str, str] = {}
        # Names that the source itself uses: a secret of another kind must not get one of them.
        self.reserved: set[str] = set()

    def add(self, field: str, grade: Grade, to: str = "", note: str = "") -> Row:
        """Note what became of a field."""
        row = Row(field, grade, to, note)
        self.rows.append(row)
        return row

    def env(self, name: str, why: str = "") -> dict[str, str]:
        """A reference to an environment variable."""
        self.variables.setdefault(name, why)
        return {"env": name}

    def literal(self, field: str, wanted: str) -> dict[str, str]:
        """A reference for a secret that stands in the source; its text goes nowhere."""
        name = re.sub(r"[^A-Z0-9]+", "_", wanted.upper()).strip("_") or "SECRET"
        name = name if name[0].isalpha() else f"KEY_{name}"
        free, number = name, 1
        while free in self.variables or free in self.reserved:
            number += 1
            free = f"{name}_{number}"
        return self.env(free, f"the value of {field}")


class Fields:
    """A map of the source. What is not taken from it by the end is reported by `leave`."""

    def __init__(self, values: Any, where: str, report: Report) -> None:
        self.report = report
        self.where = where
        self._values: dict[str, Any] = {}
        if isinstance(values, Mapping):
            self._values = {str(name): value for name, value in values.items()}
        elif values is not None:
            report.add(where, "unsupported", note="not a map")
        self._taken: set[str] = set()
        self._told: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    @property
    def raw(self) -> Mapping[str, Any]:
        """All fields as they stand."""
        return self._values

    def names(self) -> Iterator[str]:
        """The fields that nobody has taken yet."""
        yield from (name for name in self._values if name not in self._taken)

    def at(self, name: str) -> str:
        """The field's path."""
        return f"{self.where}.{name}" if self.where else name

    def take(self, name: str) -> Any:
        """The field as it stands, a date as text; None when it is not set. The caller reports it."""
        self._taken.add(name)
        value = self._values.get(name)
        return value.isoformat() if isinstance(value, date) else value

    def open(self, name: str) -> Any:
        """A field whose own entries are reported one by one; by itself only when it has none."""
        value = self.take(name)
        if name in self._values and not value and value != 0:
            self.add(name, "exact", note="not set")
        self._told.add(name)
        return value

    def value(self, name: str) -> Any:
        """The field with a reference to the environment looked up; None, reported, when it stands for nothing."""
        value = self.take(name)
        if not is_reference(value):
            return value
        found = self.report.environ.get(variable(value))
        if not found:
            self.add(
                name, "manual", note=f"read from the environment variable {variable(value)}, which is not set here"
            )
            return None
        return found

    def add(self, name: str, grade: Grade, to: str = "", note: str = "") -> Row:
        """Note what became of one field."""
        self._taken.add(name)
        self._told.add(name)
        return self.report.add(self.at(name), grade, to, note)

    def leave(self, known: Mapping[str, str], otherwise: str = "") -> None:
        """Report the rest: as unsupported, with the reason that `known` has for it, or with `otherwise`."""
        for name in [name for name in self._values if name not in self._told]:
            if self._values[name] is None:
                self.add(name, "exact", note="not set")
            elif name in self._taken:
                self.add(name, "unsupported", note=otherwise or "a value that stands for nothing here")
            else:
                self.add(name, *_graded(known.get(name, otherwise)))


def _graded(reason: str) -> tuple[Grade, str, str]:
    """A reason that begins with a grade and a colon has that grade."""
    grade, colon, rest = reason.partition(": ")
    for known in GRADES:
        if colon and grade == known:
            return known, "", rest
    return "unsupported", "", reason


def is_reference(value: Any) -> bool:
    """Does the value name a variable of the environment?"""
    return isinstance(value, str) and value.startswith(REFERENCE) and _VARIABLE.fullmatch(variable(value)) is not None


def variable(value: str) -> str:
    """The name of the variable."""
    return value.removeprefix(REFERENCE)


def number(value: Any) -> float | None:
    """A number that is not negative, from a number or its text."""
    try:
        found = None if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        return None
    return found if found is not None and 0 <= found < 1e9 else None


def seconds(value: float) -> str:
    """A duration as gateway.yaml writes it."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
