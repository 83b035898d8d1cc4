"""Tool loops with thinking on: Claude gets its signed thoughts back, whatever fields the client keeps."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from gateway.conversation import MAX_CARRIED
from plugins.anthropic import PROVIDER
from plugins.anthropic.blocks import THOUGHTS
from tests.plugins.anthropic.anthropic_support import USER, accumulated, answer, build, chat, decoded, streamed, target

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
CARRYING = frozenset(("thinking",))
Message = dict[str, Any]


class Claude:
    """The provider's side: it refuses a running tool loop whose last assistant turn lacks the thoughts it gave."""

    def __init__(self, thought: str) -> None:
        self.given: list[list[Message]] = []
        self._thought = thought

    def answer(self, body: Message) -> Message:
        spoken = [turn for turn in body["messages"] if turn["role"] == "assistant"]
        assert len(spoken) == len(self.given)
        if "thinking" in body:
            for turn, thoughts in zip(spoken, self.given, strict=True):
                assert [block for block in turn["content"] if block["type"] in THOUGHTS] == thoughts
                assert turn["content"][: len(thoughts)] == thoughts
        place = len(self.given)
        thoughts = [
            {"type": "thinking", "thinking": f"{place}{self._thought}", "signature": f"Sig+/{place}=="},
            {"type": "redacted_thinking", "data": f"data{place}"},
        ]
        uses = [{"type": "tool_use", "id": f"toolu_{place}_{at}", "name": "f", "input": {}} for at in range(2)]
        self.given.append(thoughts)
        usage = {"input_tokens": 1, "output_tokens": 1}
        return {"model": "c", "content": [*thoughts, *uses], "stop_reason": "tool_use", "usage": usage}


def kept(message: Message) -> Message:
    """A client that sends back all it got."""
    return {name: value for name, value in message.items() if value is not None}


def dropped(message: Message) -> Message:
    """A client that knows the published fields only."""
    calls = [{name: call[name] for name in ("id", "type", "function")} for call in message["tool_calls"]]
    return {"role": message["role"], "content": message["content"], "tool_calls": calls}


def loop(model: str, client: Any, streams: bool, emulate: frozenset[str], thought: str = " hm") -> list[Any]:
    """Three turns of a tool loop; the upstream requests that were made."""
    claude = Claude(thought)
    where = target(model, emulate=emulate)
    history: list[Message] = [USER]
    requests = []
    for _ in range(3):
        asked = {"messages": history, "tools": TOOLS, "reasoning_effort": "low"}
        request = PROVIDER.chat.build_request(chat(**asked), where)
        requests.append(request)
        native = claude.answer(json.loads(request.body))
        made = accumulated(decoded([streamed(native)], where, **asked)) if streams else answer(native, where, **asked)
        message = client(made["choices"][0]["message"])
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "5"} for call in message["tool_calls"]]
        history = [*history, message, *results]
    return requests


FAMILIES = ("claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8", "claude-fable-5-1")


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("client", "emulate"),
    [(kept, frozenset()), (kept, CARRYING), (dropped, CARRYING)],
    ids=["keeps", "keeps-carried", "drops-carried"],
)
def test_the_provider_gets_its_thoughts_back_peer_bug_13(model, streams, client, emulate):
    requests = loop(model, client, streams, emulate)
    assert all("thinking" in json.loads(request.body) for request in requests)
    assert all(request.dropped == () for request in requests)
    bodies = [json.loads(request.body)["messages"] for request in requests]
    assert bodies[1] == bodies[2][: len(bodies[1])]
    assert all(len(block.get("id", "")) < 20 for turn in bodies[2] for block in turn["content"])


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
def test_without_its_thoughts_the_loop_goes_on_without_thinking_and_says_so(streams):
    first, *later = loop("claude-sonnet-4-5", dropped, streams, frozenset())
    assert "thinking" in json.loads(first.body)
    for request in later:
        assert "thinking" not in json.loads(request.body)
        assert request.dropped == ("reasoning_effort",)


def test_thoughts_too_long_to_be_carried_end_the_thinking_of_that_loop():
    dice = random.Random(3)
    long = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz0123456789+/", k=2 * MAX_CARRIED))
    _, *later = loop("claude-sonnet-4-5", dropped, False, CARRYING, long)
    assert all(request.dropped == ("reasoning_effort",) for request in later)
    assert all(len(request.body) < 2000 for request in later)


def assistant(**more: Any) -> Message:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


RESULT = {"role": "tool", "tool_call_id": "a", "content": "5"}
SIGNED = {"type": "thinking", "thinking": "t", "signature": "s"}


@pytest.mark.parametrize(
    ("more", "thoughts"),
    [
        ({"thinking_blocks": [{"index": 0, **SIGNED}]}, [SIGNED]),
        ({"content": [{"type": "text", "text": "x"}, SIGNED]}, [SIGNED]),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "t", "signature": "s"}]}, [SIGNED]),
        (
            {"reasoning_details": [{"type": "reasoning.encrypted", "data": "d"}]},
            [{"type": "redacted_thinking", "data": "d"}],
        ),
        ({"reasoning_content": "unsigned"}, []),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": ""}, "x", {"type": "other"}]}, []),
    ],
)
def test_signed_thoughts_come_first_and_unsigned_ones_stay_away(more, thoughts):
    body = json.loads(build(messages=[USER, assistant(**more), RESULT], tools=TOOLS).body)
    found = body["messages"][1]["content"]
    assert [block for block in found if block["type"] in THOUGHTS] == thoughts
    assert found[: len(thoughts)] == thoughts


def test_a_new_question_after_a_loop_without_thoughts_may_think_again():
    body = json.loads(
        build(
            messages=[USER, assistant(), RESULT, {"role": "assistant", "content": "5"}, USER], reasoning_effort="low"
        ).body
    )
    assert body["thinking"]["type"] == "enabled"


def test_a_prefill_ends_the_thinking():
    request = build(messages=[USER, {"role": "assistant", "content": "So"}], reasoning_effort="low")
    assert request.dropped == ("reasoning_effort",)


def test_a_cache_mark_never_stands_on_a_thought():
    message = {
        "role": "assistant",
        "content": None,
        "thinking_blocks": [SIGNED],
        "cache_control": {"type": "ephemeral"},
    }
    body = json.loads(build(messages=[USER, message, USER]).body)
    assert body["messages"][1]["content"] == [SIGNED]
