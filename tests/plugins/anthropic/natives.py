"""Messages as Claude answers them, and what the hub must make of them."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from tests import corpus

USAGE = {"input_tokens": 10, "output_tokens": 20}
TEXT = {"type": "text", "text": "Hello there"}
THOUGHT = {"type": "thinking", "thinking": "Let me see", "signature": "EqQB+/=="}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


def message(*content: dict[str, Any], stop: str = "end_turn", **values: Any) -> dict[str, Any]:
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_sequence": None}
    return {**base, "content": list(content), "stop_reason": stop, "usage": USAGE, **values}


def use(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def strict(kind: str, value: dict[str, Any], *extensions: str) -> None:
    """Assert the published shape, the hub's documented extensions aside."""
    document = corpus.schema("chat-strict")
    found = json.loads(json.dumps(value))
    for choice in found["choices"]:
        for name in ("native_finish_reason", "refusal_category"):
            choice.pop(name, None)
        for part in (choice.get("message"), choice.get("delta")):
            for name in ("reasoning_content", "thinking_blocks", *extensions):
                if part is not None:
                    part.pop(name, None)
    validator = Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": document["$defs"]})
    assert [error.message for error in validator.iter_errors(found)] == []
