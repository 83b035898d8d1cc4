from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.hub import Json
from tests.plugins.bedrock.rules import check
from tests.plugins.bedrock.support import ASK, CALL, CLAUDE, LLAMA, NOVA, RESULT, WEATHER, build, built, says, target


@pytest.mark.parametrize(
    ("choice", "model", "native"),
    [
        ("auto", CLAUDE, None),
        ("required", CLAUDE, {"any": {}}),
        ("required", LLAMA, None),
        ({"type": "function", "function": {"name": "weather"}}, NOVA, {"tool": {"name": "weather"}}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WEATHER]}}, NOVA, {"any": {}}),
    ],
)
def test_a_tool_choice_becomes_converses(choice: Any, model: str, native: Any) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    request = built(target(model), tools=[WEATHER, other], tool_choice=choice)
    body = orjson.loads(request.body)
    check(body)
    assert body["toolConfig"].get("toolChoice") == native
    assert ("tool_choice" in request.translated) == (native is None and choice != "auto")
    allowed = isinstance(choice, dict) and choice["type"] == "allowed_tools"
    assert len(body["toolConfig"]["tools"]) == (1 if allowed else 2)


def test_no_tool_choice_leaves_the_tools_out_unless_the_history_needs_them() -> None:
    assert "toolConfig" not in build(tools=[WEATHER], tool_choice="none")
    body = build(
        tools=[WEATHER], tool_choice="none", messages=[*ASK, says("assistant", None, tool_calls=[CALL]), RESULT]
    )
    assert "toolChoice" not in body["toolConfig"]


def test_a_forced_tool_is_free_while_claude_thinks() -> None:
    request = built(target(), tools=[WEATHER], tool_choice="required", reasoning_effort="low")
    assert "toolChoice" not in orjson.loads(request.body)["toolConfig"]
    assert "tool_choice" in request.translated


def test_calls_one_at_a_time_are_claudes() -> None:
    fields = build(tools=[WEATHER], parallel_tool_calls=False)["additionalModelRequestFields"]
    assert fields == {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    assert built(target(NOVA), tools=[WEATHER], parallel_tool_calls=True).dropped == ()


def test_names_that_do_not_fit_are_rewritten_everywhere_and_apart() -> None:
    names = ["a.b", "a/b", "ü" * 80]
    tools = [{"type": "function", "function": {"name": name, "description": " "}} for name in names]
    call = {"id": "c", "type": "function", "function": {"name": "a/b", "arguments": "{}"}}
    body = build(
        tools=tools,
        tool_choice={"type": "function", "function": {"name": "a/b"}},
        messages=[*ASK, says("assistant", None, tool_calls=[call])],
    )
    check(body)
    natives = [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]]
    assert natives[:2] == ["a_b", "a_b_2"]
    assert body["toolConfig"]["toolChoice"] == {"tool": {"name": "a_b_2"}}
    assert body["messages"][1]["content"][0]["toolUse"]["name"] == "a_b_2"


def test_references_in_a_schema_are_unfolded() -> None:
    schema = {
        "$schema": "x",
        "$defs": {"c": {"type": "string"}},
        "properties": {"a": {"$ref": "#/$defs/c", "title": "A"}},
    }
    found = build(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])["toolConfig"]["tools"][
        0
    ]
    assert found["toolSpec"]["inputSchema"]["json"] == {
        "properties": {"a": {"type": "string", "title": "A"}},
        "type": "object",
    }


def test_a_schema_that_unfolds_without_end_keeps_its_references() -> None:
    circle = {
        "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}}},
        "properties": {"n": {"$ref": "#/$defs/n"}},
    }
    doubling: Json = {"$defs": {"l0": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/l40"}}}
    for n in range(40):
        doubling["$defs"][f"l{n + 1}"] = {"anyOf": [{"$ref": f"#/$defs/l{n}"}, {"$ref": f"#/$defs/l{n}"}]}
    nowhere = {"properties": {"x": {"$ref": "https://a.test/schema"}, "y": {"$ref": "#/$defs/none"}}}
    for schema in (circle, doubling, nowhere):
        found = build(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])["toolConfig"][
            "tools"
        ][0]
        assert found["toolSpec"]["inputSchema"]["json"] == {**schema, "type": "object"}


def test_strict_goes_to_models_that_take_it() -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    spec = build(tools=[strict])["toolConfig"]["tools"][0]["toolSpec"]
    assert spec["strict"] is True
    assert spec["inputSchema"]["json"]["additionalProperties"] is False
    assert "strict" not in build(NOVA, tools=[strict])["toolConfig"]["tools"][0]["toolSpec"]


def test_nova_searches_the_web() -> None:
    body = build(NOVA, web_search_options={})
    check(body)
    assert body["toolConfig"] == {"tools": [{"systemTool": {"name": "nova_grounding"}}]}
    own = build(NOVA, tools=[{"systemTool": {"name": "nova_code_interpreter"}}])
    assert own["toolConfig"]["tools"] == [{"systemTool": {"name": "nova_code_interpreter"}}]


def test_no_tool_choice_beside_an_emulated_schema_leaves_the_schema_alone() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    config = build(NOVA, tools=[WEATHER], tool_choice="none", response_format=wanted)["toolConfig"]
    assert [tool["toolSpec"]["name"] for tool in config["tools"]] == ["json_answer"]
    assert config["toolChoice"] == {"tool": {"name": "json_answer"}}


def test_a_required_choice_stays_so_beside_an_emulated_schema() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    config = build(NOVA, tools=[WEATHER], tool_choice="required", response_format=wanted)["toolConfig"]
    assert config["toolChoice"] == {"any": {}}
    forced = {"type": "function", "function": {"name": "weather"}}
    config = build(NOVA, tools=[WEATHER], tool_choice=forced, response_format=wanted)["toolConfig"]
    assert config["toolChoice"] == {"tool": {"name": "weather"}}


def test_a_history_with_tools_brings_them_back_beside_a_web_search_too() -> None:
    body = build(NOVA, web_search_options={}, messages=[*ASK, says("assistant", None, tool_calls=[CALL]), RESULT])
    check(body)
    assert [next(iter(tool)) for tool in body["toolConfig"]["tools"]] == ["systemTool", "toolSpec"]
