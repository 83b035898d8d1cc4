"""Tool names as Gemini allows them, and the client's own for them."""

from __future__ import annotations

import re

from gateway.contract import ChatRequest, Target
from gateway.conversation import NameRule, ToolNames, modern, tool_names
from gateway.hub import Json

# Longer names are allowed today (128), but older models stop at 64, which is also OpenAI's limit.
RULE = NameRule(re.compile(r"[A-Za-z0-9_.:-]"), 64, re.compile(r"[^A-Za-z_]"))


def names_in(request: Json) -> ToolNames:
    """The names of one request, both ways; `request` is in its modern form."""
    return ToolNames(tool_names(request), RULE)


def names_of(chat: ChatRequest) -> ToolNames:
    """The same for a client's request: what an answer to it needs."""
    return names_in(modern(chat.parsed()))


def carries(target: Target) -> bool:
    """Should thought signatures travel inside call ids? Only where the deployment says `emulate: [thinking]`.

    Such ids are longer than the 40 characters that OpenAI allows, and most clients keep `extra_content` anyway.
    """
    return "thinking" in target.emulate


def cites(request: Json) -> bool:
    """May the answer rest on sources that its text must be measured for?"""
    tools = request.get("tools") or ()
    return (
        request.get("web_search_options") is not None
        or request.get("google") is not None
        or any(isinstance(tool, dict) and tool.get("type") != "function" for tool in tools)
    )


def legacy(request: Json) -> bool:
    """Does this client speak of `functions`, and so expect one `function_call`?"""
    return bool(request.get("functions")) and not request.get("tools")
