"""YAML text to a tree of plain values that know their line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from gateway.config.findings import Findings, Mark, shown

MAX_DEPTH = 32

# libyaml where it is built in: 2,000 deployments parse in 0.1 s instead of 1.3 s.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {
    name: value for value, word in ((True, "true"), (False, "false")) for name in (word, word.title(), word.upper())
}
# Without leading zeros: whether 010 is eight or ten is nobody's guess here.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})?(\.[0-9]{0,30})?([eE][-+]?[0-9]{1,3})?")
_ODD_FLOAT = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}

Scalar = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Name:
    """A key of a map: where it stands, and whether it is written without quotes."""

    mark: Mark
    plain: bool


@dataclass(slots=True)
class Node:
    """A value and its place. `text` is a scalar as written; `names` are a map's keys."""

    mark: Mark
    value: Scalar | list[Node] | dict[str, Node]
    text: str = ""
    names: dict[str, Name] = field(default_factory=dict)

    def get(self, *path: str) -> Node | None:
        """The node under these keys; None where there is none."""
        node: Node | None = self
        for name in path:
            node = node.value.get(name) if node is not None and isinstance(node.value, dict) else None
        return node

    def items(self) -> Iterator[tuple[str, Node]]:
        """A map's entries; nothing for any other node."""
        yield from self.value.items() if isinstance(self.value, dict) else ()

    def mark_of(self, name: str) -> Mark:
        """Where a key of this map stands; else where the map begins."""
        return self.names[name].mark if name in self.names else self.mark


class Malformed(Exception):
    """The text is no YAML that we take; nothing more can be said about the rest."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark


def parse(data: bytes, path: str, found: Findings) -> Node | None:
    """The one document of a file as a tree; None, with a finding, when it cannot be read."""
    try:
        return _Builder(path, found).build(_text(data, path))
    except Malformed as error:
        found.error(error.mark, "", str(error))
        return None


def plain(node: Node) -> Any:
    """The node as plain Python values."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def scalar(text: str) -> Scalar:
    """What an unquoted scalar means by the core schema of YAML 1.2."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INT.fullmatch(text):
        return int(text)
    if text.lower() in _ODD_FLOAT:
        return float(_ODD_FLOAT[text.lower()])
    if _FLOAT.fullmatch(text) and any(char.isdigit() for char in text):
        return float(text)
    return text


def _text(data: bytes, path: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Malformed(Mark(path, line), "the file is not UTF-8") from None
    if odd := _UNPRINTABLE.search(text):
        before = text[: odd.start()]
        mark = Mark(path, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise Malformed(mark, f"control character U+{ord(odd[0]):04X}")
    return text


@dataclass(slots=True)
class _Open:
    """A list or map that is not complete; `key` is the name whose value comes next."""

    node: Node
    items: list[Node] | None
    entries: dict[str, Node]
    key: str | None = None
    repeated: bool = False


class _Builder:
    """Builds the tree from events, without recursion: depth and node count stay the text's own."""

    def __init__(self, path: str, found: Findings) -> None:
        self._path = path
        self._found = found
        self._open: list[_Open] = []
        self._root: Node | None = None

    def build(self, text: str) -> Node:
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Mark(self._path, mark.line + 1, mark.column + 1) if mark else Mark(self._path)
            reason = f"{error.context}, {error.problem}" if error.context else str(error.problem)
            raise Malformed(place, f"not valid YAML: {reason} (line {place.line})") from None
        if self._root is None:
            raise Malformed(Mark(self._path), "the file is empty")
        return self._root

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            if self._root is not None:
                raise Malformed(self._mark(event), "a second document: one file is one document")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._add(self._open.pop().node, False)
        elif isinstance(event, yaml.NodeEvent):
            self._begin(event)

    def _begin(self, event: Any) -> None:
        mark = self._mark(event)
        if event.anchor is not None:
            raise Malformed(mark, "anchors and aliases are not taken: write the value out, or use `include`")
        if event.tag is not None:
            raise Malformed(mark, "tags are not taken: write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            unquoted = bool(event.implicit[0])
            value = scalar(event.value) if unquoted else event.value
            self._add(Node(mark, value, event.value), unquoted)
            return
        if len(self._open) >= MAX_DEPTH:
            raise Malformed(mark, f"nested deeper than {MAX_DEPTH} levels")
        items: list[Node] | None = [] if isinstance(event, yaml.SequenceStartEvent) else None
        entries: dict[str, Node] = {}
        self._open.append(_Open(Node(mark, entries if items is None else items), items, entries))

    def _add(self, node: Node, unquoted: bool) -> None:
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if parent.items is not None:
            parent.items.append(node)
        elif parent.key is None:
            self._name(parent, node, unquoted)
        else:
            if not parent.repeated:
                parent.entries[parent.key] = node
            parent.key = None

    def _name(self, parent: _Open, node: Node, unquoted: bool) -> None:
        if isinstance(node.value, list | dict):
            raise Malformed(node.mark, "a key must be text")
        key = parent.key = node.text
        where = ".".join(each.key for each in self._open if each.key is not None)
        if not isinstance(node.value, str):
            self._found.error(node.mark, where, f"a key must be text, and {shown(node.value)} is none: quote it")
        first = parent.node.names.get(key)
        parent.repeated = first is not None
        if first is not None:
            self._found.error(node.mark, where, f"written twice, first in line {first.mark.line}")
        else:
            parent.node.names[key] = Name(node.mark, unquoted)

    def _mark(self, event: Any) -> Mark:
        return Mark(self._path, event.start_mark.line + 1, event.start_mark.column + 1)
