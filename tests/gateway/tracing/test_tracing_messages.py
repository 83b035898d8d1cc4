"""What was said, as the conventions have it: bounded, and without the data of pictures and files."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.envelope import open_envelope
from gateway.tracing import names
from gateway.tracing.heard import Choice, Heard
from gateway.tracing.messages import ALL_MOST, TEXT_MOST, content


def told(messages: Any, heard: Heard | None = None, **more: Any) -> dict[str, Any]:
    chat = open_envelope(orjson.dumps({"model": "m", "messages": messages, **more}))
    return {name: orjson.loads(text) for name, text in content(chat, heard or Heard()).items()}


def test_every_sort_of_block_has_its_part() -> None:
    blocks = [
        {"type": "text", "text": "T"},
        {"type": "image_url", "image_url": {"url": "https://pictures.test/a.png?signature=secret"}},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "image_url", "image_url": None},
        {"type": "image_url", "image_url": "https://pictures.test/b.png"},
        "no block",
    ]
    ((message,),) = told([{"role": "user", "content": blocks}]).values()
    assert message["parts"] == [
        {"type": "text", "content": "T"},
        {"type": "uri", "modality": "image", "uri": "https://pictures.test/a.png"},
        {"type": "blob", "modality": "image", "mime_type": "image/jpeg"},
        {"type": "input_audio"},
        {"type": "uri", "modality": "image", "uri": ""},
        {"type": "uri", "modality": "image", "uri": "https://pictures.test/b.png"},
    ]


def test_a_tools_result_of_several_texts_is_one() -> None:
    said = [{"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "a"}, {"text": "b"}]}]
    assert told(said)[names.INPUT][0]["parts"] == [{"type": "tool_call_response", "id": "c", "response": "ab"}]


def test_thoughts_and_calls_of_an_answer_are_parts() -> None:
    choice = Choice(text=["Hi"], thought=["hm"], reason="tool_calls")
    choice.add({"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]})
    (answer,) = told([], Heard(choices={0: choice}))[names.OUTPUT]
    assert [part["type"] for part in answer["parts"]] == ["reasoning", "text", "tool_call"]
    assert answer["finish_reason"] == "tool_call"


def test_odd_tools_and_calls_cost_nothing_but_themselves() -> None:
    choice = Choice()
    calls = [{"index": [1], "function": "f"}, {"function": {"name": "g", "arguments": {"a": 1}}}, {"function": [2]}]
    choice.add({"tool_calls": calls})
    found = told(
        [{"role": "assistant", "tool_calls": calls}],
        Heard(choices={0: choice}),
        tools=[{"function": "x"}, {"function": {}}],
    )
    assert [part["name"] for part in found[names.INPUT][0]["parts"]] == [None, "g", None]
    assert [part["arguments"] for part in found[names.OUTPUT][0]["parts"]] == ["", '{"a":1}', ""]
    assert found[names.TOOLS] == [{"type": "function"}] * 2


def test_an_answer_with_a_gap_is_not_told() -> None:
    assert names.OUTPUT not in told([], Heard(choices={0: Choice(text=["Hi"])}, whole=False))


def test_long_texts_are_cut_and_too_many_left_out() -> None:
    long = "x" * (TEXT_MOST + 1)
    (message,) = told([{"role": "user", "content": long}])[names.INPUT]
    assert message["parts"][0]["content"] == "x" * TEXT_MOST + "…"
    assert names.INPUT not in told([{"role": "user", "content": long}] * (ALL_MOST // TEXT_MOST + 1))
