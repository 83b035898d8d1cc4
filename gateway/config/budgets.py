"""Whether budgets can be kept: whatever they pay for must have a price, in their currency."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from gateway.config.document import Node
from gateway.config.findings import Findings
from gateway.config.names import covers
from gateway.config.pricing import has_table, tariff_of
from gateway.config.types import Config, Limits
from gateway.purses import Budget, Owner


class _Use(NamedTuple):
    """A deployment, and the model id that it is asked for: empty for its own."""

    deployment: str
    model: str = ""


def budgets_of(config: Config) -> dict[Owner, Budget]:
    """Every budget of a configuration."""
    found: dict[Owner, Budget] = {}

    def add(owner: tuple[str, str], limits: Limits) -> None:
        if limits.budget is not None:
            found[Owner(*owner, limits.budget.currency)] = limits.budget  # type: ignore[arg-type]  # one of three words

    for name, key in config.keys.items():
        add(("key", name), key.limits)
    for name, deployment in config.deployments.items():
        add(("deployment", name), deployment.limits)
    for name, routing in config.routings.items():
        for target in routing.targets:
            add(("target", f"{name} -> {target.use}"), target.limits)
    return found


class Budgets:
    """The budgets of a file, and what each of them pays for."""

    def __init__(self, config: Config, tree: Node, found: Findings) -> None:
        self._config = config
        self._tree = tree
        self._found = found
        self._names = (*config.deployments, *config.adapters, *config.routings)

    def check(self) -> None:
        """Add an error for every price that is missing."""
        config = self._config
        for name, key in config.keys.items():
            if key.limits.budget is not None:
                uses = [use for pattern in key.models for use in self._allowed(pattern)]
                self._check(key.limits.budget, f"keys.{name}.limits.budget", ("keys", name), uses)
        for name, deployment in config.deployments.items():
            if deployment.limits.budget is not None:
                variations = [each.model for each in config.adapters.values() if each.deployment == name]
                uses = [_Use(name), *(_Use(name, model) for model in variations)]
                self._check(deployment.limits.budget, f"deployments.{name}.limits.budget", ("deployments", name), uses)
        for name, routing in config.routings.items():
            for index, target in enumerate(routing.targets):
                if target.limits.budget is not None:
                    where = f"routings.{name}.targets[{index}].limits.budget"
                    path = ("routings", name, "targets", str(index))
                    self._check(target.limits.budget, where, path, list(self._behind(target.use, set())))

    def _check(self, budget: Budget, where: str, path: tuple[str, ...], uses: list[_Use]) -> None:
        mark = _at(self._tree, path).mark
        for use in dict.fromkeys(uses):
            if problem := self._problem(budget, use):
                self._found.error(mark, where, problem)

    def _problem(self, budget: Budget, use: _Use) -> str:
        """Why the budget cannot pay for this; empty when it can."""
        deployment = self._config.deployments.get(use.deployment)
        entry = self._config.providers.get(deployment.provider) if deployment else None
        if deployment is None or entry is None or not deployment.model:
            return ""  # reported where the name stands
        tariff = tariff_of(entry.type, deployment, use.model)
        price = f"deployments.{use.deployment}.price"
        if tariff is None:
            if deployment.model == "*" and not use.model and has_table(entry.type):
                return ""  # each model has its price, or is refused
            return f"no price is known for '{use.model or deployment.base_model or deployment.model}': set {price}"
        if tariff.currency != budget.currency:
            return f"is in {budget.currency}, and tokens of {use.deployment} cost {tariff.currency}: set {price}"
        return ""

    def _allowed(self, pattern: str) -> Iterator[_Use]:
        """What a key may reach by one of its patterns."""
        if "*" not in pattern:
            yield from self._behind(pattern, set())
            return
        for name in self._names:
            wild = name.endswith("*") and (covers(name, pattern) or covers(pattern, name))
            if wild or fnmatchcase(name, pattern):
                yield from self._behind(name, set())

    def _behind(self, name: str, seen: set[str]) -> Iterator[_Use]:
        """What a name may lead to."""
        config = self._config
        if name in seen:
            return
        seen.add(name)
        if (routing := config.routings.get(name)) is not None:
            for use in (*(target.use for target in routing.targets), *routing.fallback):
                yield from self._behind(use, seen)
        elif (adapter := config.adapters.get(name)) is not None:
            yield _Use(adapter.deployment, adapter.model)
        elif name in config.deployments:
            yield _Use(name)
        else:
            wild = [each for each in config.deployments if each.endswith("*") and covers(each, name)]
            if wild:
                longest = max(wild, key=len)
                yield _Use(longest, name[len(longest) - 1 :])


def _at(tree: Node, path: tuple[str, ...]) -> Node:
    """The budget's node under an entry; the closest that there is."""
    node = tree
    for name in (*path, "limits", "budget"):
        inner = node.value[int(name)] if isinstance(node.value, list) else node.get(name)
        if inner is None:
            break
        node = inner
    return node
