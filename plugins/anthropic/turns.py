"""A hub conversation as Claude's system prompt and alternating turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.conversation import fitting_id, pair_calls, read_call, tool_arguments
from gateway.errors import InvalidRequest
from gateway.hub import Json
from plugins.anthropic.blocks import THOUGHTS, marked, thought_blocks, to_blocks
from plugins.anthropic.job import IDS, Job

# The provider refuses blank turns.
_EMPTY = {"user": "(continue)", "assistant": "(no content)"}
_SYSTEM = ("system", "developer")
_USERS = ("user", "tool")


def to_turns(job: Job) -> tuple[list[Json], list[Json]]:
    """The system blocks and the messages of a request.

    The first message is a user's, roles alternate, results stand first in the turn after their calls, no text
    is blank; appending turns to a conversation leaves the earlier messages as they were.
    """
    messages = job.asked("messages")
    if not messages:
        raise InvalidRequest("Invalid messages: there must be at least one.", param="messages")
    spoken = pair_calls(messages, lambda value: fitting_id(value, IDS))
    head = next((place for place, one in enumerate(spoken) if _role(one) not in _SYSTEM), len(spoken))
    system = [block for message in spoken[:head] for block in _texts(message)]
    turns = _Turns()
    _speak(turns, spoken[head:], job)
    return system, turns.finished()


def _role(message: Json) -> str:
    role = message.get("role")
    if role in ("user", "assistant", "tool", *_SYSTEM):
        return str(role)
    raise InvalidRequest(f"Invalid messages: there is no role {str(role)[:64]!r}.", param="messages")


class _Turns:
    """Turns under construction: equal roles in a row become one."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: list[Json] = []

    def add(self, role: str, blocks: Sequence[Json]) -> None:
        if self._turns and self._turns[-1]["role"] == role:
            self._turns[-1]["content"].extend(blocks)
        else:
            self._turns.append({"role": role, "content": list(blocks)})

    def finished(self) -> list[Json]:
        """The turns as the provider wants them at their two ends and where they are empty."""
        turns = self._turns
        for turn in turns:
            # Messages that were merged may have brought thoughts behind text.
            turn["content"].sort(key=lambda block: block["type"] not in THOUGHTS)
        if turns and turns[-1]["role"] == "assistant":
            _strip_end(turns)
        for turn in turns:
            if not turn["content"]:
                turn["content"] = [{"type": "text", "text": _EMPTY[turn["role"]]}]
        if not turns or turns[0]["role"] != "user":
            turns.insert(0, {"role": "user", "content": [{"type": "text", "text": _EMPTY["user"]}]})
        return turns


def _strip_end(turns: list[Json]) -> None:
    """A conversation that ends with the assistant (prefill) must not end with white space, nor with nothing."""
    content = turns[-1]["content"]
    if content and content[-1]["type"] == "text":
        content[-1] = {**content[-1], "text": content[-1]["text"].rstrip()}
    if not content:
        turns.pop()


def _speak(turns: _Turns, messages: Sequence[Json], job: Job) -> None:
    after = _roles_after(messages)
    before = ""
    for message, following in zip(messages, after, strict=True):
        role = _role(message)
        if role in _SYSTEM:
            in_place = job.can("mid_system") and before in _USERS and following in ("", "assistant")
            _add_late_system(turns, message, in_place)
            continue
        before = role
        if role == "assistant":
            turns.add("assistant", _assistant(message, job))
        elif role == "tool":
            turns.add("user", [_result(message, job)])
        else:
            turns.add("user", _last_marked(to_blocks(message.get("content"), job.can("url_sources")), message))


def _roles_after(messages: Sequence[Json]) -> list[str]:
    """For each message the role of the next one that is no system message; "" at the end."""
    roles: list[str] = []
    following = ""
    for message in reversed(messages):
        roles.append(following)
        if (role := _role(message)) not in _SYSTEM:
            following = role
    return roles[::-1]


def _add_late_system(turns: _Turns, message: Json, in_place: bool) -> None:
    """A later system message keeps its place: as one where the provider allows it, else as marked text of the user."""
    blocks = _texts(message)
    if not blocks:
        return
    if in_place:
        turns.add("system", blocks)
    else:
        turns.add("user", [{**block, "text": f"<system>{block['text']}</system>"} for block in blocks])


def _texts(message: Json) -> list[Json]:
    blocks = to_blocks(message.get("content"), urls=False)
    if any(block["type"] != "text" for block in blocks):
        raise InvalidRequest("Invalid messages: a system message holds text only.", param="messages")
    return _last_marked(blocks, message)


def _last_marked(blocks: list[Json], message: Json) -> list[Json]:
    if not blocks or blocks[-1]["type"] in THOUGHTS:
        return blocks
    return [*blocks[:-1], marked(blocks[-1], message)]


def _assistant(message: Json, job: Job) -> list[Json]:
    """Thoughts first and unchanged, then text, then calls: text behind a call is refused."""
    blocks = to_blocks(message.get("content"), job.can("url_sources"))
    refused = message.get("refusal")
    if not blocks and isinstance(refused, str) and refused.strip():
        blocks = [{"type": "text", "text": refused}]
    calls = [_call(call, job) for call in message.get("tool_calls") or ()]
    return [*thought_blocks(message), *_last_marked([*blocks, *calls], message)]


def _call(call: Any, job: Job) -> Json:
    call_id, name, arguments = read_call(call)
    block: Json = {
        "type": "tool_use",
        "id": call_id,
        "name": job.names.native(name),
        "input": tool_arguments(arguments),
    }
    return marked(block, call)


def _result(message: Json, job: Job) -> Json:
    block: Json = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
    content = message.get("content")
    marks = [message]
    if isinstance(content, str):
        block |= {"content": content} if content.strip() else {}
    elif inner := to_blocks(content, job.can("url_sources")):
        block["content"] = [{key: value for key, value in one.items() if key != "cache_control"} for one in inner]
        marks = [*inner, message]
    if message.get("is_error"):
        block["is_error"] = True
    for source in marks:
        block = marked(block, source)
    return block
