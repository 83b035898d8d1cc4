"""Any reasonable request, as sent to any family, is one that the demo's independent model of the API accepts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.demo.anthropic_rules import check
from tests.plugins.anthropic.anthropic_support import USER, build

FAMILIES = [
    *(
        "claude-3-haiku-20240307",
        "claude-sonnet-4-0",
        "claude-opus-4-1-20250805",
        "claude-sonnet-4-5",
        "claude-opus-4-5",
    ),
    *("claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-5", "claude-fable-5", "claude-fable-5-1"),
]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 1}, "b": {"type": "string", "format": "color"}},
    "required": ["a"],
}
MARK = {"type": "ephemeral"}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}}


def calls(*ids: str) -> dict[str, Any]:
    made = [{"id": one, "type": "function", "function": {"name": "f", "arguments": '{"a":1}{'}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": made}


TURNS = st.sampled_from(
    [
        [USER],
        [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": MARK}], "cache_control": MARK}],
        [{"role": "system", "content": "late", "cache_control": MARK}],
        [{"role": "assistant", "content": "said"}],
        [{"role": "assistant", "content": " "}],
        [calls("a", "b"), {"role": "tool", "tool_call_id": "b", "content": "2", "cache_control": MARK}],
        [calls("ü ü"), {"role": "tool", "tool_call_id": "ü ü", "content": ""}],
        [{"role": "tool", "tool_call_id": "zz", "content": "orphan"}],
    ]
)
REQUESTS = st.fixed_dictionaries(
    {"messages": st.lists(TURNS, max_size=6).map(lambda turns: [*(one for turn in turns for one in turn), USER])},
    optional={
        "temperature": st.sampled_from([0, 0.5, 1, 1.7]),
        "top_p": st.sampled_from([0.3, 0.95, 1]),
        "top_k": st.just(5),
        "max_tokens": st.sampled_from([1, 500, 2000, 90_000, 500_000]),
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
        "thinking": st.sampled_from([{"type": "enabled", "budget_tokens": 2000}, {"type": "disabled"}]),
        "tools": st.sampled_from([[tool("f")], [tool("f", strict=True), tool("a.b")]]),
        "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "f"}}]),
        "parallel_tool_calls": st.booleans(),
        "response_format": st.sampled_from(
            [
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
                {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "maxItems": 3}}},
            ]
        ),
        "stop": st.sampled_from(["END", ["a", " "]]),
        "cache_control": st.just(MARK),
        "service_tier": st.just("default"),
        "user": st.just("u-1"),
        "stream": st.booleans(),
        "web_search_options": st.just({"search_context_size": "low"}),
    },
)


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
@given(REQUESTS, st.sampled_from(FAMILIES))
@settings(max_examples=120, deadline=None)
def test_the_api_accepts_what_is_sent(version, body, family):
    if "tools" not in body and isinstance(body.get("tool_choice"), dict):
        del body["tool_choice"]  # a tool that is not there is refused
    request = build(family, {"options": {"api_version": version}}, **body)
    check(json.loads(request.body), version)
    assert set(request.dropped) | set(request.translated) <= {*body, "cache_control"}
