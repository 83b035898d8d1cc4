"""What a client asks of a model's thinking, in each family's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.errors import InvalidRequest
from gateway.fields import Applied
from gateway.hub import Json

MIN_BUDGET = 1024
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
_LEVELS = ("low", "medium", "high", "xhigh", "max")
_NAMES = ("thinking", "reasoning", "reasoning_effort")
_EXTRA = "additionalModelRequestFields"
_CLAUDE = ("budget", "both", "adaptive", "always")
_USAGE_PATH = "/usage/output_tokens_details"


class Wish(NamedTuple):
    """What the client asked for under `name`: an effort or a budget in tokens; neither for no thinking at all."""

    name: str
    effort: str = ""
    budget: int = 0

    @property
    def off(self) -> bool:
        """Is reasoning unwanted?"""
        return not self.effort and not self.budget


def read_wish(request: Mapping[str, Any]) -> Wish | None:
    """The strongest of `thinking`, `reasoning` and `reasoning_effort` that the request has."""
    for name in _NAMES:
        value = request.get(name)
        if value is not None:
            return _wish(name, value)
    return None


def _wish(name: str, value: Any) -> Wish:
    if isinstance(value, str) and name == "reasoning_effort":
        return _by_effort(name, value)
    if not isinstance(value, dict):
        raise InvalidRequest(f"'{name}' has a value of the wrong type.", param=name)
    if value.get("type") == "disabled" or value.get("enabled") is False:
        return Wish(name)
    budget = value.get("budget_tokens", value.get("max_tokens"))
    if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0:
        return Wish(name, budget=budget)
    return _by_effort(name, str(value.get("effort") or "medium"))


def _by_effort(name: str, effort: str) -> Wish:
    if effort == "none":
        return Wish(name)
    if effort not in _BUDGETS:
        raise InvalidRequest(f"'{name}' has an unknown effort: '{effort[:32]}'.", param=name)
    return Wish(name, effort)


class Thinking:
    """Writes a wish into Converse's additional fields, by the model's ability `thinking`."""

    def __init__(self, abilities: Mapping[str, Any], applied: Applied) -> None:
        self._how = str(abilities.get("thinking") or "none")
        self._levels = [str(level) for level in abilities.get("effort") or ()]
        self._applied = applied

    @property
    def needs_replay(self) -> bool:
        """Must a tool loop bring back the thinking that it began with?"""
        return self._how in _CLAUDE

    def write(self, wish: Wish | None) -> bool:
        """Does Claude think now, so that sampling and forced tools are refused?"""
        if wish is None:
            return False
        if self._how in _CLAUDE:
            return self._claude(wish)
        self._other(wish)
        return False

    def _claude(self, wish: Wish) -> bool:
        if wish.off:
            self._claude_off(wish)
            return self._how == "always"
        by_budget = self._how == "budget" or (self._how == "both" and wish.budget > 0)
        if by_budget:
            budget = max(wish.budget or _BUDGETS[wish.effort], MIN_BUDGET)
            self._put(wish, "thinking", {"type": "enabled", "budget_tokens": budget})
            if self._levels:
                self._put(wish, "output_config", {"effort": self._level(wish)})
            return True
        self._put(wish, "thinking", {"type": "adaptive", "display": "summarized"})
        self._put(wish, "output_config", {"effort": self._level(wish)})
        self._applied.put("additionalModelResponseFieldPaths", [_USAGE_PATH])
        return True

    def _claude_off(self, wish: Wish) -> None:
        if self._how == "always":
            self._put(wish, "output_config", {"effort": "low"})
        elif self._how == "adaptive":
            self._put(wish, "thinking", {"type": "disabled"})

    def _other(self, wish: Wish) -> None:
        if wish.off:
            if self._how == "effort":
                self._applied.drop(wish.name, "cannot be 'none' for this model")
            elif self._how == "openai":
                self._put(wish, "reasoning", {"effort": "none"})
            return
        level = self._level(wish)
        if self._how == "nova":
            self._put(wish, "reasoningConfig", {"type": "enabled", "maxReasoningEffort": level})
        elif self._how == "openai":
            self._put(wish, "reasoning", {"effort": level})
        else:
            self._put(wish, "reasoning_config" if self._how == "config" else "reasoning_effort", level)

    def _put(self, wish: Wish, name: str, value: Any) -> None:
        self._applied.put(f"{_EXTRA}.{name}", value)
        self._applied.translate(wish.name)

    def _level(self, wish: Wish) -> str:
        """The effort, or the one that its budget speaks of, no higher than the model goes."""
        effort = wish.effort or next((e for e in _LEVELS if wish.budget <= _BUDGETS[e]), "max")
        place = _LEVELS.index("low" if effort == "minimal" else effort)
        known = [level for level in _LEVELS[: place + 1] if level in self._levels]
        return known[-1] if known else self._levels[0] if self._levels else _LEVELS[place]


def make_room(body: Json, cap: int) -> bool:
    """Raise `maxTokens` above the thinking budget, or lower the budget under the cap; True if the limit changed.

    Where the client names no limit, the model's own is said: a default below the budget would be refused.
    """
    thinking = body.get(_EXTRA, {}).get("thinking", {})
    budget, most = thinking.get("budget_tokens"), body.get("inferenceConfig", {}).get("maxTokens")
    if budget is None or (most or 0) > budget:
        return False
    if most is None:
        if cap:
            body.setdefault("inferenceConfig", {})["maxTokens"] = cap
        return False
    room = budget + most
    if cap and room > cap:
        room = cap
        thinking["budget_tokens"] = max(min(budget, cap - most), MIN_BUDGET)
    body["inferenceConfig"]["maxTokens"] = room
    return True
