"""What a request's tools become in Converse, and how their names and answers find back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.contract import Target
from gateway.conversation import NameRule, ToolNames, modern, tool_names
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.fields import Applied, schema_object
from gateway.hub import Json
from plugins.bedrock.schemas import inlined, is_object, restricted

RULE = NameRule()
CACHE_POINT = {"cachePoint": {"type": "default"}}
ANSWER_TOOL = "json_answer"
LEGACY = "legacy functions"  # a mark on the understood request; no parameter has a blank in its name


@dataclass(frozen=True, slots=True)
class ToolPlan:
    """The tool names of one request; `answer` is the tool that stands for `response_format`, "" if none does.

    `wrapped` says that its schema was put under `values`, because a tool's input must be an object. `legacy`: the
    client spoke of `functions` and gets one `function_call`.
    """

    names: ToolNames
    answer: str = ""
    wrapped: bool = False
    legacy: bool = False


def understood(given: Json) -> Json:
    """The request without nulls, with its old `functions` as tools and `guided_json` as a response format."""
    request = modern(_checked({name: value for name, value in given.items() if value is not None}))
    if "guided_json" in request and "response_format" not in request:
        schema = {"name": "answer", "schema": schema_object("guided_json", request["guided_json"])}
        request = {**request, "response_format": {"type": "json_schema", "json_schema": schema}}
    if "functions" in given and not given.get("tools"):
        request = {**request, LEGACY: True}
    return request


def _checked(request: Json) -> Json:
    """The same request; raises InvalidRequest where a list or an object is something else."""
    for name in ("messages", "tools", "functions"):
        members = request.get(name) or []
        if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
            raise InvalidRequest(f"'{name}' must be a list of objects.", param=name)
    if request.get("messages") == []:
        raise InvalidRequest("'messages' must not be empty.", param="messages")
    if not all(isinstance(message.get("tool_calls") or [], list) for message in request.get("messages") or ()):
        raise InvalidRequest("'tool_calls' must be a list.", param="messages")
    return request


def plan_tools(request: Json, target: Target) -> ToolPlan:
    """The same for building the request and for reading its answer."""
    names = list(tool_names(request))
    schema = emulated_schema(request, target)
    if schema is None:
        return ToolPlan(ToolNames(names, RULE), legacy=LEGACY in request)
    answer = ANSWER_TOOL
    while answer in names:
        answer += "_"
    return ToolPlan(ToolNames([*names, answer], RULE), answer, not is_object(schema), LEGACY in request)


def emulated_schema(request: Json, target: Target) -> Json | None:
    """The schema of a `response_format` that this model has no native field for."""
    wanted = request.get("response_format")
    if "response_format" in target.without or not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    return None if target.abilities.get("structured") else response_schema(wanted)


def response_schema(wanted: Mapping[str, Any]) -> Json:
    """The schema inside a `json_schema` response format."""
    body = wanted.get("json_schema")
    schema = body.get("schema", {}) if isinstance(body, dict) else None
    if not isinstance(schema, dict):
        raise InvalidRequest("'response_format.json_schema.schema' must be an object.", param="response_format")
    return schema


class ToolConfig:
    """Builds `toolConfig` (and Claude's own `tool_choice`) for one request."""

    def __init__(self, request: Json, target: Target, plan: ToolPlan, used: Sequence[str]) -> None:
        self._request = request
        self._abilities = target.abilities
        self._plan = plan
        self._used = used
        self._schema = emulated_schema(request, target)

    def write(self, applied: Applied, *, thinking: bool) -> None:
        """Put tools and choice into the body, and note what came out weaker than asked."""
        tools, mode, name = self._chosen()
        if mode == "none" and not self._used:
            tools = []
        specs = self._specs(tools, applied)
        if self._schema is not None:
            specs.append(self._answer_spec())
            if mode not in ("required", "named"):
                mode = "required" if tools and mode != "none" else "answer"
        if not any("toolSpec" in spec for spec in specs):
            specs += [
                self._spec(name, name, {"type": "object", "properties": {}}) for name in dict.fromkeys(self._used)
            ]
        if not specs:
            return
        applied.put("toolConfig.tools", specs)
        choice = self._choice(mode, name, applied, thinking=thinking)
        if choice:
            applied.put("toolConfig.toolChoice", choice)
        if self._request.get("parallel_tool_calls") is False:
            self._one_at_a_time(applied, chosen=bool(choice))

    def _chosen(self) -> tuple[list[Json], str, str]:
        """The tools to offer, the mode of choice, and the name of a forced tool."""
        tools = [tool for tool in self._request.get("tools") or () if isinstance(tool, dict)]
        choice = self._request.get("tool_choice")
        if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
            allowed = choice.get("allowed_tools") or choice
            names = [_name(tool) for tool in allowed.get("tools") or ()]
            return [tool for tool in tools if _name(tool) in names], str(allowed.get("mode") or "auto"), ""
        if isinstance(choice, dict):
            name = _name(choice)
            if name not in map(_name, tools):
                raise InvalidRequest(f"'tool_choice' names a tool that 'tools' lacks: {name}.", param="tool_choice")
            return tools, "named", name
        return tools, str(choice or "auto"), ""

    def _specs(self, tools: Sequence[Json], applied: Applied) -> list[Json]:
        specs: list[Json] = []
        for tool in tools:
            if isinstance(tool.get("systemTool"), dict):
                specs.append({"systemTool": tool["systemTool"]})
                continue
            function = tool.get("function")
            if tool.get("type", "function") != "function" or not isinstance(function, dict):
                raise UnsupportedParameter("tools", f"holds a tool of type '{tool.get('type')}', which Converse lacks")
            specs.append(self._function(function))
            if self._abilities.get("cache") and (mark := tool.get("cache_control") or function.get("cache_control")):
                specs.append(cache_point(mark, self._abilities))
        if self._request.get("web_search_options") is not None and self._abilities.get("grounding"):
            specs.append({"systemTool": {"name": "nova_grounding"}})
            applied.translate("web_search_options")
        return specs

    def _function(self, function: Mapping[str, Any]) -> Json:
        name = str(function.get("name") or "")
        strict = function.get("strict") is True and bool(self._abilities.get("strict_tools"))
        schema = {**inlined(function.get("parameters") or {"properties": {}}), "type": "object"}
        spec = self._spec(name, str(function.get("description") or ""), restricted(schema) if strict else schema)
        if strict:
            spec["toolSpec"]["strict"] = True
        return spec

    def _spec(self, name: str, description: str, schema: Json) -> Json:
        native = self._plan.names.native(name)
        text = description if description.strip() else native
        return {"toolSpec": {"name": native, "description": text, "inputSchema": {"json": schema}}}

    def _answer_spec(self) -> Json:
        schema = inlined(self._schema or {})
        if self._plan.wrapped:
            schema = {"type": "object", "properties": {"values": schema}, "required": ["values"]}
        about = self._request["response_format"]["json_schema"].get("description")
        text = about if isinstance(about, str) and about.strip() else "Give the final answer in this form."
        return self._spec(self._plan.answer, text, {**schema, "type": "object"})

    def _choice(self, mode: str, name: str, applied: Applied, *, thinking: bool) -> Json:
        if mode in ("auto", "none"):
            return {}  # auto is the default, which some models refuse to be told; "none" cannot be said
        if mode not in ("required", "named", "answer"):
            raise InvalidRequest(f"'tool_choice' has an unknown value: {mode[:64]}.", param="tool_choice")
        if thinking or self._abilities.get("forced_tool") is False:
            applied.translate("response_format" if mode == "answer" else "tool_choice")
            return {}
        if mode == "required":
            return {"any": {}}
        return {"tool": {"name": self._plan.names.native(name or self._plan.answer)}}

    def _one_at_a_time(self, applied: Applied, *, chosen: bool) -> None:
        if not self._abilities.get("parallel_switch"):
            applied.drop("parallel_tool_calls")
            return
        kind = {} if chosen else {"type": "auto"}
        applied.put("additionalModelRequestFields.tool_choice", {**kind, "disable_parallel_tool_use": True})
        applied.translate("parallel_tool_calls")


def cache_point(mark: Any, abilities: Mapping[str, Any]) -> Json:
    """A cachePoint block for a `cache_control` mark; its ttl only where the model knows ttls."""
    ttl = mark.get("ttl") if isinstance(mark, dict) else None
    if abilities.get("cache_ttl") and ttl in ("5m", "1h"):
        return {"cachePoint": {"type": "default", "ttl": ttl}}
    return CACHE_POINT


def _name(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    return str(function.get("name") or "") if isinstance(function, dict) else ""
