"""One request on its way to Claude: what every step of the translation needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gateway.contract import Target
from gateway.conversation import NameRule, ToolNames, tool_names
from gateway.errors import InvalidRequest
from gateway.fields import Applied, schema_object
from gateway.hub import Json

NAMES = NameRule(limit=128)
IDS = re.compile(r"[a-zA-Z0-9_-]{1,128}")
JSON_TOOL = "json_tool_call"

# The strengths that a model has where its row does not say: those of the newest.
_NEWEST: dict[str, Any] = {
    "max_output": 128_000,
    "sampling": "none",
    "prefill": False,
    "forced_tool": False,
    "thinking": "always",
    "effort": ("low", "medium", "high", "xhigh", "max"),
    "mid_system": True,
    "structured": True,
    "url_sources": True,
}


@dataclass(frozen=True, slots=True)
class Job:
    """The client's request in modern form, where it goes, what came of it so far, and its tool names."""

    request: Json
    target: Target
    applied: Applied
    names: ToolNames

    def can(self, ability: str) -> Any:
        """What the model's row says about an ability."""
        return self.target.abilities.get(ability, _NEWEST[ability])

    def asked(self, name: str) -> Any:
        """The parameter's value; None when the client left it out."""
        return self.request.get(name)


def book_of(request: Json) -> ToolNames:
    """The tool names of a request in modern form; without tools there is nothing to remember."""
    return ToolNames(tool_names(request), NAMES)


def wanted_schema(request: Json) -> tuple[str, Any] | None:
    """The name and the JSON schema that the answer must follow; None when no schema was asked for."""
    wanted = request.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
        inner = wanted.get("json_schema")
        if isinstance(inner, dict) and isinstance(inner.get("schema"), dict):
            return str(inner.get("name") or "answer"), inner["schema"]
        if not isinstance(inner, dict) or inner.get("schema") is not None:
            raise InvalidRequest("'response_format.json_schema.schema' must be an object.", param="response_format")
    guided = request.get("guided_json")
    return None if guided is None else ("answer", schema_object("guided_json", guided))


def json_tool(request: Json, target: Target) -> str:
    """The name of the tool whose input stands for the content; "" where the model takes schemas itself."""
    if target.abilities.get("structured", True) or wanted_schema(request) is None:
        return ""
    taken = set(tool_names(request))
    return JSON_TOOL if JSON_TOOL not in taken else f"{JSON_TOOL}_{len(taken)}_"


def wrapped(schema: Any) -> bool:
    """Is the schema's root something else than an object, so that a tool's input cannot be it?"""
    kind = schema.get("type")
    return kind is not None and kind != "object" and "properties" not in schema
