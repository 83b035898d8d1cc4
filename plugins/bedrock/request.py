"""A chat request as a Converse request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson

from gateway.contract import ChatRequest, Target, UpstreamRequest
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.fields import DETAIL, MARKS, MARKS_TTL, SPEAKER, STRICT_TOOLS, Applied, apply, tell_losses
from gateway.hub import Json
from plugins.bedrock.messages import Conversation, cache_places, limit_cache_points
from plugins.bedrock.reasoning import Thinking, make_room, read_wish
from plugins.bedrock.schemas import inlined, restricted
from plugins.bedrock.table import NATIVE, meaningful, table
from plugins.bedrock.tools import LEGACY, ToolConfig, ToolPlan, cache_point, plan_tools, response_schema, understood

JSON_ONLY = "Answer with one JSON object and nothing else: no text around it, no code fence."
MAX_MODEL = 2048
_PLAIN_MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_ARN = re.compile(
    r"arn:aws(?:-[a-z]+)*:(?:bedrock|sagemaker):(?P<region>[a-z0-9-]{1,20}):(?:[0-9]{12})?:"
    r"[a-z-]+(?:/[A-Za-z0-9][A-Za-z0-9_.:-]*)+"
)
_AWS_HOST = re.compile(r"//bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
_EXTRA = "additionalModelRequestFields"
_OURS = (NATIVE, LEGACY)


def build_request(chat: ChatRequest, target: Target) -> UpstreamRequest:
    """The Converse call for a chat request; raises for what Converse cannot express."""
    body, applied = _body(chat, target)
    action = "converse-stream" if chat.stream else "converse"
    headers = {"content-type": "application/json"}
    headers["accept"] = "application/vnd.amazon.eventstream" if chat.stream else "application/json"
    region = region_of(target)
    base = target.base_url.replace("{region}", region).rstrip("/")
    return UpstreamRequest(
        f"{base}/model/{model_segment(target.model)}/{action}",
        orjson.dumps(body),
        headers,
        dropped=tuple(applied.dropped),
        translated=tuple(applied.translated),
        scope=f"{region}/bedrock",
    )


def model_segment(model: str) -> str:
    """A model id or ARN as one path segment; raises InvalidRequest for what is neither."""
    if not is_model(model):
        raise InvalidRequest("The model name is no Bedrock model id or ARN.", code="model_not_found", param="model")
    return quote(model, safe="")


def is_model(model: str) -> bool:
    """Is this a model id, an inference profile's id or an ARN?"""
    return len(model) <= MAX_MODEL and bool(_PLAIN_MODEL.fullmatch(model) or _ARN.fullmatch(model))


def region_of(target: Target) -> str:
    """The region to sign for: as configured, else the ARN's, else the host's."""
    if region := target.options.get("region"):
        return str(region)
    found = _ARN.fullmatch(target.model)
    host = _AWS_HOST.search(target.base_url)
    return (found and found["region"]) or (host and host[1]) or "us-east-1"


def _body(chat: ChatRequest, target: Target) -> tuple[Json, Applied]:
    given = chat.parsed()
    extra = given.get(NATIVE)
    if extra is not None and not isinstance(extra, dict):
        raise InvalidRequest(f"'{NATIVE}' must be an object of Converse fields.", param=NATIVE)
    request = understood(meaningful(given, target))
    applied = apply(table(target), {name: value for name, value in request.items() if name not in _OURS}, target)
    for name in ("functions", "function_call", "guided_json"):
        if given.get(name) is not None and name not in applied.dropped:
            applied.translate(name)
    tell_losses(given, applied, _lacks(target))
    request = {name: value for name, value in request.items() if name not in applied.dropped}
    plan = plan_tools(request, target)
    talk = Conversation(request, target, plan)
    body: Json = {"messages": talk.messages, **({"system": talk.system} if talk.system else {})}
    thinking = _think(request, target, applied, talk)
    ToolConfig(request, target, plan, talk.used).write(applied, thinking=thinking)
    _format(request, body, target, applied, plan)
    _tokens(request, target, applied)
    _sampling(request, target, applied, thinking=thinking)
    if beta := _betas(chat, target):
        applied.put(f"{_EXTRA}.anthropic_beta", beta)
    body |= _filled(applied.values)
    if make_room(body, int(target.abilities.get("max_output") or 0)):
        applied.translate("max_completion_tokens" if "max_completion_tokens" in request else "max_tokens")
    if control := request.get("cache_control"):
        body["messages"][-1]["content"].append(cache_point(control, target.abilities))
    if limit_cache_points(cache_places(body)):
        applied.drop(MARKS, "stands in more places than this provider takes")
    return merged(body, extra or {}), applied


