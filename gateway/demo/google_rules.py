"""What Gemini accepts: proto3 JSON with known names only, and its rules for conversations."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.demo.answers import canonical, seal
from gateway.demo.shapes import (
    Misfit,
    Shape,
    anything,
    either,
    filled,
    flag,
    integer,
    listing,
    mapping,
    number,
    one_of,
    record,
    text,
    union,
)
from gateway.demo.turns import current
from gateway.demo.wire import Refused
from gateway.hub import Json

_SNAKE = re.compile(r"_([a-z])")
_FREE = frozenset(("args", "response", "parametersJsonSchema", "responseJsonSchema", "labels"))
SENTINEL = "skip_thought_signature_validator"


def camel(value: Any) -> Any:
    """Keys in camelCase, as snake_case is accepted too, and without nulls; not inside what is free JSON."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    renamed = {_SNAKE.sub(lambda found: found[1].upper(), name): each for name, each in value.items()}
    return {name: _inside(name, each) for name, each in renamed.items() if each is not None}


def _inside(name: str, value: Any) -> Any:
    if name in _FREE:
        return value
    if name == "properties" and isinstance(value, dict):
        return {key: camel(each) for key, each in value.items()}
    return camel(value)


def _bytes(value: Any, path: str) -> None:
    text(value, path)
    try:
        decoded(value)
    except binascii.Error as error:
        raise Misfit("value", path, detail="Base64 decoding failed") from error


def decoded(value: str) -> bytes:
    """Base64 in either alphabet, padded or not; the sentinel is taken in the clear, too."""
    if value == SENTINEL:
        return value.encode()
    plain = value.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _name(value: Any, path: str) -> None:
    text(value, path)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}", value):
        raise Misfit("value", path, detail="Invalid function name")


_blob = record({"mimeType": filled, "data": _bytes}, {"displayName": text})
_call = record({"name": filled}, {"id": text, "args": mapping})
_result = record({"name": filled, "response": mapping}, {"id": text, "parts": listing(mapping)})
_part = union(
    {
        "text": text,
        "inlineData": _blob,
        "fileData": record({"fileUri": filled}, {"mimeType": text, "displayName": text}),
        "functionCall": _call,
        "functionResponse": _result,
        **dict.fromkeys(("executableCode", "codeExecutionResult", "toolCall", "toolResponse"), mapping),
    },
    {"thought": flag, "thoughtSignature": _bytes, "videoMetadata": mapping, "mediaResolution": anything},
)


def _one_or_more(item: Shape) -> Shape:
    """A repeated field takes a single value as well."""
    return either(item, listing(item, 1))


_content = record({"parts": listing(_part)}, {"role": one_of("user", "model", "function")})

KINDS = ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")


def _schema(value: Any, path: str) -> None:
    """The proto Schema: a closed list of keywords."""
    record({}, _SCHEMA)(value, path)


def _named_schemas(value: Any, path: str) -> None:
    mapping(value, path)
    for name, each in value.items():
        _schema(each, f"{path}.{name}")


_SCHEMA: dict[str, Shape] = {
    "type": one_of(*KINDS, *(kind.lower() for kind in KINDS)),
    **dict.fromkeys(("format", "title", "description", "pattern"), text),
    "nullable": flag,
    "enum": listing(filled),
    "items": _schema,
    "anyOf": listing(_schema),
    "properties": _named_schemas,
    **dict.fromkeys(("required", "propertyOrdering"), listing(text)),
    **dict.fromkeys(("minimum", "maximum", "default", "example", "additionalProperties", "ref", "defs"), anything),
    **dict.fromkeys(
        ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"), either(integer(0), text)
    ),
}


