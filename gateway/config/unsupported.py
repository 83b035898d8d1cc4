"""Options that have a name and a form, and do nothing yet: refused, so that nobody relies on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.config.document import Node
from gateway.config.findings import Findings


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One row: a dotted pattern (`*` is any name or list entry), a reason, and which values it is about."""

    pattern: str
    reason: str
    when: Callable[[Node], bool] = lambda node: node.value not in (None, False, [], {})


def _starts(*prefixes: str) -> Callable[[Node], bool]:
    return lambda node: isinstance(node.value, str) and node.value.startswith(prefixes)


# Only shrinks: whoever builds one of these takes its row out.
UNSUPPORTED: tuple[Unsupported, ...] = (Unsupported("server.demo", "only host:port", _starts("unix:", "fd:")),)


def check_supported(tree: Node, found: Findings) -> None:
    """Add an error for every option of the tree that a row of the table matches."""
    for row in UNSUPPORTED:
        for where, node in _matches(tree, row.pattern.split("."), ""):
            if row.when(node):
                found.error(node.mark, where, f"not supported yet: {row.reason}")


def _matches(node: Node, path: list[str], where: str) -> Iterator[tuple[str, Node]]:
    if not path:
        yield where, node
        return
    children = [(f"{where}.{name}" if where else name, name, child) for name, child in node.items()]
    if isinstance(node.value, list):
        children = [(f"{where}[{index}]", "", child) for index, child in enumerate(node.value)]
    for place, name, child in children:
        if path[0] in ("*", name):
            yield from _matches(child, path[1:], place)
