"""How much the model shall think: OpenAI's effort as a level (Gemini 3) or a budget of tokens (Gemini 2.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.contract import Target
from gateway.fields import Applied
from gateway.hub import Json

_BUDGETS: Mapping[str, int] = {"low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 8192}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
_AIMED: Mapping[str, str] = {"none": "MINIMAL", "max": "XHIGH"}


class Wish(NamedTuple):
    """What a client asked for: an effort, or a number of tokens; `shown` whether it wants to read the thoughts."""

    name: str
    effort: str = ""
    tokens: int | None = None
    shown: bool = True


def thinking_config(request: Json, target: Target, applied: Applied) -> Json | None:
    """The thinkingConfig for `reasoning_effort`, `reasoning` or `thinking`, the first of them that is there."""
    wishes = [wish for wish in _wishes(request) if wish.name not in target.without]
    for wish in wishes[1:]:
        applied.drop(wish.name, f"is overridden by '{wishes[0].name}'")
    if not wishes:
        return None
    wish = wishes[0]
    kind = target.abilities.get("thinking")
    if kind not in ("level", "budget"):
        if wish.effort != "none":
            applied.drop(wish.name, "is not supported: this model does not think")
        return None
    if not wish.effort and wish.tokens is None:
        applied.drop(wish.name, "has a value that this provider cannot take")
        return None
    applied.translate(wish.name)
    amount: Json
    if kind == "level":
        amount = {"thinkingLevel": _level(wish, target.abilities.get("levels") or _LEVELS)}
    else:
        amount = {"thinkingBudget": _budget(wish, target.abilities)}
    return {"includeThoughts": wish.shown and wish.effort != "none", **amount}


def _wishes(request: Json) -> list[Wish]:
    found = []
    if (effort := request.get("reasoning_effort")) is not None:
        found.append(Wish("reasoning_effort", effort if effort in _EFFORTS else ""))
    if (reasoning := request.get("reasoning")) is not None:
        found.append(_reasoning(reasoning) if isinstance(reasoning, dict) else Wish("reasoning"))
    if (thinking := request.get("thinking")) is not None:
        found.append(_anthropic(thinking) if isinstance(thinking, dict) else Wish("thinking"))
    return found


def _reasoning(reasoning: Json) -> Wish:
    effort, tokens = reasoning.get("effort"), reasoning.get("max_tokens")
    shown = reasoning.get("exclude") is not True
    if reasoning.get("enabled") is False:
        return Wish("reasoning", "none")
    if isinstance(tokens, int) and effort not in _EFFORTS:
        return Wish("reasoning", "", tokens, shown)
    if effort is None and reasoning.get("enabled") is True:
        effort = "medium"
    return Wish("reasoning", effort if effort in _EFFORTS else "", None, shown)


def _anthropic(thinking: Json) -> Wish:
    tokens = thinking.get("budget_tokens")
    if thinking.get("type") == "disabled":
        return Wish("thinking", "none")
    if thinking.get("type") == "adaptive":
        return Wish("thinking", "", -1)
    return Wish("thinking", "", tokens if isinstance(tokens, int) else -1)


def _level(wish: Wish, levels: Sequence[str]) -> str:
    """The level asked for, else the next higher one that the model has, else its highest."""
    aimed = _AIMED.get(wish.effort, wish.effort.upper()) if wish.effort else _level_for(wish.tokens or 0)
    higher = _LEVELS[_LEVELS.index(aimed) :]
    return next((level for level in higher if level in levels), levels[-1])


def _level_for(tokens: int) -> str:
    if tokens < 0:
        return "HIGH"
    return "LOW" if tokens <= 1024 else "MEDIUM" if tokens <= 8192 else "HIGH"


def _budget(wish: Wish, abilities: Mapping[str, Any]) -> int:
    least, most = int(abilities.get("least") or 0), int(abilities.get("most") or 24576)
    if wish.tokens is not None:
        return -1 if wish.tokens < 0 else min(max(wish.tokens, least), most)
    if wish.effort == "none":
        return least
    return int(abilities.get("minimal") or 512) if wish.effort == "minimal" else _BUDGETS[wish.effort]
