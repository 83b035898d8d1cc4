"""A hub conversation as Converse turns: alternating, tool results first and complete, nothing blank."""

from __future__ import annotations

import hashlib
import re
from base64 import b32encode
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.contract import Target
from gateway.conversation import content_parts, fitting_id, pair_calls, read_call, tool_arguments
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.hub import Json
from plugins.bedrock.blocks import EMPTY, NO_OUTPUT, Blocks, reasoning_blocks
from plugins.bedrock.tools import ToolPlan

MAX_CACHE_POINTS = 4
_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_SYSTEM = ("system", "developer")
_BESIDE = frozenset(("image", "document", "video"))


class Conversation:
    """The `system` blocks and `messages` of one request, and the names of the tools that its history used."""

    def __init__(self, request: Json, target: Target, plan: ToolPlan) -> None:
        self._abilities = target.abilities
        self._plan = plan
        self._blocks = Blocks(target.abilities)
        self._turns: list[Json] = []
        self.used: list[str] = []
        self.system: list[Json] = []
        paired = pair_calls(request.get("messages") or (), lambda name: fitting_id(name, _ID))
        leading = next((n for n, m in enumerate(paired) if m.get("role") not in _SYSTEM), len(paired))
        for message in paired[:leading]:
            self.system += self._system(message)
        for message in paired[leading:]:
            self._add(message)
        self.messages = self._finished()

    def lacks_thinking(self) -> bool:
        """Is a tool loop under way whose calls come without the thinking that led to them?"""
        last = next((turn for turn in reversed(self.messages) if turn["role"] == "assistant"), None)
        waits = bool(self.messages) and "toolResult" in self.messages[-1]["content"][0]
        return waits and last is not None and "reasoningContent" not in last["content"][0]

    def _add(self, message: Json) -> None:
        role = message.get("role")
        if role == "assistant":
            self._assistant(message)
        elif role == "tool":
            self._result(message)
        elif role == "user":
            self._turn("user")["content"] += self._blocks.content(message)
        elif role in _SYSTEM:
            self._late_system(message)
        else:
            raise InvalidRequest(f"Unknown message role '{str(role)[:64]}'.", param="messages")

    def _turn(self, role: str) -> Json:
        """The last turn if it is this role's, else a new one."""
        if not self._turns or self._turns[-1]["role"] != role:
            self._turns.append({"role": role, "content": []})
        return self._turns[-1]

    def _system(self, message: Json) -> list[Json]:
        blocks = self._blocks.content(message)
        if not all({"text", "cachePoint"} & set(block) for block in blocks):
            raise UnsupportedParameter("messages", "holds a system message with more than text in it")
        return blocks

    def _late_system(self, message: Json) -> None:
        """Kept in its place: to move it to the top would change its meaning and the cached prefix."""
        blocks = self._system(message)
        if self._abilities.get("mid_system") and self._turns and self._turns[-1]["role"] == "user":
            if blocks:
                self._turns.append({"role": "system", "content": blocks})
            return
        self._turn("user")["content"] += map(_marked, blocks)

    def _assistant(self, message: Json) -> None:
        calls = message.get("tool_calls") or ()
        content = self._turn("assistant")["content"]
        if self._abilities.get("signatures"):
            carried = next((call["carried"] for call in calls if "carried" in call), None)
            place = next((n for n, block in enumerate(content) if "reasoningContent" not in block), len(content))
            content[place:place] = reasoning_blocks(message, carried)
        texts = self._blocks.content(message)
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal.strip() and not texts:
            texts = [{"text": refusal}]
        content += [*texts, *map(self._call, calls)]

    def _call(self, call: Json) -> Json:
        name, tool, arguments = read_call(call)
        self.used.append(tool)
        use = {"toolUseId": self._id(name), "name": self._plan.names.native(tool), "input": tool_arguments(arguments)}
        return {"toolUse": use}

    def _id(self, name: str) -> str:
        """Mistral's own templates insist on nine letters or digits."""
        if not self._abilities.get("short_ids") or _SHORT_ID.fullmatch(name):
            return name
        return b32encode(hashlib.sha256(name.encode()).digest()).decode()[:9]

    def _result(self, message: Json) -> None:
        blocks = [
            block for block in self._blocks.content({"content": message.get("content")}) if "cachePoint" not in block
        ]
        beside: list[Json] = []
        if self._abilities.get("result_images") is False:
            beside = [block for block in blocks if _BESIDE & set(block)]
            blocks = [block for block in blocks if not _BESIDE & set(block)]
        result: Json = {"toolUseId": self._id(str(message["tool_call_id"])), "content": blocks or [dict(NO_OUTPUT)]}
        if message.get("is_error"):
            result["status"] = "error"
        parts = content_parts(message.get("content"))
        marks = self._blocks.mark(message) or (self._blocks.mark(parts[-1]) if parts else [])
        content = self._turn("user")["content"]
        place = next(
            (n for n, block in enumerate(content) if not {"toolResult", "cachePoint"} & set(block)), len(content)
        )
        content[place:place] = [{"toolResult": result}, *marks]
        content += beside

    def _finished(self) -> list[Json]:
        turns = _merged(_settled(self._turns))
        if not turns or turns[0]["role"] != "user":
            turns.insert(0, {"role": "user", "content": []})
        for turn in turns:
            content = turn["content"]
            if (
                turn["role"] == "user"
                and any("document" in b for b in content)
                and not any("text" in b for b in content)
            ):
                content.append(dict(EMPTY))
            if not content:
                content.append(dict(EMPTY))
        last = turns[-1]
        if last["role"] == "assistant" and "text" in last["content"][-1]:
            last["content"][-1] = {"text": last["content"][-1]["text"].rstrip()}
        return turns


def _settled(turns: Sequence[Json]) -> list[Json]:
    """A system turn may stand only behind a user's and before an assistant's or the end; else it becomes user text."""
    settled: list[Json] = []
    for place, turn in enumerate(turns):
        follows = turns[place + 1]["role"] if place + 1 < len(turns) else "assistant"
        fits = turn["role"] != "system" or (follows == "assistant" and settled[-1]["role"] == "user")
        settled.append(turn if fits else {"role": "user", "content": list(map(_marked, turn["content"]))})
    return settled


def _merged(turns: Sequence[Json]) -> list[Json]:
    merged: list[Json] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1]["content"] += turn["content"]
        else:
            merged.append(turn)
    return merged


def _marked(block: Json) -> Json:
    return {"text": f"<system>{block['text']}</system>"} if "text" in block else block


def limit_cache_points(places: Sequence[list[Json]]) -> bool:
    """Keep the last four cache points over all lists of blocks, in their order; never one behind reasoning or first.

    True if there were more than four.
    """
    found: list[tuple[list[Json], int]] = []
    for blocks in places:
        for n in range(len(blocks) - 1, -1, -1):
            if "cachePoint" in blocks[n] and (n == 0 or {"reasoningContent", "cachePoint"} & set(blocks[n - 1])):
                del blocks[n]
        found += [(blocks, n) for n, block in enumerate(blocks) if "cachePoint" in block]
    for blocks, n in reversed(found[:-MAX_CACHE_POINTS]):
        del blocks[n]
    return len(found) > MAX_CACHE_POINTS


def cache_places(body: Mapping[str, Any]) -> list[list[Json]]:
    """The lists of blocks of a body that may hold cache points, in the order in which the model reads them."""
    tools = body.get("toolConfig", {}).get("tools", [])
    return [tools, body.get("system", []), *(message["content"] for message in body["messages"])]
