"""What an answer's bytes tell: id, model, finish reasons and, where it was asked for, what was said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.hub import Json
from gateway.tracing.trace import Trace

DATA = b"data: {"


@dataclass(slots=True)
class Choice:
    """One choice of an answer, put together from a message or from deltas."""

    role: str = "assistant"
    text: list[str] = field(default_factory=list)
    thought: list[str] = field(default_factory=list)
    calls: dict[int, Json] = field(default_factory=dict)
    reason: str = ""

    def message(self) -> Json:
        """The choice as a message of the hub."""
        calls = [self.calls[index] for index in sorted(self.calls)]
        return {"role": self.role, "content": "".join(self.text), "tool_calls": calls, "thought": "".join(self.thought)}

    def add(self, told: Json) -> None:
        """Take in a message, or a piece of one."""
        for name, pieces in (("content", self.text), ("refusal", self.text), ("reasoning_content", self.thought)):
            if isinstance(piece := told.get(name), str):
                pieces.append(piece)
        for position, call in enumerate(_listed(told.get("tool_calls"))):
            index = call.get("index", position)
            index = index if isinstance(index, int) else position
            known = self.calls.setdefault(index, {"id": "", "function": {"name": "", "arguments": ""}})
            known["id"] = call.get("id") or known["id"]
            function = call.get("function")
            if isinstance(function, dict):
                for name, before in known["function"].items():
                    known["function"][name] = before + _written(function.get(name))


@dataclass(slots=True)
class Heard:
    """An answer as far as its bytes are known."""

    id: str = ""
    model: str = ""
    choices: dict[int, Choice] = field(default_factory=dict)
    whole: bool = True

    @property
    def reasons(self) -> list[str]:
        """Why each choice ended, in their order."""
        return [self.choices[index].reason for index in sorted(self.choices) if self.choices[index].reason]


def hear(trace: Trace) -> Heard:
    """What is known of the answer of a request that has ended."""
    heard = Heard()
    if trace.heard is not None:
        heard.whole = trace.heard.whole
        for line in trace.heard.text().split(b"\n"):
            if line.startswith(DATA):
                _add(heard, _loaded(line[6:].strip()), "delta")
    elif trace.body:
        _add(heard, _loaded(trace.body), "message")
    return heard


def _add(heard: Heard, told: Json, name: str) -> None:
    heard.id = heard.id or _text(told.get("id"))
    heard.model = heard.model or _text(told.get("model"))
    for each in _listed(told.get("choices")):
        index = each.get("index", 0)
        choice = heard.choices.setdefault(index if isinstance(index, int) else 0, Choice())
        choice.reason = _text(each.get("finish_reason")) or choice.reason
        if isinstance(said := each.get(name), dict):
            choice.add(said)


def _listed(value: Any) -> Iterator[Json]:
    found: Iterable[Any] = value if isinstance(value, list) else ()
    return (each for each in found if isinstance(each, dict))


def _written(piece: Any) -> str:
    """A piece of a call; some servers send arguments as an object."""
    if isinstance(piece, str):
        return piece
    return "" if piece is None else orjson.dumps(piece).decode()


def _text(value: Any) -> str:
    return value[:256] if isinstance(value, str) else ""


def _loaded(data: bytes) -> Json:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
