"""The rules of the four formats, called directly: what no SDK would send, and what a wrong translation would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from upstreams import demo

from gateway.demo import anthropic_rules, bedrock_rules, google_rules, openai_rules
from gateway.demo.wire import Refused

Run = Callable[[Any], Any]
SAID: Any = {"role": "user", "content": "x"}
BLOCK: Any = {"type": "text", "text": "x"}
MARKED = {**BLOCK, "cache_control": {"type": "ephemeral"}}
SCHEMA: Any = {"type": "object"}
TOOL: Any = {"name": "f", "input_schema": SCHEMA}
THINKING = {"type": "adaptive"}
CALL: Any = {"type": "tool_use", "id": "t", "name": "f", "input": {}}

ANTHROPIC: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 1, "version": "2026-10-21"}, "temperature: Extra inputs are not permitted"),
    ({"tools": [{"name": "f", "input_schema": {**SCHEMA, "anyOf": []}}]}, "anyOf at the top level"),
    ({"thinking": THINKING, "top_p": 0.5}, "top_p"),
    ({"thinking": THINKING, "top_k": 5}, "top_k"),
    ({"tools": [TOOL, TOOL]}, "unique"),
    ({"model": "claude-sonnet-5-5", "tools": [TOOL], "tool_choice": {"type": "any"}}, "does not support"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "not found in provided tools"),
    ({"messages": [SAID, {"role": "assistant", "content": []}, SAID]}, "non-empty content"),
    ({"messages": [SAID, {"role": "assistant", "content": [BLOCK]}], "model": "claude-opus-4-6"}, "prefill"),
    ({"messages": [SAID, {"role": "system", "content": "x"}]}, "'user' or 'assistant'"),
    (
        {"messages": [SAID, {"role": "system", "content": "x"}, SAID], "model": "claude-sonnet-5"},
        "must follow a user turn",
    ),
    ({"messages": [SAID, {"role": "assistant", "content": [CALL, CALL]}, SAID]}, "unique"),
    ({"system": [MARKED] * 5}, "maximum of 4"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"anyOf": [{"oneOf": []}]}}}}, "oneOf"),
    ({"stream": "yes"}, "stream: Input should be a boolean"),
    ({"temperature": "hot"}, "a number"),
    ({"max_tokens": 1.5}, "an integer"),
    ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
]


@pytest.mark.parametrize(("change", "said"), ANTHROPIC)
def test_the_messages_api_refuses(change: dict[str, Any], said: str) -> None:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [SAID], **change}
    with pytest.raises(Refused) as caught:
        anthropic_rules.check(body, body.pop("version", "2023-06-01"))
    assert said in caught.value.message


def test_a_system_message_may_stand_in_the_middle_for_new_models() -> None:
    turns = [SAID, {"role": "system", "content": "x"}, {"role": "assistant", "content": "y"}, SAID]
    anthropic_rules.check({"model": "claude-sonnet-5", "max_tokens": 9, "messages": turns}, "2023-06-01")


HELLO: Any = {"role": "user", "parts": [{"text": "x"}]}
FUNCTION: Any = {"name": "f", "parametersJsonSchema": SCHEMA}


def _called(*names: str) -> Any:
    return {"role": "model", "parts": [{"functionCall": {"name": name, "id": name}} for name in names]}


def _returned(*calls: tuple[str, str]) -> Any:
    parts = [{"functionResponse": {"name": name, "id": call, "response": {}}} for name, call in calls]
    return {"role": "user", "parts": parts}


def _functions(*functions: Any) -> dict[str, Any]:
    return {"tools": [{"functionDeclarations": list(functions)}]}


def _calling(**config: Any) -> dict[str, Any]:
    return {"toolConfig": {"functionCallingConfig": config}}


def _wanted(**config: Any) -> dict[str, Any]:
    return {"generationConfig": {"responseMimeType": "application/json", **config}}


GOOGLE: list[tuple[dict[str, Any], str]] = [
    ({"contents": [HELLO, _called("f", "g"), _returned(("g", "g"), ("f", "f"))]}, "in the order"),
    ({"contents": [HELLO, _called("f"), _returned(("f", "other"))]}, "ids match"),
    ({"contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "a/b", "data": "A"}}]}]}, "Base64"),
    (
        {"contents": [{"role": "user", "parts": [{"text": "x", "inlineData": {"mimeType": "a/b", "data": ""}}]}]},
        "exactly one",
    ),
    (_wanted(thinkingConfig={"thinkingLevel": "LOW"}), "Thinking level"),
    ({**_wanted(thinkingConfig={"thinkingBudget": 0}), "model_": "gemini-2.5-pro"}, "Budget 0"),
    (_wanted(responseSchema={"type": "STRING"}, responseJsonSchema={}), "Only one of"),
    (_functions(FUNCTION, FUNCTION), "Duplicate"),
    (_functions({**FUNCTION, "parameters": {"type": "OBJECT"}}), "Only one of"),
    (_functions({"name": "f", "parameters": {"type": "OBJECT", "required": ["x"]}}), "not defined"),
    ({**_functions(FUNCTION), **_calling(mode="ANY", allowedFunctionNames=["g"])}, "not declared"),
    (_calling(mode="ANY"), "without function declarations"),
    ({**_functions(FUNCTION), "cachedContent": "c"}, "cachedContent"),
    ({"contents": "x"}, "a list"),
    ({"tools": [{"functionDeclarations": [{"name": "f", "parameters": []}]}]}, "an object"),
]


@pytest.mark.parametrize(("change", "said"), GOOGLE)
def test_gemini_refuses(change: dict[str, Any], said: str) -> None:
    body = {"contents": [HELLO], **change}
    with pytest.raises(Refused) as caught:
        google_rules.check(body, body.pop("model_", "gemini-2.5-flash"))
    assert said in caught.value.message


TURN: Any = {"role": "user", "content": [{"text": "x"}]}
SPEC: Any = {"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}}
DOCUMENT: Any = {"document": {"format": "txt", "name": "d", "source": {"bytes": "QQ=="}}}
THOUGHT: Any = {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "t"}}}]}
BEDROCK: list[tuple[dict[str, Any], str]] = [
    ({"model": "x"}, "#: extraneous key [model] is not permitted"),
    ({"messages": [{"role": "user"}]}, "#/messages/0: required key [content] not found"),
    ({"messages": [{"role": "user", "content": "x"}]}, "#/messages/0/content: expected type: a list"),
    ({"messages": [{"role": "user", "content": [{"text": "x", "type": "text"}]}]}, "extraneous key [type]"),
    ({"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "*"}}}]}]}, "base64"),
    ({"messages": [{"role": "user", "content": [DOCUMENT]}]}, "text block is required"),
    ({"messages": [{"role": "user", "content": [DOCUMENT, DOCUMENT, {"text": "x"}]}]}, "unique"),
    ({"messages": [TURN, THOUGHT, TURN], "model_": "amazon.nova-pro-v1:0"}, "reasoning content"),
    ({"toolConfig": {"tools": [SPEC, SPEC]}}, "duplicate tool names"),
    ({"toolConfig": {"tools": [SPEC], "toolChoice": {"tool": {"name": "g"}}}}, "not in toolConfig"),
    ({"toolConfig": {"tools": [SPEC], "toolChoice": {"none": {}}}}, "extraneous key [none]"),
    (
        {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{"}}}}},
        "not valid JSON",
    ),
]


@pytest.mark.parametrize(("change", "said"), BEDROCK)
def test_bedrock_refuses(change: dict[str, Any], said: str) -> None:
    body = {"messages": [TURN], **change}
    with pytest.raises(Refused) as caught:
        bedrock_rules.check(body, body.pop("model_", "anthropic.claude-sonnet-4-5-v1:0"))
    assert said in caught.value.message


STRICT: Any = {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}
FILE: Any = {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}
OPENAI: list[tuple[str, dict[str, Any], str]] = [
    ("openai", {"model": None}, "'model'"),
    ("openai", {"messages": "x"}, "messages"),
    ("openai", {"messages": [{"role": "user"}]}, "messages.0.content"),
    ("openai", {"top_logprobs": 2}, "logprobs"),
    ("openai", {"model": "o3", "logprobs": True}, "logprobs"),
    ("openai", {"stream": 1}, "a boolean"),
    ("openai", {"temperature": True}, "a number"),
    ("openai", {"response_format": {}}, "response_format.type"),
    ("fireworks", STRICT, "field: 'strict'"),
    ("fireworks", FILE, "'file'"),
    ("xai", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "'custom'"),
]


@pytest.mark.parametrize(("flavour", "change", "said"), OPENAI)
def test_openai_likes_refuse(flavour: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as caught:
        openai_rules.check({"model": "m", "messages": [SAID], **change}, flavour)
    assert said in caught.value.message


def test_anthropic_wants_its_version(run: Run) -> None:
    async def main() -> tuple[int, str]:
        async with (
            demo() as upstream,
            aiohttp.ClientSession() as session,
            session.post(upstream.url("anthropic") + "/v1/messages", json={}) as response,
        ):
            return response.status, await response.text()

    status, text = run(main())
    assert status == 400
    assert "anthropic-version" in text
