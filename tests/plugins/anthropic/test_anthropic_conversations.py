"""Whole conversations: recorded ones, and any that chance makes, keep the provider's rules."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.anthropic import PROVIDER
from tests import corpus
from tests.plugins.anthropic.anthropic_support import USER, chat, sent, target
from tests.plugins.anthropic.conversations import BUDGET, NEW, PNG, TOOL, calls, result, said, system, text
from tests.plugins.anthropic.official import assert_official


def accepted(case):
    body = (case.get("request") or {}).get("body")
    return isinstance(body, dict) and isinstance(body.get("messages"), list) and case["response"]["status"] == 200


@pytest.mark.parametrize("case", [case for case in corpus.cases("anthropic") if case.marks or accepted(*case.values)])
def test_a_recorded_native_request_survives_as_parts_and_native_object(case):
    body = case["request"]["body"]
    tools = {"tools": body["tools"]} if "tools" in body else {}
    ours = sent(
        body["model"],
        **tools,
        max_tokens=body["max_tokens"],
        messages=[USER],
        anthropic={k: v for k, v in body.items() if k not in ("model", "stream", "messages", "tools")},
    )
    for name, value in body.items():
        if name not in ("messages", "stream"):
            assert ours[name] == value


PARTS = st.one_of(
    st.builds(text, st.sampled_from(["", " ", "a", "ü", "\n"])),
    st.just({"type": "image_url", "image_url": {"url": PNG}}),
    st.just({"type": "refusal", "refusal": "no"}),
)
CONTENT = st.one_of(st.none(), st.sampled_from(["", " ", "x", "y "]), st.lists(PARTS, max_size=3))
IDS = st.sampled_from(["a", "b", "a b", "ü", "", "x" * 200])
THOUGHTS = st.lists(
    st.sampled_from(
        [
            {"type": "thinking", "thinking": "t", "signature": "s"},
            {"type": "thinking", "thinking": "unsigned"},
            {"type": "redacted_thinking", "data": "d"},
        ]
    ),
    max_size=2,
)
MESSAGES = st.lists(
    st.one_of(
        st.builds(lambda c: {"role": "user", "content": c}, CONTENT),
        st.builds(lambda c: {"role": "system", "content": c}, st.sampled_from(["", "s", [text("t")]])),
        st.builds(
            lambda c, t: said(c if c is None or isinstance(c, str) else "z", thinking_blocks=t), CONTENT, THOUGHTS
        ),
        st.builds(lambda ids, t: calls(*ids, thinking_blocks=t), st.lists(IDS, min_size=1, max_size=3), THOUGHTS),
        st.builds(result, IDS, CONTENT),
    ),
    min_size=1,
    max_size=9,
)


def assert_ordered(body: dict[str, Any]) -> None:
    """The provider's rules of order, each with the 400 that breaking it brings."""
    turns = body["messages"]
    assert turns[0]["role"] == "user"
    seen: set[str] = set()
    for place, turn in enumerate(turns):
        kinds = [block["type"] for block in turn["content"]]
        assert kinds
        if place:
            assert turn["role"] != turns[place - 1]["role"]
        if turn["role"] == "system":
            assert turns[place - 1]["role"] == "user"
            assert place + 1 == len(turns) or turns[place + 1]["role"] == "assistant"
        assert all(block["text"].strip() for block in turn["content"] if block["type"] == "text")
        order = {"thinking": 0, "redacted_thinking": 0, "tool_result": 0, "tool_use": 2}
        assert kinds == sorted(kinds, key=lambda kind: order.get(kind, 1))
        uses = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
        assert not seen & set(uses)
        assert len(set(uses)) == len(uses)
        seen |= set(uses)
        assert all(re.fullmatch("[a-zA-Z0-9_-]+", one) for one in uses)
        after = turns[place + 1]["content"] if place + 1 < len(turns) else []
        answered = [block["tool_use_id"] for block in after if block["type"] == "tool_result"]
        assert answered == uses
    last = turns[-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        assert last["content"][-1]["text"] == last["content"][-1]["text"].rstrip()


@given(MESSAGES, st.sampled_from([NEW, BUDGET]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_conversation_keeps_the_providers_order_peer_bug_18(messages, family, thinking):
    asked = {"reasoning_effort": "low"} if thinking else {}
    envelope = chat(messages=messages, tools=[TOOL], **asked)
    before = orjson.dumps(envelope.parsed())
    request = PROVIDER.chat.build_request(envelope, target(family))
    assert orjson.dumps(envelope.parsed()) == before
    assert (
        request.body == PROVIDER.chat.build_request(chat(messages=messages, tools=[TOOL], **asked), target(family)).body
    )
    body = json.loads(request.body)
    assert_ordered(body)
    if family == BUDGET:
        assert_official(body)


TURN = st.sampled_from(
    [
        [USER],
        [system("later"), said(), USER],
        [said("a"), USER],
        [calls("a", content="look"), result("a")],
        [calls("a", "b b"), result("b b"), result("a"), USER],
        [said(""), {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}],
    ]
)


@given(
    st.lists(TURN, max_size=4), TURN.filter(lambda turn: turn[0]["role"] == "assistant"), st.sampled_from([NEW, BUDGET])
)
@settings(max_examples=100, deadline=None)
def test_appending_a_turn_keeps_the_prefix_byte_for_byte_peer_bug_7(turns, more, family):
    first = [system("S"), USER, *(message for turn in turns for message in turn)]
    short = sent(family, messages=first, tools=[TOOL])
    longer = sent(family, messages=[*first, *more], tools=[TOOL])
    assert longer["messages"][: len(short["messages"])] == short["messages"]
    assert {**longer, "messages": 0} == {**short, "messages": 0}
