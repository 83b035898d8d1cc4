"""What other libraries sent for one scenario to OpenAI and to Gemini: our translation of the one means the other."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.corpus import CORPUS, case
from tests.plugins.google.samples import built

# Where the library told the two models different things, or each replayed its own answer.
DIFFERENT: dict[str, str] = {
    "mirascope-resume_with_override_thinking_and_tools-2": "turns",
    "mirascope-resume_with_override_thinking_and_tools-4": "turns",
    "mirascope-validation_retry-2": "turns",
    "pydantic-tool-choice-tools_plus_output-1": "allowed",
    "pydantic-tool-choice-tools_plus_output-2": "allowed",
    "reqllm-tool_round_trip_1": "mode",
    "reqllm-tool_round_trip_2": "turns",
}

DIALECT = ("openai", "azure", "xai", "together")


def pairs() -> list[Any]:
    found = []
    for file in sorted((CORPUS / "_pairs").glob("*.json")) if CORPUS.is_dir() else ():
        members = case(f"_pairs/{file.name}")["members"]
        name = next((name for name in DIALECT if name in members), None)
        if name and "gemini" in members:
            found.append(pytest.param(members[name], members["gemini"], id=file.stem))
    skip = pytest.mark.skip(reason="no recorded pairs beside the project")
    return found or [pytest.param({}, {}, id="pairs", marks=skip)]


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def part(value: dict[str, Any]) -> Any:
    if "functionCall" in value:
        return ("call", value["functionCall"]["name"], value["functionCall"].get("args") or {})
    if "functionResponse" in value:
        response = value["functionResponse"]["response"]
        known = next(
            (response[name] for name in ("output", "result", "return_value", "content", "error") if name in response),
            response,
        )
        return ("result", value["functionResponse"]["name"], known if isinstance(known, str) else json.dumps(known))
    if "inlineData" in value:
        data = value["inlineData"]["data"].replace("-", "+").replace("_", "/")
        return ("data", value["inlineData"]["mimeType"], base64.b64decode(data + "=" * (-len(data) % 4)))
    return value.get("text") or ("file", (value.get("fileData") or {}).get("fileUri"))


def turns(body: dict[str, Any]) -> list[Any]:
    found = []
    for content in body["contents"]:
        parts = [part(value) for value in content["parts"] if not value.get("thought")]
        found.append((content["role"], parts))
    return found


def shape(schema: Any, root: Any = None) -> Any:
    if not isinstance(schema, dict):
        return schema
    root = root or schema
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    kind = schema.get("type")
    return {
        "type": kind.lower() if isinstance(kind, str) else kind,
        "properties": {name: shape(value, root) for name, value in (schema.get("properties") or {}).items()},
        "required": sorted(schema.get("required") or []),
        "enum": schema.get("enum"),
    }


def meaning(body: dict[str, Any]) -> dict[str, Any]:
    config = {camel(name): value for name, value in (body.get("generationConfig") or {}).items()}
    functions = {}
    for tool in body.get("tools") or ():
        for function in tool.get("functionDeclarations") or ():
            function = {camel(name): value for name, value in function.items()}
            schema = function.get("parametersJsonSchema") or function.get("parameters") or {"type": "object"}
            functions[function["name"]] = (function.get("description"), shape(schema))
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    mode = calling.get("mode", "AUTO")
    return {
        "system": [text["text"] for text in (body.get("systemInstruction") or {}).get("parts", [])],
        "turns": turns(body),
        "functions": functions,
        "mode": "AUTO" if mode == "VALIDATED" else mode,
        "allowed": sorted(set(calling.get("allowedFunctionNames") or functions)) if mode == "ANY" else [],
        "json": config.get("responseMimeType"),
    }


@pytest.mark.parametrize(("ours", "theirs"), pairs())
def test_a_translated_request_means_what_another_library_sent(ours: Any, theirs: Any, request: Any) -> None:
    body = built(theirs["model"] or "gemini-2.5-flash", **{k: v for k, v in ours["body"].items() if k != "model"})
    found, expected = meaning(body), meaning(theirs["body"])
    known = DIFFERENT.get(request.node.callspec.id)
    assert {name for name in found if found[name] != expected[name]} <= ({known, "allowed"} if known else set())
