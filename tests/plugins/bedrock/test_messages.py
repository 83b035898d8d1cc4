from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from gateway.errors import UnsupportedParameter
from gateway.hub import Json
from tests.plugins.bedrock.rules import TOOL_ID, check
from tests.plugins.bedrock.support import (
    ASK,
    CALL,
    CLAUDE,
    LLAMA,
    MARK,
    MISTRAL,
    NOVA,
    OPUS_48,
    PDF,
    PNG,
    POINT,
    RESULT,
    SIGNED,
    SYSTEM,
    WEATHER,
    build,
    built,
    says,
    target,
    turns,
)


def test_neighbours_are_merged_and_blank_texts_left_out() -> None:
    assert turns(says("user", "a"), says("user", ["b", "  "]), says("assistant", ""), says("assistant", "c ")) == [
        {"role": "user", "content": [{"text": "a"}, {"text": "b"}]},
        {"role": "assistant", "content": [{"text": "c"}]},
    ]


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([SYSTEM], ["user"]),
        ([says("assistant", "hello")], ["user", "assistant"]),
        ([says("user", "")], ["user"]),
        ([says("user", "a"), says("assistant", ""), says("user", "b")], ["user", "assistant", "user"]),
    ],
)
def test_a_conversation_begins_with_the_user_and_no_turn_is_empty(messages: list[Json], roles: list[str]) -> None:
    assert [turn["role"] for turn in turns(*messages)] == roles


def test_a_late_system_message_stays_in_its_place() -> None:
    late = [SYSTEM, says("user", "a"), says("system", "Now French"), says("assistant", "b"), says("user", "c")]
    body = build(CLAUDE, messages=late)
    check(body)
    assert body["system"] == [{"text": "Be brief"}]
    assert body["messages"][0]["content"] == [{"text": "a"}, {"text": "<system>Now French</system>"}]
    newer = turns(*late, model=OPUS_48)
    assert newer[1] == {"role": "system", "content": [{"text": "Now French"}]}


@pytest.mark.parametrize("after", [says("user", "x"), says("system", "again")])
def test_a_late_system_message_that_may_not_stand_alone_becomes_user_text(after: Json) -> None:
    found = turns(*ASK, says("system", "Now French"), after, says("user", "y"), model=OPUS_48)
    assert [turn["role"] for turn in found] == ["user"]
    assert {"text": "<system>Now French</system>"} in found[0]["content"]


@pytest.mark.parametrize("model", [CLAUDE, NOVA, OPUS_48])
def test_appending_turns_keeps_the_earlier_ones(model: str) -> None:
    history = [
        *(SYSTEM, says("user", "a"), says("assistant", "b"), says("user", "c"), says("system", "late")),
        *(says("assistant", None, tool_calls=[CALL]), RESULT, says("user", [{"type": "text", "text": "d"}, PDF])),
        *(says("assistant", "e"), says("user", [PDF]), says("assistant", "f"), says("user", "g")),
    ]
    after_user = [n for n, message in enumerate(history, 1) if message["role"] == "assistant" and n > 1]
    whole = turns(*history, model=model)
    for n in after_user:
        if history[n - 1].get("tool_calls"):
            continue
        part = turns(*history[:n], model=model)
        assert whole[: len(part)] == part


def test_results_follow_their_calls_whatever_stood_between() -> None:
    second = {**CALL, "id": "call_b"}
    found = turns(
        *ASK,
        says("assistant", "wait", tool_calls=[CALL, second]),
        says("user", "hurry"),
        {"role": "tool", "tool_call_id": "call_b", "content": ""},
        says("system", "calm"),
        RESULT,
    )
    kinds = [next(iter(block)) for block in found[2]["content"]]
    assert kinds == ["toolResult", "toolResult", "text", "text"]
    assert found[2]["content"][1]["toolResult"]["content"] == [{"text": "(empty)"}]


def test_a_missing_result_is_made_up_as_an_error() -> None:
    result = turns(*ASK, says("assistant", None, tool_calls=[CALL]), says("user", "go on"))[2]["content"][0][
        "toolResult"
    ]
    assert result["status"] == "error"


