"""Groups of deployments to routings: weights, orders, fallbacks and aliases; every name is unique in the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.cli.litellm.pieces import Entry, Piece, is_name
from gateway.cli.litellm.report import Report

HEAVIEST = 1_000_000
Fallbacks = Mapping[str, list[str]]


class Groups:
    """Builds the sections `deployments`, `adapters` and `routings` from pieces."""

    def __init__(self, report: Report, strategy: str) -> None:
        self._report = report
        self._strategy = strategy
        self.deployments: dict[str, Entry] = {}
        self.adapters: dict[str, Entry] = {}
        self.routings: dict[str, Entry] = {}
        self._groups: dict[str, list[Piece]] = {}
        self._reserved: set[str] = set()
        self._ids: dict[str, str] = {}

    @property
    def public(self) -> list[str]:
        """The names that LiteLLM's clients ask for."""
        return [name for name in self._reserved if name in self._all()]

    def build(self, pieces: Iterable[Piece], fallbacks: Fallbacks, aliases: Mapping[str, str]) -> None:
        """Fill the sections. Fallbacks and aliases that lead nowhere are left out and reported."""
        for piece in pieces:
            self._groups.setdefault(piece.group, []).append(piece)
        self._reserved = {*self._groups, *aliases}
        for group, members in self._groups.items():
            self._group(group, members, bool(fallbacks.get(group)))
        for alias, group in aliases.items():
            self._alias(alias, group)
        for group, after in fallbacks.items():
            self._fall_back(group, after)

    def _all(self) -> set[str]:
        return {*self.deployments, *self.adapters, *self.routings}

    def _group(self, group: str, members: list[Piece], falls_back: bool) -> None:
        if "*" in group:
            self._wild(group, members)
        elif len(members) == 1 and not falls_back:
            self._single(members[0], group)
        else:
            self._routing(group, members)

    def _wild(self, group: str, members: list[Piece]) -> None:
        first, *others = members
        self._deploy(first, group)
        for piece in others:
            for row in (*piece.rows, *piece.preset_rows):
                row.grade, row.note = "unsupported", "one deployment stands behind a wildcard, and it is not the first"

    def _single(self, piece: Piece, name: str) -> str:
        """Give one deployment a name; with presets the name is an adapter's, and the deployment has another."""
        if not piece.presets:
            self._deploy(piece, name)
            return name
        inner = self._free(f"{name}-bare" if "@" in name else f"{name}@{piece.deployment['provider']}")
        self._deploy(piece, inner)
        presets = {option: values for option in ("set", "default") if (values := getattr(piece, option))}
        self.adapters[name] = {"deployment": inner, **presets}
        piece.name = name
        for row in piece.preset_rows:
            row.to = f"adapters.{name}"
        return name

    def _deploy(self, piece: Piece, name: str) -> None:
        self.deployments[name] = piece.deployment
        piece.name = name
        if piece.id:
            self._ids.setdefault(piece.id, name)
        for row in piece.rows:
            row.to = f"deployments.{name}"

    def _routing(self, group: str, members: list[Piece]) -> None:
        """Targets are those of the lowest order; the others follow, order by order."""
        for piece in members:
            wanted = piece.id if is_name(piece.id) and "*" not in piece.id else ""
            name = self._single(piece, self._free(wanted or f"{group}@{piece.deployment['provider']}"))
            if piece.id:
                self._ids[piece.id] = name
        orders = sorted({piece.order for piece in members if piece.order is not None})
        tiers = [[piece for piece in members if piece.order == order] for order in orders]
        if unordered := [piece for piece in members if piece.order is None]:
            tiers.append(unordered)
        first, *rest = tiers
        routing = self._choice(first)
        after = [self._tier(group, tier) for tier in rest]
        self.routings[group] = {**routing, "fallback": after} if after else routing

    def _tier(self, group: str, tier: list[Piece]) -> str:
        if len(tier) == 1:
            return tier[0].name
        name = self._free(f"{group}@order-{tier[0].order or 'last'}")
        self.routings[name] = self._choice(tier)
        return name

    def _choice(self, pieces: list[Piece]) -> Entry:
        names: list[Any] = [piece.name for piece in pieces]
        if len(pieces) == 1:
            return {"targets": names}
        weights = _weights(pieces) if self._strategy == "weighted" else None
        if weights and len(set(weights)) > 1:
            names = [{"use": name, "weight": weight} for name, weight in zip(names, weights, strict=True)]
        return {"strategy": self._strategy, "targets": names}

    def _free(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._reserved or name in self._all():
            count += 1
            name = f"{wanted}-{count}"
        return name

    def _alias(self, alias: str, group: str) -> None:
        field = f"router_settings.model_group_alias.{alias}"
        target = self._target(group)
        if alias in self._groups or "*" in alias or not is_name(alias):
            self._report.add(field, "unsupported", note="a model of this name exists, or it is no name")
        elif target is None:
            self._report.add(field, "manual", note=f"no model '{group}'")
        else:
            self.routings[alias] = {"targets": [target]}
            self._report.add(field, "exact", f"routings.{alias}")

    def _target(self, name: str) -> str | None:
        """What a name of the source leads to: a group, the id of a deployment, a name that a wildcard covers."""
        if "*" in name or not name:
            return None
        if name in self._all():
            return name
        if name in self._ids:
            return self._ids[name]
        wild = [group for group in self._groups if group.endswith("*") and name.startswith(group[:-1])]
        return name if wild else None

    def _fall_back(self, group: str, after: list[str]) -> None:
        field = f"fallbacks.{group}"
        routing = self.routings.get(group)
        if routing is None:
            self._report.add(field, "manual", note="no model of this name, or a wildcard: give it a routing of its own")
            return
        for name in after:
            target = self._target(name)
            if target is None or target == group:
                self._report.add(field, "manual", f"routings.{group}", f"'{name}' is no model, or the model itself")
                continue
            if self._leads_to(target, group):
                target = self._alone(target)
                note = f"'{name}' without its own fallbacks, which lead back here"
                self._report.add(field, "approximate", f"routings.{group}", note)
            else:
                self._report.add(field, "exact", f"routings.{group}", f"'{name}'")
            if target not in routing.setdefault("fallback", []):
                routing["fallback"].append(target)

    def _leads_to(self, name: str, goal: str) -> bool:
        seen, rest = set(), [name]
        while rest:
            each = rest.pop()
            if each == goal:
                return True
            if each not in seen and each in self.routings:
                seen.add(each)
                routing = self.routings[each]
                uses = [target["use"] if isinstance(target, dict) else target for target in routing["targets"]]
                rest += [*uses, *routing.get("fallback", ())]
        return False

    def _alone(self, name: str) -> str:
        """A routing's own targets without what follows them."""
        own = {option: value for option, value in self.routings[name].items() if option != "fallback"}
        if len(own["targets"]) == 1 and isinstance(own["targets"][0], str):
            return str(own["targets"][0])
        for other, routing in self.routings.items():
            if routing == own and other != name:
                return other
        alone = self._free(f"{name}@alone")
        self.routings[alone] = own
        return alone


def _weights(pieces: list[Piece]) -> list[float] | None:
    """What LiteLLM draws by: the weights, else the rpm, else the tpm of the group's deployments."""
    for kind in ("weight", "rpm", "tpm"):
        values = [piece.weight.get(kind, 0.0) for piece in pieces]
        if any(values):
            scale = min(1.0, HEAVIEST / max(values))
            return [_tidy(round(value * scale, 3)) for value in values]
    return None


def _tidy(value: float) -> float:
    return int(value) if value == int(value) else value