def _lacks(target: Target) -> list[str]:
    can = target.abilities.get
    marks = [] if can("cache") and can("cache_ttl") else [MARKS_TTL] if can("cache") else [MARKS]
    return [SPEAKER, DETAIL, *marks, *([] if can("strict_tools") else [STRICT_TOOLS])]


def _filled(values: Json) -> Json:
    """The fields without empty lists and objects; Converse refuses some of them."""
    inside = {name: _filled(value) if name == "inferenceConfig" else value for name, value in values.items()}
    return {name: value for name, value in inside.items() if value not in ([], {})}


def _think(request: Json, target: Target, applied: Applied, talk: Conversation) -> bool:
    thinking = Thinking(target.abilities, applied)
    wish = read_wish(request)
    if wish is not None and not wish.off and thinking.needs_replay and talk.lacks_thinking():
        # Claude refuses to think on in a tool loop whose thinking the client did not bring back.
        applied.drop(wish.name, "needs the thinking that this tool loop began with")
        return False
    return thinking.write(wish)


def _format(request: Json, body: Json, target: Target, applied: Applied, plan: ToolPlan) -> None:
    wanted = request.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if wanted is None or kind == "text":
        return
    if kind == "json_object":
        body.setdefault("system", []).append({"text": JSON_ONLY})
        applied.translate("response_format")
    elif kind != "json_schema":
        raise UnsupportedParameter("response_format", f"has the type '{str(kind)[:64]}', which Converse lacks")
    elif plan.answer:
        if target.abilities.get("tools") is False:
            raise UnsupportedParameter("response_format", "needs tools or structured output, which this model lacks")
        applied.translate("response_format")
        if "toolChoice" not in applied.values["toolConfig"]:
            text = f"Give your final answer by calling the tool {plan.names.native(plan.answer)}."
            body.setdefault("system", []).append({"text": text})
    else:
        applied.put("outputConfig.textFormat", _text_format(request["response_format"]))
        applied.translate("response_format")


def _text_format(wanted: Mapping[str, Any]) -> Json:
    schema = restricted(inlined(response_schema(wanted)))
    about = {name: wanted["json_schema"].get(name) for name in ("name", "description")}
    definition = {"schema": orjson.dumps(schema).decode(), **{k: v for k, v in about.items() if isinstance(v, str)}}
    return {"type": "json_schema", "structure": {"jsonSchema": definition}}


def _tokens(request: Json, target: Target, applied: Applied) -> None:
    name = "max_completion_tokens" if request.get("max_completion_tokens") is not None else "max_tokens"
    wanted = request.get(name)
    abilities = target.abilities
    if wanted is None:
        if default := abilities.get("default_output"):
            applied.put("inferenceConfig.maxTokens", default)
        return
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise InvalidRequest(f"'{name}' must be a positive integer.", param=name)
    most = max(wanted, abilities.get("min_tokens") or 1)
    most = min(most, abilities.get("max_output") or most)
    if most != wanted:
        applied.translate(name)
    applied.put("inferenceConfig.maxTokens", most)


def _sampling(request: Json, target: Target, applied: Applied, *, thinking: bool) -> None:
    """Take out what this model refuses together: anything beside thinking, top_p beside temperature."""
    config = applied.values.get("inferenceConfig", {})
    if thinking:
        for name, native in (("temperature", "temperature"), ("top_p", "topP")):
            if config.pop(native, 1) != 1:
                applied.drop(name, "cannot be set while the model thinks")
        if request.get("top_k") is not None and applied.values.get(_EXTRA, {}).pop("top_k", None) is not None:
            applied.drop("top_k", "cannot be set while the model thinks")
    if target.abilities.get("sampling") == "either" and {"temperature", "topP"} <= set(config):
        del config["topP"]
        applied.drop("top_p", "cannot be set beside temperature")


def _betas(chat: ChatRequest, target: Target) -> list[str]:
    if not target.abilities.get("claude"):
        return []
    names = (name.strip() for name in chat.headers.get("anthropic-beta", "").split(","))
    return list(dict.fromkeys(name for name in names if name))


def merged(body: Mapping[str, Any], over: Mapping[str, Any]) -> Json:
    """The body with native fields laid over it, objects merged at every depth."""
    new = dict(body)
    for name, value in over.items():
        old = new.get(name)
        new[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return new
