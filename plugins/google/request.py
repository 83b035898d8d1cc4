"""A chat completion request as a GenerateContent request."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.contract import ChatRequest, Target, UpstreamRequest
from gateway.conversation import modern
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.fields import MARKS, SPEAKER, Applied, apply, schema_object, tell_losses
from gateway.hub import Json
from plugins.google.address import url_of
from plugins.google.contents import conversation
from plugins.google.names import names_in
from plugins.google.parameters import table
from plugins.google.schema import json_schema, openapi
from plugins.google.thinking import thinking_config
from plugins.google.tools import put_tools

MAX_STOPS = 5
_CONFIG = "generationConfig."


def build_request(chat: ChatRequest, target: Target) -> UpstreamRequest:
    """The request for Gemini. Raises InvalidRequest for what cannot be sent, UnsupportedParameter by policy."""
    asked = chat.parsed()
    for name in ("tools", "functions"):
        if not isinstance(asked.get(name) or [], list):
            raise InvalidRequest(f"'{name}' must be a list.", param=name)
    request = modern(asked)
    applied = apply(table(target), asked, target)
    tell_losses(asked, applied, (SPEAKER, MARKS))
    names = names_in(request)
    said = conversation(request.get("messages"), names, target)
    body = applied.values
    if said.system:
        body["systemInstruction"] = {"parts": said.system}
    body["contents"] = said.turns
    put_tools(request, names, target, applied)
    kept = {name: value for name, value in request.items() if name not in target.without}
    for put in (_put_limit, _put_stop, _put_logprobs, _put_format, _put_modalities, _put_thinking, _put_parallel):
        put(kept, target, applied)
    if said.resolution:
        applied.put(f"{_CONFIG}mediaResolution", said.resolution)
    _check_cached(body)
    own = request.get("google")
    return UpstreamRequest(
        url=url_of(target, stream=chat.stream),
        body=orjson.dumps(_merged(body, own) if isinstance(own, dict) else body),
        headers={"content-type": "application/json"},
        dropped=tuple(applied.dropped),
        translated=tuple(dict.fromkeys(_given_name(name, asked) for name in applied.translated)),
    )


def _given_name(name: str, asked: Json) -> str:
    """The name that the client used for what `modern` renamed."""
    return name if name in asked else {"tool_choice": "function_call", "tools": "functions"}.get(name, name)


def _put_limit(request: Json, target: Target, applied: Applied) -> None:
    limit = request.get("max_tokens")
    if limit is None:
        return
    if (newer := request.get("max_completion_tokens")) is None:
        applied.put(f"{_CONFIG}maxOutputTokens", limit)
    elif newer != limit:
        applied.drop("max_tokens", "is overridden by 'max_completion_tokens'")


def _put_stop(request: Json, target: Target, applied: Applied) -> None:
    stop = request.get("stop")
    texts = [text for text in (stop if isinstance(stop, list) else [stop]) if text]
    if not texts:
        return
    if len(texts) > MAX_STOPS:
        applied.drop("stop", f"may hold {MAX_STOPS} sequences at most on this provider")
    elif texts != stop:
        applied.translate("stop")
    applied.put(f"{_CONFIG}stopSequences", texts[:MAX_STOPS])


def _put_logprobs(request: Json, target: Target, applied: Applied) -> None:
    top = request.get("top_logprobs")
    if request.get("logprobs") is not True:
        if request.get("logprobs"):
            applied.drop("logprobs", "must be true or false")
        if top:
            applied.drop("top_logprobs", "needs 'logprobs': true")
        return
    applied.put(f"{_CONFIG}responseLogprobs", True)
    if top:
        applied.put(f"{_CONFIG}logprobs", top)


def _put_format(request: Json, target: Target, applied: Applied) -> None:
    name = "response_format"
    wanted = request.get(name)
    if wanted is None and request.get("guided_json") is not None:
        name = "guided_json"
        wanted = {"type": "json_schema", "json_schema": {"schema": schema_object(name, request[name])}}
    if wanted is None or (kind := _kind(wanted)) == "text":
        return
    if request.get("tools") and not target.abilities.get("schema_tools"):
        raise UnsupportedParameter(name, "cannot stand beside tools on this model")
    applied.translate(name)
    applied.put(f"{_CONFIG}responseMimeType", "application/json")
    if kind == "json_schema":
        described = wanted.get("json_schema")
        schema = described.get("schema", {}) if isinstance(described, dict) else None
        if not isinstance(schema, dict):
            raise InvalidRequest("'response_format.json_schema.schema' must be an object.", param=name)
        if target.abilities.get("schemas") == "openapi":
            applied.put(f"{_CONFIG}responseSchema", openapi(schema) or {"type": "OBJECT"})
        else:
            applied.put(f"{_CONFIG}responseJsonSchema", json_schema(schema))


def _kind(wanted: Any) -> str:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise UnsupportedParameter("response_format", "must be text, json_object or json_schema on this provider")
    return str(kind)


def _put_modalities(request: Json, target: Target, applied: Applied) -> None:
    wanted = request.get("modalities") or ["text"]
    if not isinstance(wanted, list) or not set(map(str, wanted)) <= {"text", "audio", "image"}:
        raise UnsupportedParameter("modalities", "may hold text, image and audio on this provider")
    if "audio" in wanted:
        _put_speech(request, target, applied)
    elif "image" in wanted:
        applied.put(f"{_CONFIG}responseModalities", [str(modality).upper() for modality in wanted])
        applied.translate("modalities")


def _put_speech(request: Json, target: Target, applied: Applied) -> None:
    if not target.abilities.get("speech"):
        raise UnsupportedParameter("modalities", "may not hold audio: this model does not speak")
    audio = request.get("audio") or {}
    if not isinstance(audio, dict) or audio.get("format") not in (None, "pcm16"):
        raise UnsupportedParameter("audio", "must have the format pcm16: Gemini speaks no other")
    # Models that speak do nothing else; OpenAI's own ask for text and audio together.
    applied.put(f"{_CONFIG}responseModalities", ["AUDIO"])
    applied.translate("modalities")
    if voice := audio.get("voice"):
        config = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}}
        applied.put(f"{_CONFIG}speechConfig", config)
        applied.translate("audio")


def _put_thinking(request: Json, target: Target, applied: Applied) -> None:
    if config := thinking_config(request, target, applied):
        applied.put(f"{_CONFIG}thinkingConfig", config)
    extra = request.get("extra_body")
    google = extra.get("google") if isinstance(extra, dict) else None
    if not isinstance(google, dict):
        return
    if isinstance(google.get("thinking_config"), dict):
        applied.put(f"{_CONFIG}thinkingConfig", google["thinking_config"])
    if google.get("cached_content"):
        applied.put("cachedContent", google["cached_content"])


def _put_parallel(request: Json, target: Target, applied: Applied) -> None:
    if request.get("parallel_tool_calls") is False:
        applied.drop("parallel_tool_calls", "cannot be switched off on this provider")


def _check_cached(body: Json) -> None:
    """A cache holds the instruction and the tools already: Google refuses to be told them twice."""
    if "cachedContent" in body and (body.keys() & {"systemInstruction", "tools", "toolConfig"}):
        raise UnsupportedParameter("cached_content", "cannot stand beside system messages or tools: the cache has them")


def _merged(body: Json, own: Json) -> Json:
    """The client's own words for Google over ours, objects key by key."""
    out = dict(body)
    for name, value in own.items():
        mine = out.get(name)
        out[name] = _merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return out