def test_a_history_with_tools_brings_its_tools_back() -> None:
    body = build(messages=[*ASK, says("assistant", None, tool_calls=[CALL, {**CALL, "id": "b"}]), RESULT])
    check(body)
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["look"]


@pytest.mark.parametrize("arguments", ['{"a":1}{"b":2}', "nonsense", "[1]", None, "", {"a": 1}, "5"])
def test_any_arguments_become_an_object(arguments: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    block = turns(*ASK, says("assistant", None, tool_calls=[call]))[1]["content"][0]
    assert isinstance(block["toolUse"]["input"], dict)


def test_odd_ids_are_rewritten_the_same_way_on_both_sides() -> None:
    for odd in ("ä b", "x" * 65, "", "functions.f:0"):
        loop = [says("assistant", None, tool_calls=[{**CALL, "id": odd}]), {**RESULT, "tool_call_id": odd}]
        _, called, result = turns(*ASK, *loop)
        use_id = called["content"][0]["toolUse"]["toolUseId"]
        assert TOOL_ID.fullmatch(use_id)
        assert result["content"][0]["toolResult"]["toolUseId"] == use_id
        assert result["content"][0]["toolResult"].get("status") is None


def test_mistral_gets_ids_of_nine_letters() -> None:
    loop = [
        says("assistant", None, tool_calls=[CALL, {**CALL, "id": "abcDEF123"}]),
        RESULT,
        {**RESULT, "tool_call_id": "abcDEF123"},
    ]
    found = turns(*ASK, *loop, model=MISTRAL)
    ids = [block["toolUse"]["toolUseId"] for block in found[1]["content"]]
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", use_id) for use_id in ids)
    assert ids[1] == "abcDEF123"
    assert [block["toolResult"]["toolUseId"] for block in found[2]["content"]] == ids


def test_functions_of_old_are_tools() -> None:
    history = [
        *ASK,
        says("assistant", None, function_call={"name": "f", "arguments": "{}"}),
        says("function", "1", name="f"),
    ]
    request = built(
        target(), messages=history, functions=[{"name": "f", "parameters": {}}], function_call={"name": "f"}
    )
    body = orjson.loads(request.body)
    check(body)
    assert body["toolConfig"]["toolChoice"] == {"tool": {"name": "f"}}
    assert {"functions", "function_call"} <= set(request.translated)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:image/jpg;base64,AA==", "jpeg"),
        ("data:image/webp;base64,AA==", "webp"),
        ("data:IMAGE/GIF;base64,AA==", "gif"),
    ],
)
def test_an_image_has_the_format_of_its_media_type(url: str, kind: str) -> None:
    block = turns(says("user", [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}]))[0]["content"][0]
    assert block == {"image": {"format": kind, "source": {"bytes": "AA=="}}}


def test_media_in_s3_are_named_and_not_fetched() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "s3://bucket/a.webp"}},
        {"type": "video_url", "video_url": {"url": "s3://b/c.mov"}},
    ]
    image, video = turns(says("user", parts), model=NOVA)[0]["content"]
    assert image == {"image": {"format": "webp", "source": {"s3Location": {"uri": "s3://bucket/a.webp"}}}}
    assert video["video"]["format"] == "mov"


def test_documents_get_neutral_names_and_a_text_beside_them() -> None:
    content = turns(says("user", [PDF, PDF]))[0]["content"]
    assert [block["document"]["name"] for block in content[:2]] == ["document-1", "document-2"]
    assert "text" in content[2]
    assert "secret" not in str(content)


def test_a_documents_format_comes_from_its_name_or_type() -> None:
    def kind(name: str, media: str) -> str:
        part = {"type": "file", "file": {"filename": name, "file_data": f"data:{media};base64,AA=="}}
        found: str = turns(says("user", [part]))[0]["content"][0]["document"]["format"]
        return found

    assert kind("a.md", "text/plain") == "md"
    assert kind("", "text/csv") == "csv"
    assert kind("b.xlsx", "application/octet-stream") == "xlsx"
    with pytest.raises(UnsupportedParameter):
        kind("a.exe", "application/octet-stream")


def test_audio_goes_to_models_that_hear() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}}
    block = turns(says("user", [part]), model="mistral.voxtral-mini-3b-2507")[0]["content"][0]
    assert block == {"audio": {"format": "mp3", "source": {"bytes": "AA=="}}}


