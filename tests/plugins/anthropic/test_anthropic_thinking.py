"""How much Claude is asked to think, by what the client says and what its family takes."""

from __future__ import annotations

import json

import pytest

from tests.plugins.anthropic.anthropic_support import build, sent
from tests.plugins.anthropic.conversations import ALWAYS, BUDGET, NEW, OLD, SIX


@pytest.mark.parametrize(
    ("family", "body", "thinking", "effort"),
    [
        (SIX, {"reasoning_effort": "minimal"}, {"type": "adaptive", "display": "summarized"}, "low"),
        (SIX, {"reasoning_effort": "xhigh"}, {"type": "adaptive", "display": "summarized"}, "high"),
        (SIX, {"reasoning_effort": "max"}, {"type": "adaptive", "display": "summarized"}, "max"),
        (NEW, {"reasoning_effort": "xhigh"}, {"type": "adaptive", "display": "summarized"}, "xhigh"),
        (NEW, {"reasoning_effort": "none"}, {"type": "disabled"}, None),
        (NEW, {"reasoning": {"enabled": False, "effort": "max"}}, {"type": "disabled"}, "high"),
        (ALWAYS, {"reasoning_effort": "none"}, None, "low"),
        (BUDGET, {"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 1024}, None),
        (BUDGET, {"reasoning_effort": "medium"}, {"type": "enabled", "budget_tokens": 2048}, None),
        (BUDGET, {"reasoning_effort": "high"}, {"type": "enabled", "budget_tokens": 4096}, None),
        (BUDGET, {"reasoning_effort": "max"}, {"type": "enabled", "budget_tokens": 16384}, None),
        (BUDGET, {"reasoning_effort": "none"}, None, None),
        ("claude-opus-4-5", {"reasoning_effort": "max"}, {"type": "enabled", "budget_tokens": 16384}, "high"),
        (
            BUDGET,
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            {"type": "enabled", "budget_tokens": 3000},
            None,
        ),
        (
            SIX,
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            {"type": "enabled", "budget_tokens": 3000},
            None,
        ),
        (
            NEW,
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            {"type": "adaptive", "display": "summarized"},
            "medium",
        ),
        (
            NEW,
            {"thinking": {"type": "enabled", "budget_tokens": 50000, "display": "omitted"}},
            {"type": "adaptive", "display": "omitted"},
            "max",
        ),
        (NEW, {"thinking": {"type": "adaptive"}, "reasoning_effort": "high"}, {"type": "adaptive"}, "high"),
        (NEW, {"thinking": {"type": "between_tools"}}, {"type": "between_tools"}, None),
        (BUDGET, {"thinking": {"type": "adaptive"}}, {"type": "enabled", "budget_tokens": 4096}, None),
        (BUDGET, {"thinking": {"type": "between_tools"}}, {"type": "between_tools"}, None),
        (BUDGET, {"thinking": {"type": "disabled"}}, None, None),
        (BUDGET, {"reasoning": {"max_tokens": 5000}}, {"type": "enabled", "budget_tokens": 5000}, None),
        (BUDGET, {"reasoning": {"enabled": True}}, {"type": "enabled", "budget_tokens": 2048}, None),
        (BUDGET, {"reasoning": {"effort": "high"}}, {"type": "enabled", "budget_tokens": 4096}, None),
        (
            BUDGET,
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}},
            {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
            None,
        ),
        (BUDGET, {"reasoning": {}}, None, None),
    ],
)
def test_thinking_follows_the_family(family, body, thinking, effort):
    request = build(family, **body)
    native = json.loads(request.body)
    assert native.get("thinking") == thinking
    assert native.get("output_config", {}).get("effort") == effort
    assert request.dropped == ()


@pytest.mark.parametrize(
    ("family", "body", "dropped"),
    [
        (OLD, {"reasoning_effort": "high"}, "reasoning_effort"),
        (BUDGET, {"reasoning_effort": "extreme"}, "reasoning_effort"),
        (BUDGET, {"reasoning": "yes"}, "reasoning"),
        (BUDGET, {"thinking": {"budget_tokens": 5}}, "thinking"),
        (BUDGET, {"thinking": {"type": "enabled", "budget_tokens": 100}}, "thinking"),
        (OLD, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
    ],
)
def test_thinking_that_cannot_be_is_named(family, body, dropped):
    request = build(family, **body)
    assert request.dropped == (dropped,)
    assert "thinking" not in json.loads(request.body)


def test_the_budget_gets_room_beside_the_answer():
    request = build(BUDGET, max_tokens=300, reasoning_effort="high")
    body = json.loads(request.body)
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (4396, 4096)
    assert "max_tokens" in request.translated
    body = sent(BUDGET, max_completion_tokens=63000, thinking={"type": "enabled", "budget_tokens": 63500})
    assert (body["max_tokens"], "thinking" in body) == (64000, False)
    full = build(BUDGET, max_tokens=64000, thinking={"type": "enabled", "budget_tokens": 64000})
    assert full.dropped == ("thinking",)
    assert "max_tokens" not in full.translated


def test_sampling_steps_back_while_thinking_except_a_top_p_that_was_recorded_as_taken():
    request = build(BUDGET, reasoning_effort="low", temperature=0.5, top_k=3, top_p=0.5)
    assert set(request.dropped) == {"temperature", "top_k", "top_p"}
    assert sent(BUDGET, reasoning_effort="low", top_p=0.95)["top_p"] == 0.95
    clamped = build(BUDGET, reasoning_effort="low", temperature=1.5)
    assert "temperature" in clamped.dropped
    assert "temperature" not in clamped.translated