_declaration = record(
    {"name": _name},
    {
        "description": text,
        "parameters": _schema,
        "parametersJsonSchema": mapping,
        "behavior": text,
        "response": anything,
        "responseJsonSchema": anything,
    },
)
_tool = record(
    {},
    {
        "functionDeclarations": listing(_declaration, 1),
        **dict.fromkeys(
            ("googleSearch", "codeExecution", "urlContext", "googleMaps", "computerUse", "fileSearch"), mapping
        ),
    },
)
_calling = record({}, {"mode": one_of("AUTO", "ANY", "NONE", "VALIDATED"), "allowedFunctionNames": listing(filled)})
_thinking = record(
    {},
    {
        "includeThoughts": flag,
        "thinkingBudget": integer(-1),
        "thinkingLevel": one_of("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"),
    },
)
_generation = record(
    {},
    {
        "temperature": number(0, 2),
        "topP": number(0, 1),
        "topK": number(1, 1000),
        "candidateCount": integer(1, 8),
        "maxOutputTokens": integer(1),
        "stopSequences": listing(filled, 0, 5),
        "seed": integer(-(2**31), 2**31 - 1),
        "responseLogprobs": flag,
        "logprobs": integer(0, 20),
        "presencePenalty": number(-2, 2),
        "frequencyPenalty": number(-2, 2),
        "responseMimeType": one_of("text/plain", "application/json", "text/x.enum"),
        "responseSchema": _schema,
        "responseJsonSchema": mapping,
        "responseModalities": listing(one_of("TEXT", "IMAGE", "AUDIO")),
        "thinkingConfig": _thinking,
        "mediaResolution": text,
        "speechConfig": mapping,
    },
)
_safety = record({"category": filled, "threshold": filled}, {"method": text})
_BODY = record(
    {},
    {
        "contents": listing(_content),
        "systemInstruction": record({"parts": _one_or_more(_part)}, {"role": text}),
        "tools": listing(_tool),
        "toolConfig": record(
            {},
            {"functionCallingConfig": _calling, "retrievalConfig": mapping, "includeServerSideToolInvocations": flag},
        ),
        "model": text,
        "safetySettings": listing(_safety),
        "generationConfig": _generation,
        "cachedContent": text,
        "labels": mapping,
        "serviceTier": one_of("flex", "standard", "priority"),
    },
)
_BAD = "INVALID_ARGUMENT"
_OLD = re.compile(r"gemini-[12](\.|-)")


def signs(model: str) -> bool:
    """Does this model sign its function calls, and give them ids (Gemini 3 and later)?"""
    return not _OLD.search(model)


def spoken(content: Json) -> bool:
    """Did the user say this, and not a tool?"""
    answers = any("functionResponse" in part for part in content["parts"])
    return content.get("role", "user") == "user" and not answers


def calling(body: Json) -> Json:
    """How functions may be called; empty when nothing is said of it."""
    return (body.get("toolConfig") or {}).get("functionCallingConfig") or {}


def check(body: Json, model: str) -> None:
    """Raise Refused where the API would answer 400."""
    try:
        _BODY(body, "")
    except Misfit as misfit:
        raise Refused(_words(misfit), kind=_BAD) from misfit
    contents = body.get("contents") or []
    if not contents:
        raise _invalid("contents is not specified")
    _check_parts(contents)
    _check_order(contents, model)
    _check_generation(body, model)
    _check_tools(body)
    if signs(model):
        _check_signatures(contents)


def _invalid(message: str) -> Refused:
    return Refused(f"* GenerateContentRequest: {message}", kind=_BAD)


def _words(misfit: Misfit) -> str:
    where = re.sub(r"\.(\d+)", r"[\1]", _snake(misfit.path))
    if misfit.kind == "extra":
        place = f" at '{where}'" if where else ""
        return f'Invalid JSON payload received. Unknown name "{misfit.name}"{place}: Cannot find field.'
    if misfit.kind == "missing":
        return f"* GenerateContentRequest.{where}.{_snake(misfit.name)}: must be specified"
    return f"Invalid value at '{where}': {misfit.detail}"


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)


def _check_parts(contents: Sequence[Json]) -> None:
    for index, content in enumerate(contents):
        if not content["parts"]:
            raise _invalid(f"contents[{index}].parts must not be empty")
        for at, part in enumerate(content["parts"]):
            if part.get("text") == "" and "thoughtSignature" not in part:
                raise _invalid(f"contents[{index}].parts[{at}].data: required oneof field 'data' must have one field")


def _check_order(contents: Sequence[Json], model: str) -> None:
    before = ""
    calls: list[Json] = []
    for content in contents:
        role = content.get("role", "user")
        results = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
        made = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        if made and (role != "model" or before not in ("user", "function")):
            raise Refused("Please ensure that function call turn comes immediately after a user turn", kind=_BAD)
        # Gemini 2.5 was seen to take an answer in plain text.
        if len(results) != len(calls) and (results or signs(model)):
            message = "the number of function response parts is equal to the number of function call parts"
            raise Refused(f"Please ensure that {message} of the function call turn.", kind=_BAD)
        if [result["name"] for result in results] != [call["name"] for call in calls][: len(results)]:
            raise Refused("Please ensure that function responses are in the order of the function calls.", kind=_BAD)
        if [result.get("id") for result in results] != [call.get("id") for call in calls][: len(results)]:
            raise Refused("Please ensure that function response ids match the ids of the function calls.", kind=_BAD)
        calls, before = made, role
    if calls:
        raise Refused("Please ensure that a function call turn is followed by a function response turn.", kind=_BAD)


