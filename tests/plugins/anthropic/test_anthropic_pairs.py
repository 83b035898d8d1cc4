"""What other libraries sent to OpenAI and to Anthropic for the same scenario: our request must mean the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import corpus
from tests.plugins.anthropic.anthropic_support import sent

DIALECT = ("openai", "azure", "xai", "together")
# The model's own words differ from provider to provider, and so do the ids that it made.
OWN_WORDS = "(said)"
# Where the two recordings are not of the same request, and why.
DIFFERENT = {
    "mirascope-validation_retry-2": {"messages"},  # quotes the number that each model had drawn
    "pydantic-tool-choice-none-1": {"messages"},  # recorded with two different questions
    "pydantic-tool-choice-tools_plus_output-1": {"tools"},  # the library sent Anthropic fewer tools
    "pydantic-tool-choice-tools_plus_output-2": {"tools"},
    "reqllm-object_basic": {"tools", "choice"},  # the library emulated the schema by a tool of its own
    "reqllm-object_streaming": {"tools", "choice"},
}


def pairs() -> list[Any]:
    folder = corpus.CORPUS / "_pairs"
    if not folder.is_dir():
        return [pytest.param({}, id="corpus", marks=pytest.mark.skip(reason="no recorded pairs beside the project"))]
    found = []
    for path in sorted(folder.glob("*.json")):
        members = json.loads(path.read_bytes())["members"]
        same = next((members[name] for name in DIALECT if name in members), None)
        if "anthropic" in members and same is not None:
            found.append(pytest.param((path.stem, same["body"], members["anthropic"]["body"]), id=path.stem))
    return found


def blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def meaning(body: dict[str, Any]) -> dict[str, Any]:
    """What the two libraries must agree on."""
    ids: dict[str, int] = {}
    return {
        "system": "".join(block["text"] for block in blocks(body.get("system"))),
        "messages": [spoken(message, ids) for message in body["messages"]],
        "stop": body.get("stop_sequences") or [],
        "tools": {
            tool["name"]: (tool.get("description"), bare(tool["input_schema"])) for tool in body.get("tools") or ()
        },
        "choice": {k: v for k, v in (body.get("tool_choice") or {"type": "auto"}).items() if k in ("type", "name")},
    }


def bare(schema: Any) -> Any:
    """A schema without what libraries add for strict servers."""
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: bare(value) for key, value in schema.items() if key not in ("additionalProperties", "title")}


def spoken(message: dict[str, Any], ids: dict[str, int]) -> tuple[str, list[Any]]:
    made: list[Any] = []
    for block in blocks(message["content"]):
        kind = block["type"]
        if kind == "text":
            if message["role"] != "assistant":
                made.append(("text", block["text"]))
        elif kind == "tool_use":
            made.append((kind, ids.setdefault(block["id"], len(ids)), block["name"], block["input"]))
        elif kind == "tool_result":
            inner = [
                ("text", one["text"]) if one["type"] == "text" else (one["type"],) for one in blocks(block["content"])
            ]
            made.append((kind, ids[block["tool_use_id"]], inner))
        elif kind in ("image", "document"):
            made.append((kind, block["source"]))
        else:
            made.append((kind,))
    return message["role"], made or [OWN_WORDS]


@pytest.mark.parametrize("pair", pairs())
def test_our_request_means_what_the_librarys_own_meant(pair):
    name, given, wanted = pair
    given = {key: value for key, value in given.items() if key != "response_format"}
    ours, theirs = meaning(sent(wanted["model"], **given)), meaning(wanted)
    assert {part for part in ours if ours[part] != theirs[part]} == DIFFERENT.get(name, set())
