"""Conversations in any order become what Gemini takes: alternating turns, each call answered at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.conversation import carry
from gateway.errors import InvalidRequest
from plugins.google.contents import SENTINEL
from tests.plugins.google.samples import accept, built

G25, G3 = "gemini-2.5-flash", "gemini-3-flash-preview"
PNG = "data:image/png;base64,iVBORw0="


def call(name: str, function: str = "f", arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}, **more}


def turns(*messages: Any, model: str = G3) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = built(model, messages=list(messages))["contents"]
    return found


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if len(content) == 1 else list(content)}


def assistant(*calls: Any, content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {})}


def result(name: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": content}


def test_a_late_system_message_stays_in_its_place() -> None:
    body = built(G3, messages=[{"role": "system", "content": "A"}, user("x"), {"role": "system", "content": "B"}])
    assert body["systemInstruction"] == {"parts": [{"text": "A"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "x"}, {"text": "B"}]}]


def test_a_system_message_alone_is_what_the_user_says() -> None:
    body = built(G3, messages=[{"role": "system", "content": "A"}])
    assert body == {"contents": [{"role": "user", "parts": [{"text": "A"}]}]}


def test_gemma_reads_the_system_message_in_the_first_turn() -> None:
    body = built("gemma-3-27b-it", messages=[{"role": "system", "content": "A"}, user("x")])
    assert body == {"contents": [{"role": "user", "parts": [{"text": "A"}, {"text": "x"}]}]}


def test_the_same_role_twice_is_one_turn() -> None:
    found = turns(user("a"), user("b"), assistant(content="c"), assistant(content="d"), user("e"))
    assert [len(turn["parts"]) for turn in found] == [2, 2, 1]


def test_a_conversation_that_the_model_opens_gets_a_user_turn_before() -> None:
    assert turns(assistant(content="Hi"), user("x"))[0] == {"role": "user", "parts": [{"text": " "}]}


@pytest.mark.parametrize("content", ["", None, []])
def test_an_empty_assistant_message_is_no_turn(content: Any) -> None:
    assert turns(user("a"), assistant(content=content), user("b")) == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}
    ]


@pytest.mark.parametrize("content", ["", [], [{"type": "text", "text": ""}]])
def test_an_empty_user_message_is_a_blank(content: Any) -> None:
    assert turns(user(content)) == [{"role": "user", "parts": [{"text": " "}]}]


def test_results_stand_in_the_order_of_their_calls_and_a_missing_one_is_an_error() -> None:
    found = turns(user("a"), assistant(call("x"), call("y"), call("z")), result("z", "3"), user("?"), result("x", "1"))
    responses = [part["functionResponse"] for part in found[2]["parts"] if "functionResponse" in part]
    assert [response["id"] for response in responses] == ["x", "y", "z"]
    assert [next(iter(response["response"])) for response in responses] == ["output", "error", "output"]
    assert found[2]["parts"][-1] == {"text": "?"}


def test_a_result_without_a_call_is_told_as_text() -> None:
    found = turns(user("a"), result("nobody", "42"))
    assert "functionResponse" not in str(found)
    assert "42" in str(found)


@pytest.mark.parametrize(
    ("content", "response"),
    [
        ("text", {"output": "text"}),
        ('{"a":1}', {"a": 1}),
        ("[1]", {"output": "[1]"}),
        ("{broken", {"output": "{broken"}),
        ("", {"output": ""}),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {"output": "ab"}),
    ],
)
def test_a_result_is_an_object(content: Any, response: Any) -> None:
    part = turns(user("a"), assistant(call("x")), result("x", content))[2]["parts"][0]
    assert part["functionResponse"]["response"] == response


def test_an_image_in_a_result_stands_inside_it_since_gemini_3_and_behind_it_before() -> None:
    shown = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PNG}}]
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}}
    messages = (user("a"), assistant(call("x")), result("x", shown))
    assert turns(*messages)[2]["parts"][0]["functionResponse"]["parts"] == [image]
    older = turns(*messages, model=G25)[2]["parts"]
    assert ["functionResponse" in part for part in older] == [True, False]
    assert older[1] == image


@pytest.mark.parametrize("arguments", ["", None, "{}", {}])
def test_no_arguments_are_an_empty_object(arguments: Any) -> None:
    assert turns(user("a"), assistant(call("x", arguments=arguments)))[1]["parts"][0]["functionCall"]["args"] == {}


@pytest.mark.parametrize("arguments", ['{"a":1}{"b":2}', "oops", "[1]"])
def test_arguments_that_are_no_object_are_kept(arguments: str) -> None:
    found = turns(user("a"), assistant(call("x", arguments=arguments)))[1]["parts"][0]["functionCall"]["args"]
    assert found == {"_raw": arguments}


@pytest.mark.parametrize(
    "kept",
    [
        call("x", extra_content={"google": {"thought_signature": "c2ln"}}),
        call("x", provider_specific_fields={"thought_signature": "c2ln"}),
        call(carry("x", {"google": {"thought_signature": "c2ln"}})),
    ],
)
def test_a_signature_comes_back_on_the_same_call(kept: dict[str, Any]) -> None:
    answer = result(kept["id"])
    found = turns(user("a"), assistant(kept, call("y")), answer, result("y"))
    first, second = found[1]["parts"]
    assert first == {"functionCall": {"id": "x", "name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    assert "thoughtSignature" not in second
    assert found[2]["parts"][0]["functionResponse"]["id"] == "x"


def test_each_step_of_a_foreign_history_has_the_sentinel_on_its_first_call() -> None:
    found = turns(
        user("a"), assistant(call("x"), call("y")), result("x"), result("y"), assistant(call("z")), result("z")
    )
    signatures = [part.get("thoughtSignature") for turn in found if turn["role"] == "model" for part in turn["parts"]]
    assert signatures == [SENTINEL, None, SENTINEL]


def test_a_signature_on_text_comes_back_on_the_last_text() -> None:
    said = {"role": "assistant", "content": "hi", "extra_content": {"google": {"thought_signature": "c2ln"}}}
    assert turns(user("a"), said)[1]["parts"] == [{"text": "hi", "thoughtSignature": "c2ln"}]


def test_a_signature_survives_three_turns_of_a_tool_loop() -> None:
    messages: list[Any] = [user("a")]
    for turn in range(3):
        google = {"google": {"thought_signature": f"c2ln{turn}A=="}}
        messages += [assistant(call(f"c{turn}", extra_content=google)), result(f"c{turn}")]
    signatures = [turn["parts"][0].get("thoughtSignature") for turn in turns(*messages) if turn["role"] == "model"]
    assert signatures == ["c2ln0A==", "c2ln1A==", "c2ln2A=="]


def test_appending_a_turn_keeps_the_earlier_ones() -> None:
    messages = [
        {"role": "system", "content": "s"},
        user("a"),
        assistant(call("x")),
        result("x"),
        assistant(content="b"),
    ]
    longer = [*messages, user("c"), {"role": "system", "content": "late"}, assistant(content="d")]
    assert turns(*longer)[: len(turns(*messages))] == turns(*messages)
    assert built(G3, messages=longer)["systemInstruction"] == built(G3, messages=messages)["systemInstruction"]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": PNG}},
            {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}},
        ),
        (
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            {
                "inlineData": {"mimeType": "image/png", "data": "iVBORw0="},
                "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"},
            },
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x.test/a.webp?b=c.d"}},
            {"fileData": {"mimeType": "image/webp", "fileUri": "https://x.test/a.webp?b=c.d"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "gs://b/a"}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "gs://b/a"}},
        ),
        (
            {"type": "video_url", "video_url": {"url": "https://youtu.be/x"}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://youtu.be/x"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "mp3"}},
            {"inlineData": {"mimeType": "audio/mp3", "data": "UklGRg=="}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        ),
        (
            {"type": "file", "file": {"file_id": "files/abc", "filename": "a.csv"}},
            {
                "fileData": {
                    "mimeType": "text/csv",
                    "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc",
                }
            },
        ),
    ],
)
def test_a_medium_becomes_a_part(part: Any, expected: Any) -> None:
    assert turns({"role": "user", "content": [part]}) == [{"role": "user", "parts": [expected]}]


def test_before_gemini_3_the_finest_detail_holds_for_all_images() -> None:
    images = [{"type": "image_url", "image_url": {"url": PNG, "detail": detail}} for detail in ("low", "high", "low")]
    body = built(G25, messages=[{"role": "user", "content": images}])
    assert body["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_HIGH"}
    assert all("mediaResolution" not in part for part in body["contents"][0]["parts"])


TEXT = st.sampled_from(["", " ", "a", "{}", '{"a":1}', "\u00e9\U0001f600"])
IDS = st.sampled_from(["", "a", "b", "c", "with space", "x" * 80, "a__thought__!!", "\u00e9"])
MEDIA = st.just({"type": "image_url", "image_url": {"url": PNG}})
CONTENT = st.one_of(
    st.none(), TEXT, st.lists(st.one_of(MEDIA, TEXT.map(lambda text: {"type": "text", "text": text})), max_size=3)
)
CALLS = st.lists(
    st.tuples(IDS, st.sampled_from(["f", "1g", "h i", ""]), st.sampled_from(["", "{}", '{"a":1}', "x", None])).map(
        lambda call: {"id": call[0], "type": "function", "function": {"name": call[1], "arguments": call[2]}}
    ),
    max_size=3,
)
MESSAGE = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "developer", "user"]),
        CONTENT,
    ),
    st.builds(lambda content, calls: {"role": "assistant", "content": content, "tool_calls": calls}, CONTENT, CALLS),
    st.builds(lambda name, content: {"role": "tool", "tool_call_id": name, "content": content}, IDS, CONTENT),
    st.builds(lambda content: {"role": "function", "name": "f", "content": content}, CONTENT),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(MESSAGE, max_size=8), st.sampled_from([G3, G25, "gemma-3-27b-it"]))
def test_whatever_the_order_of_messages_gemini_s_rules_hold(messages: list[Any], model: str) -> None:
    try:
        body = built(model, messages=messages)
    except InvalidRequest as error:
        assert error.status == 400
        return
    accept(body)
    found = body["contents"]
    assert found[0]["role"] == "user"
    assert all(one["role"] != two["role"] for one, two in pairwise(found))
    for place, turn in enumerate(found):
        assert turn["parts"]
        assert all(part.get("text") != "" for part in turn["parts"])
        calls = [part["functionCall"] for part in turn["parts"] if "functionCall" in part]
        following = found[place + 1]["parts"] if place + 1 < len(found) else []
        answers = [part["functionResponse"] for part in following if "functionResponse" in part]
        if turn["role"] == "model":
            assert [one["name"] for one in calls] == [one["name"] for one in answers]
            assert [one.get("id") for one in calls] == [one.get("id") for one in answers]
            assert all("functionResponse" in part for part in following[: len(calls)])
        else:
            assert not calls
    ids = [
        part["functionCall"]["id"] for turn in found for part in turn["parts"] if "id" in part.get("functionCall", {})
    ]
    assert len(ids) == len(set(ids))
