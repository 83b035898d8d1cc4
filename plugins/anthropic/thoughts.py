"""How much Claude thinks: reasoning_effort, reasoning and thinking as the model family takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.hub import Json
from plugins.anthropic.blocks import THOUGHTS
from plugins.anthropic.job import Job
from plugins.anthropic.table import THINKING

BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}
LEAST_BUDGET = 1024
_ADAPTIVE: Json = {"type": "adaptive", "display": "summarized"}
_LADDER = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the client asked for, whichever of the three parameters it used; `native` is its `thinking`, if any."""

    native: Json
    off: bool
    level: str | None
    budget: int | None

    @property
    def empty(self) -> bool:
        """Was nothing asked for that can be understood?"""
        return not (self.native or self.off or self.level or self.budget is not None)


def think(job: Job, messages: Sequence[Json]) -> bool:
    """Put `thinking` and `output_config.effort` into the body; say whether thinking was turned on by them."""
    kind = job.can("thinking")
    if kind == "none" or (wish := _wish(job)).empty:
        return False
    thinking, effort = (_by_budget if kind == "budget" else _adaptive)(wish, job)
    if effort is not None:
        job.applied.put("output_config.effort", effort)
    if thinking is not None and thinking["type"] == "enabled" and (thinking := _fitted(thinking, job)) is None:
        return _give_up(job, "leaves too few tokens to think with")
    active = thinking is not None and thinking["type"] != "disabled"
    if active and not _may_think(messages):
        return _give_up(job, "needs the earlier thinking of this tool loop, which the history does not hold")
    if thinking is not None:
        job.applied.put("thinking", thinking)
    for name in THINKING:
        if job.asked(name) is not None and job.asked(name) != thinking and name not in job.applied.dropped:
            job.applied.translate(name)
    return active


def _wish(job: Job) -> Wish:
    native, reasoning = _object(job, "thinking"), _object(job, "reasoning")
    level = job.asked("reasoning_effort")
    name, level = ("reasoning", reasoning.get("effort")) if level is None else ("reasoning_effort", level)
    if level not in (None, "none", *BUDGETS):
        job.applied.drop(name, "is no effort that this provider knows")
        level = None
    given = native.get("budget_tokens") if native.get("type") == "enabled" else reasoning.get("max_tokens")
    budget = given if isinstance(given, int) and not isinstance(given, bool) else None
    off = level == "none" or reasoning.get("enabled") is False or native.get("type") == "disabled"
    if reasoning.get("enabled") is True and level is None and budget is None:
        level = "medium"
    return Wish(native, off, None if level == "none" else level, budget)


def _object(job: Job, name: str) -> Json:
    value = job.asked(name)
    if isinstance(value, dict) and (name != "thinking" or isinstance(value.get("type"), str)):
        return value
    if value is not None:
        job.applied.drop(name, "must be an object that this provider knows")
    return {}


def _adaptive(wish: Wish, job: Job) -> tuple[Json | None, str | None]:
    """For models that think as much as the task needs, steered by effort."""
    always = job.can("thinking") == "always"
    if wish.off:
        if always:
            return None, _effort("low", job)
        # Opus 5 refuses `disabled` beside an effort above high.
        level = "high" if wish.level in ("xhigh", "max") else wish.level
        return {"type": "disabled"}, _effort(level, job)
    if wish.native and wish.native["type"] != "enabled":
        return wish.native, _effort(wish.level, job)
    if wish.budget is None:
        return dict(_ADAPTIVE), _effort(wish.level, job)
    if job.can("thinking") == "both":
        enabled = {"type": "enabled", "budget_tokens": wish.budget}
        return {**wish.native, **enabled}, _effort(wish.level, job)
    display = wish.native.get("display") or "summarized"
    return {"type": "adaptive", "display": display}, _effort(wish.level or _level(wish.budget), job)


def _by_budget(wish: Wish, job: Job) -> tuple[Json | None, str | None]:
    """For models that think only when given a number of tokens."""
    effort = _effort(wish.level, job)
    if wish.off:
        return None, effort
    if wish.native and wish.native["type"] not in ("enabled", "adaptive"):
        return wish.native, effort
    budget = BUDGETS[wish.level or "high"] if wish.budget is None else wish.budget
    display = {"display": wish.native["display"]} if wish.native.get("display") else {}
    return {"type": "enabled", "budget_tokens": budget, **display}, effort


def _level(budget: int) -> str:
    """The effort that a budget stands for."""
    return next((level for level in _LADDER[:-1] if budget < 2 * BUDGETS[level]), "max")


def _effort(level: str | None, job: Job) -> str | None:
    """The nearest level that the model has; None where it has none or none was asked for."""
    levels = job.can("effort")
    if level is None or not levels:
        return None
    if level in ("minimal", "low"):
        return "low"
    if level in levels:
        return level
    return str(levels[-1]) if level == "max" else "high"


def _fitted(thinking: Json, job: Job) -> Json | None:
    """The budget below `max_tokens`, which is raised to make room for both; None where too little is left."""
    values, cap = job.applied.values, job.can("max_output")
    limit, budget = values["max_tokens"], thinking["budget_tokens"]
    if budget >= limit:
        values["max_tokens"] = min(cap, budget + limit)
        budget = min(budget, values["max_tokens"] - limit)
        if values["max_tokens"] != limit:
            name = "max_tokens" if job.asked("max_completion_tokens") is None else "max_completion_tokens"
            job.applied.translate(name)
    return {**thinking, "budget_tokens": budget} if budget >= LEAST_BUDGET else None


def _may_think(messages: Sequence[Json]) -> bool:
    """While a tool loop runs, the last assistant turn must begin with its thoughts."""
    last = messages[-1]
    if last["role"] == "user" and len(messages) > 1 and last["content"][0]["type"] == "tool_result":
        last = messages[-2]
    return last["role"] != "assistant" or last["content"][0]["type"] in THOUGHTS


def _give_up(job: Job, why: str) -> bool:
    for name in THINKING:
        if job.asked(name) is not None:
            job.applied.drop(name, why)
    return False
