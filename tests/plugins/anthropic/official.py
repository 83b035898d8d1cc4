"""What the official SDK's types accept of a Messages request."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import anthropic.types as official
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from pydantic import TypeAdapter

ADAPTERS = {
    False: TypeAdapter(MessageCreateParamsNonStreaming),
    True: TypeAdapter(MessageCreateParamsStreaming),
}
BLOCKS = {
    get_args(get_type_hints(kind)["type"])[0]: frozenset(get_type_hints(kind))
    for kind in (
        *(official.TextBlockParam, official.ImageBlockParam, official.DocumentBlockParam, official.ToolUseBlockParam),
        *(official.ToolResultBlockParam, official.ThinkingBlockParam, official.RedactedThinkingBlockParam),
    )
}
# The types are of the newest API version, which has no sampling parameters.
TOP = frozenset((*get_type_hints(MessageCreateParamsStreaming), "temperature", "top_p", "top_k"))


def exhaust(value: Any) -> Any:
    """Pydantic checks an Iterable only while it is read."""
    if isinstance(value, dict):
        return {key: exhaust(item) for key, item in value.items()}
    if isinstance(value, str | bytes | int | float | type(None)):
        return value
    return [exhaust(item) for item in value]


def assert_official(body: dict[str, Any]) -> None:
    exhaust(ADAPTERS[body.get("stream", False)].validate_python(body))
    assert set(body) <= TOP
    for block in (block for turn in body["messages"] for block in turn["content"]):
        assert set(block) <= BLOCKS.get(block["type"], set(block)), block
