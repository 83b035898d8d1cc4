"""Tools, the choice among them, and answers in JSON as Claude is asked for them."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.errors import InvalidRequest
from gateway.hub import Json
from plugins.anthropic.blocks import marked
from plugins.anthropic.job import Job, json_tool, wanted_schema, wrapped
from plugins.anthropic.schemas import enforceable, strict_fits, tool_schema

# The provider's own fields of a tool, which a client may set beside OpenAI's.
_EXTRAS = ("defer_loading", "eager_input_streaming", "input_examples", "allowed_callers")
_SEARCHES = {"low": 1, "medium": 5, "high": 10}
_ANY_JSON = "Answer with one JSON object and nothing else: no prose around it, no code fence."


def add_tools(job: Job, system: list[Json], thinking: bool) -> None:
    """Put `tools`, `tool_choice` and `output_config.format` into the body; JSON may ask for a system sentence."""
    tools = _allowed(_client_tools(job), job)
    tools += _web_search(job)
    forced = _add_format(job, tools, system)
    if tools:
        job.applied.values["tools"] = tools
    choice = _choice(job, bool(tools), forced)
    if choice is None:
        return
    if choice["type"] in ("any", "tool") and (thinking or not job.can("forced_tool")):
        choice = {"type": "auto"}
        if job.asked("tool_choice") is not None:
            job.applied.translate("tool_choice")
        if forced:
            system.append({"type": "text", "text": f"Give your final answer by calling the tool {forced}."})
    if choice["type"] != "none" and (forced or job.asked("parallel_tool_calls") is False):
        choice["disable_parallel_tool_use"] = True
        if job.asked("parallel_tool_calls") is False:
            job.applied.translate("parallel_tool_calls")
    if choice != {"type": "auto"} or job.asked("tool_choice") is not None:
        job.applied.values["tool_choice"] = choice


def _client_tools(job: Job) -> list[Json]:
    given = job.asked("tools") or ()
    if not isinstance(given, list | tuple):
        raise InvalidRequest("'tools' must be a list.", param="tools")
    tools = [_tool(tool, job) for tool in given]
    strict = [enforceable(tool["input_schema"]) for tool in tools if tool.get("strict")]
    if not strict:
        return tools
    if job.can("structured") and strict_fits(strict):
        schemas = iter(strict)
        return [{**tool, "input_schema": next(schemas)} if tool.get("strict") else tool for tool in tools]
    job.applied.translate("tools")
    return [{key: value for key, value in tool.items() if key != "strict"} for tool in tools]


def _tool(tool: Any, job: Job) -> Json:
    if not isinstance(tool, dict):
        raise InvalidRequest("An item of 'tools' must be an object.", param="tools")
    kind = tool.get("type")
    if kind not in ("function", "custom") or (kind == "custom" and "custom" not in tool):
        if "name" in tool:
            return dict(tool)  # the provider's own: a server tool, or one in its own form
        raise InvalidRequest(f"This provider knows no tool of type '{str(kind)[:64]}'.", param="tools")
    body = tool.get(kind)
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        raise InvalidRequest(f"A tool of type {kind} needs a '{kind}' with a name.", param="tools")
    native = _custom(body) if kind == "custom" else _function(body)
    extras = {name: source[name] for source in (tool, body) for name in _EXTRAS if source.get(name) is not None}
    return marked(marked({"name": job.names.native(body["name"]), **native, **extras}, body), tool)


def _function(body: Json) -> Json:
    schema = tool_schema(body.get("parameters"))
    described = {"description": body["description"]} if body.get("description") else {}
    strict = {"strict": True} if body.get("strict") is True else {}
    return {**described, "input_schema": schema, **strict}


def _custom(body: Json) -> Json:
    """A tool that takes free text: one string, the grammar told in words."""
    words = [str(body.get("description") or "")]
    wanted = body.get("format") or {}
    grammar = wanted.get("grammar") if isinstance(wanted, dict) else None
    if isinstance(grammar, dict):
        words.append(f"The input must follow this {grammar.get('syntax')} grammar:\n{grammar.get('definition')}")
    described = {"description": text} if (text := "\n\n".join(filter(None, words))) else {}
    schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return {**described, "input_schema": schema}


def _allowed(tools: list[Json], job: Job) -> list[Json]:
    """Only the tools that an `allowed_tools` choice names."""
    choice = job.asked("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools
    items = _subset(choice).get("tools")
    listed = items if isinstance(items, list) else []
    names = {job.names.native(str(_named(item))) for item in listed if isinstance(item, dict)}
    job.applied.translate("tool_choice")
    return [tool for tool in tools if str(tool.get("name")) in names]


def _subset(choice: Json) -> Json:
    inner = choice.get("allowed_tools")
    return inner if isinstance(inner, dict) else {}


def _named(item: Json) -> Any:
    inner = item.get(str(item.get("type")))
    return inner.get("name") if isinstance(inner, dict) else item.get("name")


def _web_search(job: Job) -> list[Json]:
    options = job.asked("web_search_options")
    if options is None:
        return []
    if not isinstance(options, dict):
        job.applied.drop("web_search_options", "is no object")
        return []
    job.applied.translate("web_search_options")
    tool: Json = {"type": "web_search_20250305", "name": "web_search"}
    size = options.get("search_context_size")
    if isinstance(size, str) and size in _SEARCHES:
        tool["max_uses"] = _SEARCHES[size]
    location = options.get("user_location")
    if isinstance(location, dict):
        inner = location.get("approximate")
        place = inner if isinstance(inner, dict) else location
        names = ("city", "country", "region", "timezone")
        tool["user_location"] = {"type": "approximate", **{name: place[name] for name in names if place.get(name)}}
    return [tool]


def _add_format(job: Job, tools: list[Json], system: list[Json]) -> str:
    """Ask for the answer's shape; return the name of the tool that stands for it, if there is one."""
    wanted = wanted_schema(job.request)
    if wanted is None:
        shape = job.asked("response_format")
        if isinstance(shape, dict) and shape.get("type") in ("json_object", "json_schema"):
            system.append({"type": "text", "text": _ANY_JSON})
            job.applied.translate("response_format")
        elif shape is not None and shape != {"type": "text"}:
            raise InvalidRequest("This provider knows no such 'response_format'.", param="response_format")
        return ""
    job.applied.translate("response_format" if job.asked("response_format") is not None else "guided_json")
    schema = wanted[1]
    name = json_tool(job.request, job.target)
    if not name:
        job.applied.put("output_config.format", {"type": "json_schema", "schema": enforceable(schema)})
        return ""
    if wrapped(schema):
        schema = {"type": "object", "properties": {"values": schema}, "required": ["values"]}
    tools.append({"name": name, "description": "Respond with a JSON object", "input_schema": tool_schema(schema)})
    return name


