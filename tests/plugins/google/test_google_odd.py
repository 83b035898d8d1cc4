"""Values that nobody should send: the client hears what is wrong, the provider's nonsense is its own fault."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidRequest, UnsupportedParameter, UpstreamError
from gateway.hub import PARAMS
from plugins.google import PROVIDER
from tests.plugins.google.samples import answered, built, chat, decoded, said, sse, target

G25, G3 = "gemini-2.5-flash", "gemini-3-flash-preview"
ODD: tuple[Any, ...] = (
    0,
    -1,
    1.5,
    True,
    "",
    "x",
    [],
    {},
    [1],
    [[]],
    ["a"],
    {"type": "x"},
    {"a": {}},
    [{"type": "function"}],
)


@pytest.mark.parametrize("name", sorted(PARAMS - {"model", "stream"}))
@pytest.mark.parametrize("model", [G25, G3])
def test_an_odd_value_is_sent_or_refused_and_never_breaks_the_gateway(name: str, model: str) -> None:
    for value in ODD:
        try:
            built(model, **{name: value})
        except InvalidRequest as error:
            assert error.status == 400


WORDS = [
    "candidates",
    "content",
    "parts",
    "text",
    "functionCall",
    "name",
    "args",
    "index",
    "finishReason",
    "error",
    "inlineData",
    "mimeType",
    "data",
    "thought",
    "usageMetadata",
    "groundingMetadata",
    "logprobsResult",
    "promptFeedback",
    "blockReason",
    "groundingChunks",
    "groundingSupports",
    "chosenCandidates",
    "executableCode",
]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["", "a", "STOP", "audio/wav"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(JSON)
def test_whatever_a_provider_sends_is_an_answer_or_its_own_fault(value: Any) -> None:
    candidate = {"candidates": [value] if isinstance(value, dict) else value}
    for answer in (value, candidate, said(value, finish="STOP")):
        for read in (answered, lambda found: decoded([sse(found)], chat(web_search_options={}))):
            try:
                read(answer)
            except UpstreamError as error:
                assert error.status >= 400


@pytest.mark.parametrize(
    "more",
    [
        {"logprobsResult": 3},
        {"groundingMetadata": {"groundingChunks": 3}},
        {
            "groundingMetadata": {
                "groundingSupports": [{"segment": {"startIndex": "x"}, "groundingChunkIndices": ["y"]}]
            }
        },
    ],
)
def test_what_cannot_be_read_at_the_end_of_a_stream_is_a_failure(more: dict[str, Any]) -> None:
    answer = said({"text": "a"}, finish="STOP")
    answer["candidates"][0].update(more)
    with pytest.raises(UpstreamError):
        decoded([sse(answer)], chat(web_search_options={}))
    with pytest.raises(UpstreamError):
        decoded([sse(answer)[:-4]], chat(web_search_options={}))


def test_a_shapeless_last_event_is_a_failure() -> None:
    with pytest.raises(UpstreamError):
        decoded([b'data: {"candidates":[3]}'])
    with pytest.raises(UpstreamError):
        decoded([b'data: {"candidates":[{"index":-7}]}'])


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"messages": None}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools"),
        ({"tools": [{"googleSearch": {}}, {"type": "mcp"}]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"guided_json": "{"}, "guided_json"),
        ({"modalities": ["smell"]}, "modalities"),
    ],
)
def test_the_place_of_a_mistake_is_named(values: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        built(G3, **values)
    assert caught.value.param == param


@pytest.mark.parametrize("choice", ["sometimes", 5, {"type": "function"}])
def test_a_choice_among_nothing_is_refused(choice: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(InvalidRequest) as caught:
        built(G3, tools=tools, tool_choice=choice)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "smell"},
        {"type": "input_audio", "input_audio": {"format": "wav"}},
        {"type": "image_url", "image_url": {"url": "https://[bad"}},
        {"type": "file", "file": {}},
    ],
)
def test_a_part_that_says_nothing_is_refused(part: Any) -> None:
    with pytest.raises(InvalidRequest):
        built(G3, messages=[{"role": "user", "content": [part]}])


def test_a_file_of_googles_own_is_named_by_its_address() -> None:
    address = "https://generativelanguage.googleapis.com/v1beta/files/x"
    for model in (G25, G3):
        body = built(model, messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": address}}]}])
        assert body["contents"][0]["parts"][0]["fileData"]["fileUri"] == address


def test_before_gemini_3_only_vertex_fetches_urls() -> None:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}]
    with pytest.raises(UnsupportedParameter):
        built(G25, messages=messages)
    assert PROVIDER.chat is not None
    request = PROVIDER.chat.build_request(chat(messages=messages), target(G25, options={"project": "acme-1"}))
    assert b"https://x.test/a.png" in request.body


def test_pictures_of_an_earlier_answer_are_shown_again() -> None:
    image = {"type": "image_url", "index": 0, "image_url": {"url": "data:image/png;base64,aa=="}}
    said_before = {"role": "assistant", "content": None, "images": [image]}
    turn = built(G3, messages=[{"role": "user", "content": "draw"}, said_before, {"role": "user", "content": "more"}])
    assert turn["contents"][1] == {
        "role": "model",
        "parts": [{"inlineData": {"mimeType": "image/png", "data": "aa=="}}],
    }


def test_a_picture_in_an_assistant_message_is_shown() -> None:
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aa=="}}]
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]
    assert "inlineData" in built(G3, messages=messages)["contents"][1]["parts"][0]


def test_a_cache_is_named_in_either_way() -> None:
    assert built(G3, cached_content="cachedContents/a")["cachedContent"] == "cachedContents/a"
    extra = {"google": {"cached_content": "cachedContents/a"}}
    assert built(G3, extra_body=extra)["cachedContent"] == "cachedContents/a"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"thinking": {"type": "disabled"}}, {"includeThoughts": False, "thinkingLevel": "MINIMAL"}),
        ({"thinking": {"type": "adaptive"}}, {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 5000}},
            {"includeThoughts": True, "thinkingLevel": "MEDIUM"},
        ),
        ({"reasoning": {"enabled": True}}, {"includeThoughts": True, "thinkingLevel": "MEDIUM"}),
    ],
)
def test_other_ways_to_ask_for_thoughts(values: dict[str, Any], expected: Any) -> None:
    assert built(G3, **values)["generationConfig"]["thinkingConfig"] == expected


@pytest.mark.parametrize("values", [{"reasoning_effort": "extreme"}, {"reasoning": {"effort": 3}}])
def test_an_effort_that_nobody_knows_is_dropped(values: dict[str, Any]) -> None:
    assert PROVIDER.chat is not None
    request = PROVIDER.chat.build_request(chat(**values), target())
    assert request.dropped == tuple(values)
    assert b"thinking" not in request.body


def test_a_parameter_that_an_attempt_must_leave_out_is_left_out() -> None:
    values = {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "auto",
        "reasoning_effort": "low",
    }
    assert PROVIDER.chat is not None
    without = target(without=frozenset(values))
    request = PROVIDER.chat.build_request(chat(**values, web_search_options={}), without)
    assert set(request.dropped) == set(values)
    assert set(json.loads(request.body)) == {"contents", "tools"}


def test_speech_may_leave_its_voice_to_google() -> None:
    body = built("gemini-2.5-flash-preview-tts", modalities=["audio"])
    assert body["generationConfig"] == {"responseModalities": ["AUDIO"]}


def test_the_same_limit_twice_is_nothing_to_tell() -> None:
    assert PROVIDER.chat is not None
    assert PROVIDER.chat.build_request(chat(max_tokens=5, max_completion_tokens=5), target()).dropped == ()


def test_log_probabilities_without_alternatives() -> None:
    assert built(G25, logprobs=True)["generationConfig"] == {"responseLogprobs": True}


def test_a_provider_error_is_never_taken_for_one_of_ours() -> None:
    for status in range(400, 600):
        error = PROVIDER.read_error(status, {}, orjson.dumps({"error": {"code": status, "message": "m"}}))
        assert isinstance(error, GatewayError)
        assert error.details["upstream_status"] == status or error.cause == "auth"


def test_a_speaking_model_speaks_one_format() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        built("gemini-2.5-flash-preview-tts", modalities=["audio"], audio={"format": "mp3"})
    assert caught.value.param == "audio"


def test_schemas_inside_a_schema_lose_what_stands_beside_a_reference() -> None:
    schema = {"anyOf": [{"$ref": "#/$defs/A", "title": "t"}], "$defs": {"A": {}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    found = built(G3, response_format=wanted)["generationConfig"]["responseJsonSchema"]
    assert found["anyOf"] == [{"title": "t", "anyOf": [{"$ref": "#/$defs/A"}]}]
