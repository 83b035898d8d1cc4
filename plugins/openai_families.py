"""How OpenAI's model families differ in what they take, wherever they are hosted."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.contract import Row, Target
from gateway.fields import drop, elsewhere, reject, rename
from plugins.openai_like import Edit, Step, efforts

_SAMPLING: dict[str, object] = {
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": None,
}
_SHAPES = frozenset(("modalities", "audio"))
_NOTES = {
    "never": "this model takes only the default",
    "effort_none": "needs reasoning_effort none, this model's default",
    "asked_none": "needs reasoning_effort none, and it must be asked for",
}


class Family(NamedTuple):
    """What `openai_models.yaml` says about a model, as a key."""

    limit: str = ""
    sampling: str = "free"
    refuses: tuple[str, ...] = ()
    efforts: tuple[str, ...] | None = None


def family(target: Target, limit: str = "limit") -> Family:
    """The target's family; one that no row knows takes everything."""
    known = target.abilities
    if not known:
        return Family()
    levels = known.get("efforts")
    return Family(
        str(known.get(limit, known.get("limit", ""))),
        str(known.get("sampling", "free")),
        tuple(known.get("refuses", ())),
        None if levels is None else tuple(levels),
    )


def family_rows(kind: Family) -> dict[str, Row]:
    """The rows that a family has other than plain forwarding."""
    found: dict[str, Row] = {}
    if kind.limit == "max_completion_tokens":
        found["max_tokens"] = rename("max_completion_tokens", "the only limit that this model takes")
    if kind.sampling in _NOTES:
        row = drop(_NOTES[kind.sampling]) if kind.sampling == "never" else elsewhere(_NOTES[kind.sampling])
        found |= dict.fromkeys(_SAMPLING, row)
    for name in kind.refuses:
        found[name] = reject("is not supported by this model") if name in _SHAPES else drop("refused by this model")
    if kind.efforts is not None:
        found["reasoning_effort"] = efforts(kind.efforts)
    return found


def family_steps(kind: Family) -> dict[str, Step]:
    """Functions for what depends on more than its own value."""
    if kind.sampling not in _NOTES:
        return {}
    return {name: _sampling(name, kind.sampling) for name in _SAMPLING}


def _sampling(name: str, when: str) -> Step:
    neutral = _SAMPLING[name]

    def step(edit: Edit) -> None:
        if edit.chat.get(name) != neutral and not _samples(edit.chat.get("reasoning_effort"), when):
            edit.drop(name, _NOTES[when])

    return step


def _samples(effort: Any, when: str) -> bool:
    """Does this model take sampling parameters at this effort?"""
    return when != "never" and (effort == "none" or (effort is None and when == "effort_none"))
