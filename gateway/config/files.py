"""gateway.yaml and the files that it includes, read and merged to one tree."""

from __future__ import annotations

import hashlib
import os
from glob import glob, has_magic
from pathlib import Path

from gateway.config.document import Node, parse
from gateway.config.findings import Findings, Mark

MAX_FILE = 16 << 20


class Sources:
    """What was read: `tree` is the merged document, `files` everything whose change may change it."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._hash = hashlib.sha256()
        self.files: list[Path] = []
        self.readable_by_all: set[str] = set()
        self.tree: Node | None = None

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name this text."""
        return self._hash.hexdigest()[:12]

    def add_file(self, path: Path, shown: str, mark: Mark) -> None:
        """Merge a file into the tree."""
        self.files.append(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
                mode = os.fstat(file.fileno()).st_mode
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            self._found.error(mark, "", f"cannot read {shown}: {reason}")
            return
        if mode & 0o004:
            self.readable_by_all.add(shown)
        self.add_text(data, shown)

    def add_text(self, data: bytes, shown: str) -> None:
        """Merge a document into the tree."""
        self._found.begin(shown)
        self._hash.update(data + b"\0")
        if len(data) > MAX_FILE:
            self._found.error(Mark(shown), "", f"longer than {MAX_FILE} bytes")
            return
        node = parse(data, shown, self._found)
        if node is None:
            return
        if not isinstance(node.value, dict):
            self._found.error(node.mark, "", "the top level must be a map (server:, providers:, ...)")
        elif self.tree is None:
            self.tree = node
        else:
            self._merge(self.tree, node, "", 0)

    def include(self, root: Path) -> None:
        """Merge what the tree's `include` names, in the order of the list, each pattern's files by name."""
        include = self.tree.get("include") if self.tree else None
        if include is None or not isinstance(include.value, list):
            return
        for index, each in enumerate(include.value):
            if isinstance(each.value, str) and each.value:
                self._include(root, each.value, each.mark, f"include[{index}]")

    def _include(self, root: Path, pattern: str, mark: Mark, where: str) -> None:
        full = str(root / pattern)
        names = sorted(glob(full)) if has_magic(pattern) else [full]
        if has_magic(pattern):
            self.files.append(Path(full).parent)
        for name in names:
            if Path(name) in self.files:
                self._found.error(mark, where, f"{name} is included twice")
            else:
                self.add_file(Path(name), name, mark)

    def _merge(self, into: Node, more: Node, where: str, depth: int) -> None:
        """Add the entries of one map to another: sections meet, what stands in them must not."""
        entries = into.value if isinstance(into.value, dict) else {}
        for name, node in more.items():
            place = f"{where}.{name}" if where else name
            mark, known = more.mark_of(name), entries.get(name)
            if depth == 0 and name == "include":
                self._found.error(mark, place, "only the main file includes others")
            elif known is None:
                entries[name], into.names[name] = node, more.names[name]
            elif depth == 0 and isinstance(known.value, dict) and isinstance(node.value, dict):
                self._merge(known, node, place, 1)
            elif depth or name != "version" or known.value != node.value:
                first = into.mark_of(name)
                self._found.error(mark, place, f"written twice, first in {first.path}:{first.line}")
