"""What the demo says: decided from the request alone, the same for every wire format."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, TypeVar

from gateway.demo.instances import instance
from gateway.demo.steering import switch_of

Piece = TypeVar("Piece")
Finish = Literal["stop", "stop_sequence", "length", "tool_calls", "content_filter"]

THOUGHT = "The user wants something from a demo. I will be short, friendly and use what I was given."
PREFACE = "Let me look that up."
# The schema of an answer that only has to be JSON.
ANY_JSON: Mapping[str, Any] = {"type": "object", "properties": {"answer": {"type": "string"}}}
WORDS = 3  # tokens in one streamed piece
_TOKEN = re.compile(r"\s*\S{1,8}|\s+")


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the model may call."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for, whatever its wire format.

    `choice` is auto, none, required, or `=` and the name of one tool. `results` are what tools answered since
    the user last spoke, `rounds` in how many turns. `prefaced`: this provider's models talk before they call.
    """

    provider: str
    model: str
    serial: int
    stream: bool = False
    text: str = ""
    prompt: int = 1
    tools: tuple[Tool, ...] = ()
    choice: str = "auto"
    parallel: bool = True
    results: tuple[str, ...] = ()
    rounds: int = 0
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    thinking: bool = False
    prefaced: bool = False
    count: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice. `tokens` counts text and arguments, `reasoning` the thoughts."""

    text: str
    finish: Finish
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    stopped_by: str | None = None
    tokens: int = 0
    reasoning: int = 0


def tokens(text: str) -> list[str]:
    """The text in the demo's tokens; joined they are the text again."""
    return _TOKEN.findall(text)


def pieces(text: str, ask: Ask, size: int = WORDS) -> list[str]:
    """The text as it is streamed: a few tokens at a time, one word where the model is slow."""
    parts = re.findall(r"\s*\S+|\s+", text) if switch_of(ask.model).name == "slow" else tokens(text)
    size = 1 if switch_of(ask.model).name == "slow" else size
    return ["".join(parts[at : at + size]) for at in range(0, len(parts), size)]


def halves(text: str) -> list[str]:
    """The text cut in two, for arguments that come in pieces."""
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


def interleaved(queues: Sequence[Sequence[Piece]]) -> Iterator[tuple[int, Piece]]:
    """The pieces of several choices, one of each in turn, with the number of their choice."""
    for step in zip_longest(*queues):
        yield from ((number, piece) for number, piece in enumerate(step) if piece is not None)


def seal(provider: str, *parts: str) -> str:
    """The demo's signature of what it thought; only the demo can tell whether it is its own."""
    digest = hashlib.sha256("\0".join(("sluiceway-demo", provider, *parts)).encode()).digest()
    return base64.b64encode(b"demo" + digest).decode()


def canonical(value: object) -> str:
    """JSON that does not depend on the order of keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def sums(answers: Sequence[Answer]) -> tuple[int, int]:
    """Tokens of text and of reasoning."""
    return sum(answer.tokens for answer in answers), sum(answer.reasoning for answer in answers)


def answers(ask: Ask) -> list[Answer]:
    """One answer for each choice asked for."""
    return [answer(ask, number) for number in range(ask.count)]


def answer(ask: Ask, number: int = 0) -> Answer:
    """The answer for one choice."""
    thinking = THOUGHT if ask.thinking else ""
    reasoning = len(tokens(thinking))
    if switch_of(ask.model).name == "filtered":
        text = "This answer stops here,"
        return Answer(text, "content_filter", thinking, tokens=len(tokens(text)), reasoning=reasoning)
    if calls := _calls(ask):
        text = PREFACE if ask.prefaced else ""
        spent = len(tokens(text)) + sum(len(tokens(canonical(call.arguments))) + 4 for call in calls)
        return Answer(text, "tool_calls", thinking, calls, tokens=spent, reasoning=reasoning)
    text, finish, stopped_by = _limited(_words(ask, number), ask, reasoning)
    return Answer(text, finish, thinking, (), stopped_by, len(tokens(text)), reasoning)


def _calls(ask: Ask) -> tuple[Call, ...]:
    if not ask.tools or ask.choice == "none":
        return ()
    chosen = [tool for tool in ask.tools if ask.choice == f"={tool.name}"]
    if not chosen:
        switch = switch_of(ask.model)
        rounds = switch.number if switch.name == "steps" else 1
        if ask.rounds >= rounds and ask.choice == "auto":
            return ()
        chosen = list(ask.tools[: 2 if ask.parallel else 1])
    words = _excerpt(ask.text) or "demo"
    return tuple(Call(tool.name, _arguments(tool, words)) for tool in chosen)


def _arguments(tool: Tool, words: str) -> Mapping[str, Any]:
    made = instance({"type": "object", **tool.schema}, words)
    return made if isinstance(made, dict) else {}


def _words(ask: Ask, number: int) -> str:
    if ask.schema is not None:
        return json.dumps(instance(ask.schema, _excerpt(ask.text) or "demo"), ensure_ascii=False)
    ordinal = f" (choice {number + 1})" if ask.count > 1 else ""
    if ask.results:
        said = "; ".join(_excerpt(result) for result in ask.results)
        return f"The tools answered: {said}. That is all a demo needs to know{ordinal}."
    said = _excerpt(ask.text)
    return f'You said: "{said}". This is the demo upstream of Sluiceway speaking for {ask.provider}{ordinal}.'


def _excerpt(text: str) -> str:
    return " ".join(text.split())[:120]


def _limited(text: str, ask: Ask, reasoning: int) -> tuple[str, Finish, str | None]:
    found = [(at, stop) for stop in ask.stop if (at := text.find(stop)) >= 0]
    finish: Finish = "stop"
    stopped_by = None
    if found:
        at, stopped_by = min(found)
        text, finish = text[:at], "stop_sequence"
    if ask.max_tokens is None:
        return text, finish, stopped_by
    parts = tokens(text)
    room = max(ask.max_tokens - reasoning, 0)
    if len(parts) <= room:
        return text, finish, stopped_by
    return "".join(parts[:room]), "length", None


def text_of(parts: object, key: str = "text") -> str:
    """The text of a content that is a string or a list of parts."""
    if isinstance(parts, str):
        return parts
    if not isinstance(parts, Sequence):
        return ""
    return " ".join(part[key] for part in parts if isinstance(part, dict) and isinstance(part.get(key), str))


def prompt_tokens(body: object) -> int:
    """A simple, deterministic count of what was sent in."""
    return max(len(tokens(json.dumps(body))) // 2, 1)