def _check_generation(body: Json, model: str) -> None:
    wanted = body.get("generationConfig") or {}
    thinking = wanted.get("thinkingConfig") or {}
    if "thinkingBudget" in thinking and "thinkingLevel" in thinking:
        raise Refused("You can only set only one of thinking budget and thinking level.", kind=_BAD)
    if "thinkingLevel" in thinking and not signs(model):
        raise Refused("Thinking level is not supported for this model.", kind=_BAD)
    if thinking.get("thinkingBudget") == 0 and "2.5-pro" in model:
        raise Refused("Budget 0 is invalid. This model only works in thinking mode.", kind=_BAD)
    if signs(model) and "gemini" in model and {"presencePenalty", "frequencyPenalty"} & wanted.keys():
        raise Refused("Penalty is not enabled for this model", kind=_BAD)
    if {"responseSchema", "responseJsonSchema"} & wanted.keys() and wanted.get(
        "responseMimeType"
    ) != "application/json":
        raise Refused("responseSchema needs responseMimeType application/json", kind=_BAD)
    if "responseSchema" in wanted and "responseJsonSchema" in wanted:
        raise Refused("Only one of responseSchema and responseJsonSchema may be set.", kind=_BAD)
    if "logprobs" in wanted and not wanted.get("responseLogprobs"):
        raise Refused("logprobs needs responseLogprobs to be true", kind=_BAD)


def _check_tools(body: Json) -> None:
    tools = body.get("tools") or []
    functions = [each for tool in tools for each in tool.get("functionDeclarations", ())]
    names = [function["name"] for function in functions]
    if len(set(names)) != len(names):
        raise Refused("Duplicate function declaration found", kind=_BAD)
    for function in functions:
        if "parameters" in function and "parametersJsonSchema" in function:
            raise Refused("Only one of parameters and parametersJsonSchema may be set.", kind=_BAD)
        check_proto_objects(function.get("parameters"))
    wanted = calling(body)
    allowed = wanted.get("allowedFunctionNames") or []
    if allowed and wanted.get("mode") not in ("ANY", "VALIDATED"):
        raise Refused("Allowed function names should be set only when mode is ANY or VALIDATED.", kind=_BAD)
    if strange := [name for name in allowed if name not in names]:
        raise Refused(f"Allowed function names are not declared: {', '.join(strange)}", kind=_BAD)
    if wanted.get("mode") == "ANY" and not functions:
        raise Refused("Function calling config is set without function declarations.", kind=_BAD)
    if body.get("cachedContent") and (tools or "systemInstruction" in body or "toolConfig" in body):
        raise Refused("cachedContent cannot be used with systemInstruction, tools or toolConfig.", kind=_BAD)


def check_proto_objects(schema: Mapping[str, Any] | None) -> None:
    """An object of the proto Schema may require only the properties that it has."""
    if not schema:
        return
    properties = schema.get("properties")
    if strange := [name for name in schema.get("required") or () if name not in (properties or {})]:
        raise Refused(f"required[0]: property is not defined: {strange[0]}", kind=_BAD)
    for each in (properties or {}).values():
        check_proto_objects(each)
    check_proto_objects(schema.get("items"))


def signature(call: Mapping[str, Any]) -> str:
    """What the demo signs a function call with."""
    return seal("google", str(call["name"]), canonical(call.get("args") or {}))


def _check_signatures(contents: Sequence[Json]) -> None:
    """In the current turn the first call of each step carries its signature, unchanged."""
    _, turn = current(contents, spoken)
    for index, content in enumerate(contents):
        parts = [part for part in content["parts"] if "functionCall" in part]
        for at, part in enumerate(parts):
            given = part.get("thoughtSignature")
            accepted = (SENTINEL.encode(), decoded(signature(part["functionCall"])))
            if given is not None and decoded(given) not in accepted:
                raise Refused("Thought signature is not valid.", kind=_BAD)
            if given is None and at == 0 and index >= len(contents) - len(turn):
                message = "Function call is missing a thought_signature in functionCall parts."
                name = part["functionCall"]["name"]
                raise Refused(f"{message} Function call `{name}`, position {index + 1}.", kind=_BAD)
