"""Tools and the choice among them: function declarations, Google's own tools, and the calling mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.contract import Target
from gateway.conversation import ToolNames
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.fields import Applied
from gateway.hub import Json
from plugins.google.schema import json_schema, openapi

# Tools that run at Google's; a client names them as Google does, in either spelling.
_OWN: Mapping[str, str] = {
    **{name.lower(): name for name in ("googleSearch", "googleSearchRetrieval", "codeExecution", "urlContext")},
    **{name.lower(): name for name in ("googleMaps", "computerUse", "fileSearch", "enterpriseWebSearch", "retrieval")},
}
_MODES: Mapping[str, str] = {"none": "NONE", "auto": "AUTO", "required": "ANY", "any": "ANY"}


def put_tools(request: Json, names: ToolNames, target: Target, applied: Applied) -> None:
    """Set `tools` and `toolConfig` of the provider's body."""
    tools = [] if "tools" in target.without else _listed(request.get("tools"))
    functions = [tool["function"] for tool in tools if isinstance(tool.get("function"), dict)]
    own = [_own(tool) for tool in tools if not isinstance(tool.get("function"), dict)]
    mixes = bool(target.abilities.get("mixed_tools")) and "project" not in target.options
    if request.get("web_search_options") is not None and "web_search_options" not in target.without:
        if functions and not mixes:
            applied.drop("web_search_options", "cannot stand beside functions on this model")
        else:
            own.append({"googleSearch": {}})
            applied.translate("web_search_options")
    native: list[Json] = []
    if functions:
        native.append({"functionDeclarations": [_declaration(function, names, target) for function in functions]})
    if native or own:
        applied.put("tools", native + own)
    if tools:
        applied.translate("tools")
    config: Json = {}
    if functions and (calling := _calling(request, functions, names, target, applied)):
        config["functionCallingConfig"] = calling
    if functions and own and mixes:
        config["includeServerSideToolInvocations"] = True
    if config:
        applied.put("toolConfig", config)


def _listed(tools: Any) -> list[Json]:
    if tools is None:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InvalidRequest("'tools' must be a list of objects.", param="tools")
    return tools


def _own(tool: Json) -> Json:
    found = {_OWN[name.replace("_", "").lower()]: tool[name] for name in tool if name.replace("_", "").lower() in _OWN}
    if not found:
        raise UnsupportedParameter("tools", f"holds a tool of type {tool.get('type')!r}, which this provider has not")
    return found


def _declaration(function: Json, names: ToolNames, target: Target) -> Json:
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidRequest("A function in 'tools' needs a name.", param="tools")
    declaration: Json = {"name": names.native(function["name"])}
    if function.get("description"):
        declaration["description"] = function["description"]
    parameters = function.get("parameters")
    if not parameters:
        return declaration
    if target.abilities.get("schemas") == "openapi":
        found = openapi(parameters)
        return {**declaration, "parameters": found} if found else declaration
    return {**declaration, "parametersJsonSchema": json_schema(parameters)}


def _calling(request: Json, functions: list[Json], names: ToolNames, target: Target, applied: Applied) -> Json | None:
    choice = request.get("tool_choice")
    if choice is None or "tool_choice" in target.without:
        # VALIDATED is AUTO that keeps to the schemas.
        return {"mode": "VALIDATED"} if _strict(functions) else None
    applied.translate("tool_choice")
    if isinstance(choice, str):
        if choice not in _MODES:
            raise InvalidRequest(f"'tool_choice' cannot be {choice!r}.", param="tool_choice")
        mode = _MODES[choice]
        return {"mode": "VALIDATED" if mode == "AUTO" and _strict(functions) else mode}
    mode, allowed = _allowed(choice)
    return {"mode": mode, "allowedFunctionNames": [names.native(name) for name in allowed]}


def _strict(functions: list[Json]) -> bool:
    return any(function.get("strict") is True for function in functions)


def _allowed(choice: Any) -> tuple[str, list[str]]:
    """The mode and the names of a choice that names functions: one, or a list of them."""
    if isinstance(choice, dict) and isinstance(allowed := choice.get("allowed_tools"), dict):
        found = [_name(tool) for tool in _listed(allowed.get("tools"))]
        # Names are taken with ANY and VALIDATED only.
        return "ANY" if allowed.get("mode") == "required" else "VALIDATED", found
    return "ANY", [_name(choice)]


def _name(choice: Any) -> str:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidRequest("'tool_choice' must name a function.", param="tool_choice")
    return name
