"""References in gateway.yaml (`{env: X}`, `{file: path}`, `{credential: name}`) to what they stand for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.config.document import Node
from gateway.config.findings import Findings
from gateway.config.secrets import Pem, Secret, Source

MAX_SECRET = 1 << 16
# The system's authorities in one file are 220 KB.
MAX_PEM = 1 << 20
CREDENTIALS = "CREDENTIALS_DIRECTORY"
STATE = "STATE_DIRECTORY"

# What each reference may name; `gateway.config.schema` says the same to editors.
REFERENCES: Mapping[Source, str] = {
    "env": r"[A-Za-z_][A-Za-z0-9_]*",
    "file": r"[^\x00-\x1f\x7f]+",
    "credential": r"[A-Za-z0-9_][A-Za-z0-9_.@-]*",
}
# A secret that is written down: anything on one line but the shell's ${X}, which some expect to work.
LITERAL = r"(?!\$\{)[^\x00-\x1f\x7f]+"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HINT = "{env: NAME}, {file: path} or {credential: name}"


class Unresolved(Exception):
    """The message says why a reference stands for nothing; it never holds the value."""


class Resolver:
    """Looks references up in an environment and in files; relative paths begin at `root`.

    `files` are those that secrets were read from.
    """

    def __init__(self, environ: Mapping[str, str], root: Path) -> None:
        self._environ = environ
        self._root = root
        self.files: list[Path] = []
        self._sources: Mapping[str, Callable[[str], str]] = {
            "env": self._variable,
            "file": lambda name: self._content(self._root / name),
            "credential": lambda name: self._content(self._credential(name)),
        }

    def secret(self, node: Node, where: str, found: Findings, *, lines: bool = False) -> Secret | None:
        """The secret that the node names or holds; None, with a finding, when there is none.

        `lines` allows line breaks (a service account's JSON).
        """
        try:
            source, name = _reference(node)
            text = name if source == "literal" else self._sources[source](name)
            return Secret(_sound(text, source, name, lines), source)
        except Unresolved as error:
            found.error(node.mark, where, str(error))
            return None

    def path(self, node: Node, where: str, found: Findings) -> Path | None:
        """The path of a file that can be read: a text, `{file: path}` or `{credential: name}`."""
        try:
            source, name = _reference(node)
            if source == "env":
                raise Unresolved("expected the path of a file")
            path = self._credential(name) if source == "credential" else self._root / name
            if not path.is_file() or not os.access(path, os.R_OK):
                raise Unresolved(f"no file that can be read: {path}")
            return path
        except Unresolved as error:
            found.error(node.mark, where, str(error))
            return None

    def state_file(self) -> str | None:
        """Where state is kept when the file does not say: in the first directory that systemd made for it."""
        directory = self._environ.get(STATE, "").partition(":")[0]
        return f"{directory}/state.sqlite" if directory else None

    def pem(self, node: Node, where: str, found: Findings) -> Pem | None:
        """A file of certificates or of a key with what it holds, named as in `path`; watched like a secret's file."""
        path = self.path(node, where, found)
        if path is None:
            return None
        try:
            # Comments between the blocks may be in any encoding.
            return Pem(path, Secret(self._content(path, MAX_PEM, "latin-1"), "file"))
        except Unresolved as error:
            found.error(node.mark, where, str(error))
            return None

    def _content(self, path: Path, most: int = MAX_SECRET, encoding: str = "utf-8") -> str:
        if path not in self.files:
            self.files.append(path)
        return _content(path, most, encoding)

    def _variable(self, name: str) -> str:
        if name not in self._environ:
            raise Unresolved(f"environment variable {name} is not set")
        if not self._environ[name]:
            raise Unresolved(f"environment variable {name} is empty")
        return self._environ[name]

    def _credential(self, name: str) -> Path:
        directory = self._environ.get(CREDENTIALS)
        if not directory:
            raise Unresolved(f"{CREDENTIALS} is not set: credential {name} needs systemd's LoadCredential=")
        return Path(directory) / name


def is_reference(node: Node) -> bool:
    """Is the node a map with exactly one key, the name of a source?"""
    return isinstance(node.value, dict) and len(node.value) == 1 and next(iter(node.value)) in REFERENCES


def _reference(node: Node) -> tuple[Source, str]:
    """The source and what it names; a text is its own."""
    if isinstance(node.value, str):
        if node.value.startswith("${"):
            raise Unresolved("${...} is not looked up: write {env: NAME}")
        return "literal", node.value
    if not isinstance(node.value, dict):
        raise Unresolved(f"expected {_HINT}" if node.value is None else f"expected {_HINT}, or a text in quotes")
    if len(node.value) != 1:
        raise Unresolved(f"expected exactly one of {_HINT}")
    kind, child = next(iter(node.value.items()))
    for source, pattern in REFERENCES.items():
        if kind == source:
            if not isinstance(child.value, str) or not re.fullmatch(pattern, child.value):
                raise Unresolved(f"`{source}` must be followed by a name, as in {_HINT}")
            return source, child.value
    raise Unresolved(f"'{kind}' is no source of a secret: expected {_HINT}")


def _content(path: Path, most: int, encoding: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise Unresolved(f"cannot read {path}: {reason}") from None
    if len(data) > most:
        raise Unresolved(f"{path} is longer than {most} bytes")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise Unresolved(f"{path} is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def _sound(text: str, source: Source, name: str, lines: bool) -> str:
    thing = "the value" if source == "literal" else f"{source} {name}"
    if not text:
        raise Unresolved(f"{thing} is empty")
    if not lines and _CONTROL.search(text):
        raise Unresolved(f"{thing} holds a line break or another control character")
    return text
