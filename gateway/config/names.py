"""Model names: who defines them, who refers to them, and whether that ends somewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config.document import Node
from gateway.config.findings import Findings, Mark, nearest
from gateway.config.types import Config

SECTIONS = ("deployments", "adapters", "routings")


def covers(pattern: str, name: str) -> bool:
    """Is this the name, or a pattern for it? A pattern ends in `*`, which stands for any rest."""
    return name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1]))


class Names:
    """The one name space of deployments, adapters and routings."""

    def __init__(self, config: Config, tree: Node, found: Findings) -> None:
        self._config = config
        self._tree = tree
        self._found = found
        # From the tree, so that an entry with a mistake is still known by its name.
        self._sections = {section: dict(_entries(tree, section)) for section in SECTIONS}
        self._all = {name for entries in self._sections.values() for name in entries}
        self._wild = [name for name in self._all if "*" in name]

    def check(self) -> None:
        """Add findings for names defined twice, wildcards, references and cycles."""
        self._check_unique()
        self._check_wildcards()
        self._check_references()
        self._check_keys()
        self._check_cycles()

    def _defined(self, name: str) -> bool:
        return name in self._all or any(covers(wild, name) for wild in self._wild)

    def _check_unique(self) -> None:
        first: dict[str, tuple[str, Mark]] = {}
        for section, entries in self._sections.items():
            for name, mark in entries.items():
                if name in first:
                    other, place = first[name]
                    message = f"'{name}' is defined twice, first under {other} in {place.path}:{place.line}"
                    self._found.error(mark, f"{section}.{name}", message)
                first.setdefault(name, (section, mark))

    def _check_wildcards(self) -> None:
        for section, entries in self._sections.items():
            for name, mark in entries.items():
                where = f"{section}.{name}"
                if "*" in name and section != "deployments":
                    self._found.error(mark, where, "only a deployment's name may hold '*'")
                elif "*" in name and ("*" in name.rpartition("/")[0] or name.rpartition("/")[2] != "*"):
                    self._found.error(mark, where, "'*' stands alone, after the last '/': openai/*")
        for name, deployment in self._config.deployments.items():
            if ("*" in name) != (deployment.model == "*") and deployment.model:
                message = "a name with '*' and model: \"*\" go together"
                self._found.error(self._mark("deployments", name), f"deployments.{name}.model", message)
        for name, adapter in self._config.adapters.items():
            if "*" in adapter.model:
                self._found.error(self._mark("adapters", name), f"adapters.{name}.model", "one model, without '*'")

    def _check_references(self) -> None:
        accounts = dict(_entries(self._tree, "providers"))
        for name in self._sections["deployments"]:
            self._refer(("deployments", name, "provider"), "provider", accounts)
        for name in self._sections["adapters"]:
            self._refer(("adapters", name, "deployment"), "deployment", self._sections["deployments"])
        for name in self._sections["routings"]:
            for where, node in self._uses(name):
                self._name(where, node)
            mirror = self._tree.get("routings", name, "mirror", "to")
            if mirror:
                self._name(f"routings.{name}.mirror.to", mirror)

    def _refer(self, path: tuple[str, str, str], kind: str, known: Mapping[str, Mark]) -> None:
        node = self._tree.get(*path)
        if node and isinstance(node.value, str) and node.value and node.value not in known:
            message = f"no {kind} '{node.value}'{nearest(node.value, known)}"
            self._found.error(node.mark, ".".join(path), message)

    def _name(self, where: str, node: Node) -> None:
        if not isinstance(node.value, str) or not node.value:
            return
        if "*" in node.value:
            self._found.error(node.mark, where, "one model, without '*'")
        elif not self._defined(node.value):
            message = f"no deployment, adapter or routing '{node.value}'{nearest(node.value, self._all)}"
            self._found.error(node.mark, where, message)

    def _uses(self, routing: str) -> Iterator[tuple[str, Node]]:
        """Where a routing leads: its targets and its fallback, as they stand in the file."""
        for option in ("targets", "fallback"):
            node = self._tree.get("routings", routing, option)
            entries = node.value if node and isinstance(node.value, list) else []
            for index, entry in enumerate(entries):
                where = f"routings.{routing}.{option}[{index}]"
                use = entry.get("use")
                yield (f"{where}.use", use) if use else (where, entry)

    def _check_keys(self) -> None:
        for key, _ in _entries(self._tree, "keys"):
            models = self._tree.get("keys", key, "models")
            entries = models.value if models and isinstance(models.value, list) else []
            for index, entry in enumerate(entries):
                pattern = entry.value
                if not isinstance(pattern, str) or not pattern or self._defined(pattern):
                    continue
                if not any(covers(pattern, name) for name in self._all):
                    message = f"allows a model that nobody defines: '{pattern}'{nearest(pattern, self._all)}"
                    self._found.error(entry.mark, f"keys.{key}.models[{index}]", message)

    def _check_cycles(self) -> None:
        """Walk the routings depth first with a stack of our own; a way back to an open one is a cycle."""
        leads = {name: self._routings_after(name) for name in self._sections["routings"]}
        done: set[str] = set()
        for start, first in leads.items():
            way = [start] if start not in done else []
            rest = [iter(first)]
            while way:
                after = next(rest[-1], None)
                if after is None:
                    done.add(way.pop())
                    rest.pop()
                elif after in way:
                    circle = " -> ".join((*way[way.index(after) :], after))
                    self._found.error(self._mark("routings", after), f"routings.{after}", f"leads to itself: {circle}")
                elif after not in done:
                    way.append(after)
                    rest.append(iter(leads[after]))

    def _routings_after(self, name: str) -> list[str]:
        uses = [node.value for _, node in self._uses(name)]
        return [use for use in uses if isinstance(use, str) and use in self._sections["routings"]]

    def _mark(self, section: str, name: str) -> Mark:
        return self._sections[section].get(name, self._tree.mark)


def _entries(tree: Node, section: str) -> Iterator[tuple[str, Mark]]:
    node = tree.get(section)
    if node is not None:
        yield from ((name, node.mark_of(name)) for name, _ in node.items())
