"""Messages as turns: who speaks, in which order, and where system messages go."""

from __future__ import annotations

import pytest

from tests.plugins.anthropic.anthropic_support import USER, sent
from tests.plugins.anthropic.conversations import BUDGET, NEW, PNG, TOOL, calls, result, said, system, text


def test_leading_system_messages_are_the_system_prompt_one_block_each():
    body = sent(messages=[system("A"), {"role": "developer", "content": [text("B"), text("")]}, system(" "), USER])
    assert body["system"] == [text("A"), text("B")]


def test_a_late_system_message_keeps_its_place_peer_bug_7():
    messages = [USER, system("now short"), said(), USER]
    assert [turn["role"] for turn in sent(NEW, messages=messages)["messages"]] == [
        "user",
        "system",
        "assistant",
        "user",
    ]
    old = sent(BUDGET, messages=messages)["messages"]
    assert old[0]["content"] == [text("hi"), text("<system>now short</system>")]
    assert "system" not in sent(NEW, messages=messages)


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([USER, system("x")], ["user", "system"]),
        ([USER, system("x"), USER], ["user"]),
        ([USER, said(), system("x"), USER], ["user", "assistant", "user"]),
        ([USER, said(), system("x")], ["user", "assistant", "user"]),
        ([USER, system("x"), system("y"), said(), USER], ["user", "system", "assistant", "user"]),
        ([USER, system(""), said(), USER], ["user", "assistant", "user"]),
        ([USER, calls("a"), result("a"), system("x")], ["user", "assistant", "user", "system"]),
    ],
)
def test_a_late_system_message_is_one_only_where_the_provider_allows_it(messages, roles):
    assert [turn["role"] for turn in sent(NEW, messages=messages)["messages"]] == roles


def test_a_request_of_system_messages_alone_has_a_user_peer_bug_12():
    body = sent(messages=[system("Be kind")])
    assert body["system"] == [text("Be kind")]
    assert body["messages"] == [{"role": "user", "content": [text("(continue)")]}]


def test_a_history_that_begins_with_the_assistant_gets_a_user_first():
    assert [turn["role"] for turn in sent(messages=[said(), USER])["messages"]] == ["user", "assistant", "user"]


def test_blank_texts_are_left_out_and_blank_turns_filled():
    body = sent(
        messages=[{"role": "user", "content": [text(" "), text("a")]}, said(""), {"role": "user", "content": ""}]
    )
    assert body["messages"] == [
        {"role": "user", "content": [text("a")]},
        {"role": "assistant", "content": [text("(no content)")]},
        {"role": "user", "content": [text("(continue)")]},
    ]


def test_a_prefill_does_not_end_in_white_space():
    assert sent(messages=[USER, said("So: \n")])["messages"][-1] == {"role": "assistant", "content": [text("So:")]}
    assert sent(messages=[USER, said("")])["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_a_prefill_that_thoughts_were_merged_behind_does_not_end_in_white_space_either():
    thought = {"type": "thinking", "thinking": "t", "signature": "s"}
    messages = [USER, said("So: "), said(None, thinking_blocks=[thought])]
    assert sent(messages=messages)["messages"][-1]["content"] == [thought, text("So:")]


def test_results_come_first_and_calls_last():
    body = sent(messages=[USER, calls("a", content="I look"), USER, result("a"), USER], tools=[TOOL])
    assert [[block["type"] for block in turn["content"]] for turn in body["messages"]] == [
        ["text"],
        ["text", "tool_use"],
        ["tool_result", "text", "text"],
    ]


def test_a_result_may_hold_an_image_or_nothing():
    image = {"type": "image_url", "image_url": {"url": PNG}}
    body = sent(
        messages=[USER, calls("a", "b", "c"), result("a", [text("see"), image]), result("b", ""), result("c", [])]
    )
    first, second, third = body["messages"][2]["content"]
    assert [block["type"] for block in first["content"]] == ["text", "image"]
    assert "content" not in second
    assert "content" not in third


def test_a_missing_result_is_an_error_result():
    body = sent(messages=[USER, calls("a"), USER])
    assert body["messages"][2]["content"][0] == {
        "type": "tool_result",
        "tool_use_id": "a",
        "content": "(no result)",
        "is_error": True,
    }


def test_a_refusal_of_the_assistant_is_its_text():
    assert sent(messages=[USER, said(None, refusal="No."), USER])["messages"][1]["content"] == [text("No.")]