def test_images_in_a_result_stand_beside_it_where_the_model_wants_that() -> None:
    picture = {**RESULT, "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PNG}}]}
    loop = [*ASK, says("assistant", None, tool_calls=[CALL]), picture, says("user", "so?")]
    inside = turns(*loop)[2]["content"]
    assert [next(iter(block)) for block in inside[0]["toolResult"]["content"]] == ["text", "image"]
    beside = turns(*loop, model=MISTRAL)[2]["content"]
    assert [next(iter(block)) for block in beside] == ["toolResult", "image", "text"]


def test_a_cache_point_stands_behind_what_was_marked() -> None:
    body = build(
        NOVA,
        messages=[
            says("system", [{"type": "text", "text": "s", **MARK}]),
            says("user", "a", **MARK),
            says("assistant", None, tool_calls=[CALL]),
            {**RESULT, **MARK},
        ],
        tools=[{**WEATHER, **MARK}],
    )
    check(body)
    assert body["system"] == [{"text": "s"}, POINT]
    assert body["messages"][0]["content"] == [{"text": "a"}, POINT]
    assert body["messages"][2]["content"][1] == POINT
    assert body["toolConfig"]["tools"][1] == POINT


def test_a_cache_points_ttl_goes_to_models_that_know_it() -> None:
    assert {"cachePoint": {"type": "default", "ttl": "1h"}} in turns(says("user", "a", **MARK))[0]["content"]
    assert POINT in turns(says("user", "a", **MARK), model=NOVA)[0]["content"]
    assert "cachePoint" not in str(turns(says("user", "a", **MARK), model=LLAMA))


def test_the_last_four_cache_points_are_kept() -> None:
    parts = [{"type": "text", "text": str(n), **MARK} for n in range(6)]
    content = turns(says("user", parts), model=NOVA)[0]["content"]
    assert [next(iter(block)) for block in content] == ["text", "text", *("text", "cachePoint") * 4]


def test_a_blank_or_thinking_block_gets_no_cache_point() -> None:
    message = says("assistant", [{"type": "text", "text": " ", **MARK}], thinking_blocks=[SIGNED], tool_calls=[CALL])
    assert "cachePoint" not in str(turns(*ASK, message)[1])


def test_automatic_caching_marks_the_end() -> None:
    assert turns(*ASK, model=NOVA, cache_control={"type": "ephemeral"})[-1]["content"][-1] == POINT


@pytest.mark.parametrize("part", [{"type": "image_url", "image_url": {"url": PNG}}, PDF])
def test_a_model_that_cannot_see_is_sent_no_pictures(part: Json) -> None:
    with pytest.raises(UnsupportedParameter):
        build("us.amazon.nova-micro-v1:0", messages=[says("user", [part])])


def test_a_refusal_of_the_past_is_text() -> None:
    assert turns(*ASK, says("assistant", None, refusal="No."))[1]["content"] == [{"text": "No."}]


def test_a_cache_point_never_stands_first_or_behind_thinking() -> None:
    result = {**RESULT, "content": [{"type": "text", "text": " ", **MARK}]}
    content = turns(*ASK, says("assistant", None, tool_calls=[CALL]), result, model=NOVA)[2]["content"]
    assert [next(iter(block)) for block in content] == ["toolResult", "cachePoint"]
    two_marks = says("user", [{"type": "text", "text": "a", **MARK}], **MARK)
    assert turns(two_marks, model=NOVA, cache_control={"type": "ephemeral"})[0]["content"] == [{"text": "a"}, POINT]


def test_a_blank_late_system_message_leaves_no_turn() -> None:
    assert [turn["role"] for turn in turns(*ASK, says("system", " "), model=OPUS_48)] == ["user"]


@pytest.mark.parametrize("messages", [[], ASK])
@pytest.mark.parametrize("model", [CLAUDE, OPUS_48])
def test_a_system_message_holds_text_only(model: str, messages: list[Json]) -> None:
    picture = says("system", [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PNG}}])
    with pytest.raises(UnsupportedParameter):
        build(model, messages=[*messages, picture])