def _choice(job: Job, some: bool, forced: str) -> Json | None:
    """The choice that the client made, or that its JSON schema makes."""
    asked = job.asked("tool_choice")
    if not some:
        if asked not in (None, "none"):
            job.applied.drop("tool_choice", "needs tools")
        return None
    choice = _native_choice(asked, job)
    if choice["type"] == "tool" and choice["name"] not in [tool.get("name") for tool in job.applied.values["tools"]]:
        raise InvalidRequest("'tool_choice' names a tool that is not among 'tools'.", param="tool_choice")
    if forced and choice["type"] in ("auto", "none"):
        others = choice["type"] == "auto" and len(job.applied.values["tools"]) > 1
        return {"type": "any"} if others else {"type": "tool", "name": forced}
    return choice


_MODES = {"auto": "auto", "required": "any", "any": "any", "none": "none"}


def _native_choice(asked: Any, job: Job) -> Json:
    if asked is None:
        return {"type": "auto"}
    if isinstance(asked, str) and asked in _MODES:
        return {"type": _MODES[asked]}
    if isinstance(asked, dict):
        kind = asked.get("type")
        if kind == "allowed_tools":
            return {"type": "any" if _subset(asked).get("mode") == "required" else "auto"}
        if kind in ("function", "custom", "tool") and isinstance(name := _named(asked), str):
            return {"type": "tool", "name": job.names.native(name)}
        if isinstance(kind, str) and kind in _MODES:
            return {"type": _MODES[kind]}
    shown = orjson.dumps(asked).decode()[:100]
    raise InvalidRequest(f"'tool_choice' is none that this provider knows: {shown}.", param="tool_choice")
