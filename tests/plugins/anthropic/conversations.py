"""Conversations that the tests send to Claude, and a model of each of its families."""

from __future__ import annotations

from typing import Any

# They think adaptively, not at all, within a budget, always, and either way.
NEW, OLD, BUDGET = "claude-opus-4-8", "claude-3-haiku-20240307", "claude-sonnet-4-5"
ALWAYS, SIX = "claude-fable-5-1", "claude-opus-4-6"
FAMILIES = (NEW, OLD, BUDGET, ALWAYS, SIX, "claude-opus-4-5", "claude-sonnet-4-0", "claude-of-2030")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
PNG = "data:image/png;base64,iVBORw0="


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def system(value: Any, **more: Any) -> dict[str, Any]:
    return {"role": "system", "content": value, **more}


def said(value: Any = "ok", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": value, **more}


def calls(*ids: str, content: Any = None, **more: Any) -> dict[str, Any]:
    made = [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": content, "tool_calls": made, **more}


def result(call_id: str, content: Any = "5", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}
