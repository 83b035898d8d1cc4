"""Whole answers, errors and usage of Gemini."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.contract import Usage
from gateway.errors import BadUpstreamResponse, UpstreamError
from plugins.google import PROVIDER
from plugins.google.answer import citations, read_usage, service_tier
from plugins.google.candidate import MAX_CITED
from tests.plugins.google.samples import answered, chat, said


def test_candidates_are_sorted_and_finished_each_for_itself() -> None:
    call = {"functionCall": {"name": "f"}}
    answer = {
        "candidates": [
            *said(call, finish="STOP", index=1)["candidates"],
            *said({"text": "a"}, finish="STOP")["candidates"],
        ]
    }
    choices = answered(answer)["choices"]
    assert [(choice["index"], choice["finish_reason"]) for choice in choices] == [(0, "stop"), (1, "tool_calls")]


def test_an_answer_without_content_is_an_answer() -> None:
    choice = answered({"candidates": [{"finishReason": "MAX_TOKENS"}]})["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None}
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("length", "MAX_TOKENS")


def test_a_refused_prompt_is_a_filtered_answer() -> None:
    choice = answered({"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "no"}})["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": "no"}
    assert choice["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b"{}",
        b'{"candidates":3}',
        b'{"candidates":[3]}',
        b'{"candidates":[{"content":{"parts":[1]}}]}',
    ],
)
def test_what_is_no_answer_is_the_providers_fault(body: bytes) -> None:
    with pytest.raises(BadUpstreamResponse):
        answered(body)


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: [error]])
def test_an_error_inside_a_200_has_its_own_status(wrap: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        answered(wrap({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}))
    assert (caught.value.status, caught.value.cause) == (503, "5xx")


def test_pieces_of_sound_are_joined() -> None:
    pieces = [{"inlineData": {"mimeType": "audio/L16", "data": data}} for data in ("YQ==", "Yg==")]
    assert answered(said(*pieces, finish="STOP"))["choices"][0]["message"]["audio"]["data"] == "YWI="


def test_sources_of_a_whole_answer_count_characters() -> None:
    answer = said({"text": "\u20ac1 and"}, finish="STOP")
    answer["candidates"][0]["groundingMetadata"] = {
        "groundingChunks": [{"web": {"uri": "https://a.test"}}],
        "groundingSupports": [{"segment": {"endIndex": 4}, "groundingChunkIndices": [0]}],
    }
    found = answered(answer, chat(tools=[{"googleSearch": {}}]))["choices"][0]["message"]["annotations"]
    assert found[0]["url_citation"] == {
        "start_index": 0,
        "end_index": 2,
        "url": "https://a.test",
        "title": "https://a.test",
    }


def test_offsets_beyond_the_text_stay_inside_it() -> None:
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.test"}}],
        "groundingSupports": [{"segment": {"startIndex": 1, "endIndex": 99}, "groundingChunkIndices": [0]}],
    }
    assert [citations(grounding, text)[0]["url_citation"]["end_index"] for text in ("ab", "\u00e9b")] == [2, 2]


def test_an_endless_text_has_no_citations() -> None:
    answer = said({"text": "a" * (MAX_CITED + 1)}, finish="STOP")
    answer["candidates"][0]["groundingMetadata"] = {"groundingChunks": [], "groundingSupports": []}
    assert "annotations" not in answered(answer, chat(web_search_options={}))["choices"][0]["message"]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, None),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, Usage(5, None)),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 3, "totalTokenCount": 10},
            Usage(5, 5, reasoning=3),
        ),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 10},
            Usage(5, 5, reasoning=3),
        ),
        (
            {
                "promptTokenCount": 5,
                "toolUsePromptTokenCount": 4,
                "cachedContentTokenCount": 1,
                "candidatesTokenCount": 2,
            },
            Usage(9, 2, cached=1),
        ),
    ],
)
def test_usage_counts_thoughts_once(metadata: dict[str, Any], expected: Usage | None) -> None:
    assert read_usage(metadata) == expected


def test_the_tier_is_told_in_openais_words() -> None:
    assert [service_tier({"serviceTier": tier}) for tier in ("standard", "FLEX", "new")] == ["default", "flex", None]
    assert answered(said(finish="STOP", usageMetadata={"serviceTier": "flex"}))["service_tier"] == "flex"


def refused(status: int, error: Any) -> UpstreamError:
    return PROVIDER.read_error(status, {}, orjson.dumps(error))


def test_the_wait_of_a_429_stands_in_its_details() -> None:
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
    error = refused(429, {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": [delay]}})
    assert error.retry_after == pytest.approx(34.07)
    assert (error.status, error.code, error.cause) == (429, "rate_limit_exceeded", "429")


@pytest.mark.parametrize(("quota", "code"), [("PerDay", "insufficient_quota"), ("PerMinute", "rate_limit_exceeded")])
def test_the_quota_of_a_day_is_told_from_that_of_a_minute(quota: str, code: str) -> None:
    details = [{"violations": [{"quotaId": f"GenerateRequests{quota}PerProject"}]}]
    message = "You exceeded your current quota, please check your plan."
    assert refused(429, {"error": {"code": 429, "message": message, "details": details}}).code == code


def test_a_refused_key_is_not_the_clients() -> None:
    reason = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
    error = refused(400, {"error": {"code": 400, "message": "key AIzaSyA1234567890 bad", "details": [reason]}})
    assert (error.status, error.code, error.cause) == (502, "upstream_auth_error", "auth")
    assert "AIza" not in str(error.body())


def test_too_long_a_prompt_has_openais_code() -> None:
    message = "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576)."
    assert (
        refused(400, {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}).code
        == "context_length_exceeded"
    )


@pytest.mark.parametrize("body", [b"", b"busy", b"[]", b"7", b'{"error":"busy"}', b'{"error":{"details":{"a":1}}}'])
def test_an_error_of_any_shape_is_an_error(body: bytes) -> None:
    assert PROVIDER.read_error(503, {}, body).status == 503


def test_one_piece_of_sound_stays_as_it_is() -> None:
    piece = {"inlineData": {"mimeType": "audio/L16", "data": "YQ=="}}
    assert answered(said(piece, finish="STOP"))["choices"][0]["message"]["audio"]["data"] == "YQ=="


def test_why_an_answer_was_broken_off_is_told() -> None:
    broken = said(finish="MALFORMED_FUNCTION_CALL")
    broken["candidates"][0]["finishMessage"] = "Malformed function call: f("
    choice = answered(broken)["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["native_finish_reason"] == "MALFORMED_FUNCTION_CALL"
    assert choice["native_finish_message"] == "Malformed function call: f("
