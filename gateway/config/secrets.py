"""Strings that must not be shown, and where gateway.yaml says they come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Source = Literal["env", "file", "credential", "literal"]


class Secret:
    """A resolved secret. Its repr and str tell nothing; `reveal` is the only way to the text.

    `source` is the kind of reference that it was read from; `literal` means that it stands in the file.
    """

    __slots__ = ("_text", "source")

    def __init__(self, text: str, source: Source = "literal") -> None:
        self._text = text
        self.source: Source = source

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


class Pem:
    """A file of certificates or of a private key, as it was when it was read. Shown, it is its path."""

    __slots__ = ("content", "path")

    def __init__(self, path: Path, content: Secret) -> None:
        self.path = path
        self.content = content

    def __repr__(self) -> str:
        return str(self.path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pem) and (other.path, other.content) == (self.path, self.content)

    def __hash__(self) -> int:
        return hash((self.path, self.content))


def revealed(value: Any) -> Any:
    """The value with every secret inside it as text."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {name: revealed(inner) for name, inner in value.items()}
    return value
