"""Streams of Gemini: order of chunks, ends, errors, and framings that the content type does not tell."""

from __future__ import annotations

import random
import time
from typing import Any

import orjson
import pytest

from gateway.conversation import uncarry
from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError
from plugins.google import PROVIDER
from plugins.google.framing import Framing
from plugins.google.stream import Stream
from tests.plugins.google.samples import STAMP, accumulated, answered, chat, decoded, said, sse, target

FIRST = {"role": "assistant", "content": ""}
USED = {
    "usageMetadata": {
        "promptTokenCount": 8,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 32,
        "totalTokenCount": 60,
    }
}
CALL = {"functionCall": {"name": "w", "args": {"c": "x"}, "id": "a"}, "thoughtSignature": "S1=="}
OTHER = {"functionCall": {"name": "w", "args": {"c": "y"}, "id": "b"}}


def deltas(chunks: list[dict[str, Any]]) -> list[Any]:
    return [
        (choice["index"], choice["delta"], choice["finish_reason"]) for chunk in chunks for choice in chunk["choices"]
    ]


def fed(data: bytes, **values: Any) -> tuple[Stream, list[dict[str, Any]]]:
    assert PROVIDER.chat is not None
    stream = PROVIDER.chat.open_stream(chat(**values), target(), STAMP)
    assert isinstance(stream, Stream)
    return stream, stream.feed(data)


def test_thoughts_then_parallel_calls_then_usage() -> None:
    stream = sse(
        said({"text": "Hm", "thought": True}, modelVersion="gemini-3-flash", responseId="r9"),
        said(CALL, OTHER),
        said({"text": ""}, finish="STOP", **USED),
    )
    chunks = decoded([stream])
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "w", "arguments": '{"c":"x"}'}}
    second = {"index": 1, "id": "b", "type": "function", "function": {"name": "w", "arguments": '{"c":"y"}'}}
    assert deltas(chunks) == [
        (0, FIRST, None),
        (0, {"reasoning_content": "Hm"}, None),
        (0, {"tool_calls": [{**first, "extra_content": {"google": {"thought_signature": "S1=="}}}]}, None),
        (0, {"tool_calls": [second]}, None),
        (0, {}, "tool_calls"),
    ]
    assert chunks[0]["id"] == "chatcmpl-r9"
    assert chunks[0]["model"] == "gemini-3-flash"
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 8,
        "completion_tokens": 52,
        "total_tokens": 60,
        "completion_tokens_details": {"reasoning_tokens": 32},
    }
    calls = accumulated(chunks)["choices"][0]["message"]["tool_calls"]
    assert [call["id"] for call in calls] == ["a", "b"]
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "S1=="}}


def test_candidates_are_introduced_in_order_and_count_their_calls_apart() -> None:
    late = said({"functionCall": {"name": "w"}}, index=1)
    stream = sse(late, said(CALL), said({"functionCall": {"name": "v"}}, finish="STOP", index=1), said(finish="STOP"))
    chunks = decoded([stream], chat(n=2))
    assert deltas(chunks)[:2] == [(0, FIRST, None), (1, FIRST, None)]
    places = [(index, call["index"]) for index, delta, _ in deltas(chunks) for call in delta.get("tool_calls", ())]
    assert places == [(1, 0), (0, 0), (1, 1)]
    found = accumulated(chunks)["choices"]
    assert [len(choice["message"]["tool_calls"]) for choice in found] == [1, 2]
    assert len({call["id"] for choice in found for call in choice["message"]["tool_calls"]}) == 3


def test_a_candidate_beyond_those_asked_for_is_introduced_with_those_before_it() -> None:
    stream = sse(
        said({"text": "b"}, index=2, finish="STOP"), said(index=0, finish="STOP"), said(index=1, finish="STOP")
    )
    assert deltas(decoded([stream]))[:3] == [(0, FIRST, None), (1, FIRST, None), (2, FIRST, None)]


def test_a_stream_with_a_candidate_missing_is_not_complete() -> None:
    with pytest.raises(Truncated):
        decoded([sse(said({"text": "a"}, finish="STOP"))], chat(n=2))


@pytest.mark.parametrize("index", [-1, 4000, "x", 1.5])
def test_an_impossible_index_is_a_failure_and_no_memory(index: Any) -> None:
    with pytest.raises(BadUpstreamResponse):
        decoded([sse(said({"text": "a"}, index=index))])


def test_a_second_finish_reason_and_later_usage_count() -> None:
    stream = sse(said({"text": "a"}, finish="STOP"), said({"text": "b"}, finish="MAX_TOKENS"), USED)
    chunks = decoded([stream])
    assert [finish for _, _, finish in deltas(chunks) if finish] == ["length"]
    assert chunks[-1]["usage"]["total_tokens"] == 60


def test_usage_is_overwritten_and_null_says_nothing() -> None:
    later = {"usageMetadata": {"promptTokenCount": None, "candidatesTokenCount": 21}}
    chunks = decoded([sse(said({"text": "a"}, **USED), said(finish="STOP"), later)])
    assert chunks[-1]["usage"]["prompt_tokens"] == 8
    assert chunks[-1]["usage"]["completion_tokens"] == 53


def test_without_any_count_there_is_no_usage_chunk() -> None:
    assert "usage" not in decoded([sse(said({"text": "a"}, finish="STOP"))])[-1]


def test_a_refused_prompt_is_a_filtered_answer() -> None:
    feedback = {"promptFeedback": {"blockReason": "BLOCKLIST", "blockReasonMessage": "no"}, **USED}
    chunks = decoded([sse(feedback)])
    assert deltas(chunks) == [(0, FIRST, None), (0, {"refusal": "no"}, None), (0, {}, "content_filter")]
    assert chunks[-2]["choices"][0]["native_finish_reason"] == "BLOCKLIST"


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        *(
            (name, "content_filter")
            for name in ("SAFETY", "RECITATION", "LANGUAGE", "MODEL_ARMOR", "ESCALATION", "SPII")
        ),
        *((name, "stop") for name in ("STOP", "OTHER", "NO_IMAGE", "MALFORMED_FUNCTION_CALL", "NEVER_SEEN")),
        *((name, "length") for name in ("MAX_TOKENS", "CONTINUATION")),
        *((1, "stop"), (2, "length"), (3, "content_filter"), (7, "content_filter"), (77, "stop")),
    ],
)
def test_a_finish_reason_is_one_of_openais_and_the_native_one_is_told(native: Any, expected: str) -> None:
    chunks = decoded([sse({"candidates": [{"finishReason": native, "finishMessage": "why"}]})])
    choice = chunks[-1]["choices"][0]
    assert choice["finish_reason"] == expected
    assert isinstance(choice["native_finish_reason"], str)
    assert ("native_finish_message" in choice) == (choice["native_finish_reason"] != "STOP")


def test_a_finish_reason_of_zero_is_none() -> None:
    with pytest.raises(Truncated):
        decoded([sse({"candidates": [{"finishReason": 0, "content": {"parts": [{"text": "a"}]}}]})])


ERROR = {"error": {"code": 503, "message": "high demand", "status": "UNAVAILABLE"}}


def test_a_raw_error_behind_events_is_a_failure() -> None:
    raw = sse(said({"text": "a"})) + orjson.dumps(ERROR)
    for cut in range(1, len(raw)):
        stream, chunks = fed(raw[:cut])
        chunks += stream.feed(raw[cut:]) + stream.finish()
        assert [delta.get("content") for _, delta, _ in deltas(chunks)] == ["", "a"]
        assert stream.failure is not None
        assert (stream.failure.status, stream.failure.message) == (503, "high demand")
        assert not stream.done


def test_a_pretty_error_behind_events_is_a_failure() -> None:
    stream, _ = fed(sse(said({"text": "a"}, finish="STOP")) + orjson.dumps(ERROR, option=orjson.OPT_INDENT_2) + b"\n")
    stream.finish()
    assert stream.failure is not None


def test_an_error_event_ends_the_stream_at_once() -> None:
    stream, chunks = fed(sse(said({"text": "a"}), ERROR, said({"text": "LEAK"}, finish="STOP")))
    assert stream.failure is not None
    assert (stream.failure.cause, stream.failure.status) == ("5xx", 503)
    assert "LEAK" not in str(chunks)
    assert stream.feed(sse(said({"text": "LEAK"}))) == []
    assert stream.finish() == []


def test_an_error_without_a_code_is_read_by_its_status() -> None:
    stream, _ = fed(sse({"error": {"message": "slow down", "status": "RESOURCE_EXHAUSTED"}}))
    assert stream.failure is not None
    assert stream.failure.status == 429


@pytest.mark.parametrize(
    "raw",
    [
        b"data: {oops}\n\n",
        b"data: 7\n\n",
        b"data: null\n\n",
        b'data: {"candidates":[3]}\n\n',
        b'data: {"candidates":[{"content":{"parts":[1]}}]}\n\n',
    ],
)
def test_an_event_that_is_no_answer_is_a_failure(raw: bytes) -> None:
    stream, _ = fed(raw)
    assert isinstance(stream.failure, BadUpstreamResponse)


def test_an_event_beyond_the_limit_is_a_failure_whatever_the_framing() -> None:
    for head in (b"data: ", b"[", b"{"):
        stream, _ = fed(head)
        stream._framing = Framing(1000)
        stream.feed(head)
        for _ in range(300):
            stream.feed(b'"aaaaaaaaaa",')
        assert isinstance(stream.failure, BadUpstreamResponse)


def test_a_last_event_without_a_blank_line_counts() -> None:
    raw = sse(said({"text": "a"}, finish="STOP")).rstrip()
    assert deltas(decoded([raw]))[-1] == (0, {}, "stop")


def test_half_a_last_event_does_not() -> None:
    raw = sse(said({"text": "a"}, finish="STOP"), said({"text": "b"}))
    with pytest.raises(Truncated):
        decoded([raw[:-20]])


def test_an_array_is_complete_only_with_its_bracket() -> None:
    answers = [said({"text": 'a"]}{[\\'}), said({"text": "b"}, finish="STOP")]
    raw = orjson.dumps(answers, option=orjson.OPT_INDENT_2)
    whole = decoded([raw])
    assert [delta.get("content") for _, delta, _ in deltas(whole)] == ["", 'a"]}{[\\', "b", None]
    assert all(decoded([raw[:cut], b"", raw[cut:]]) == whole for cut in range(len(raw)))
    assert decoded(raw[place : place + 1] for place in range(len(raw))) == whole
    for end in range(len(raw) - 1):
        with pytest.raises(Truncated):
            decoded([raw[:end]])


def test_an_error_in_an_array_is_a_failure() -> None:
    stream, _ = fed(orjson.dumps([ERROR]))
    assert stream.failure is not None
    assert stream.failure.message == "high demand"


def test_a_whole_answer_where_a_stream_was_asked_for_becomes_one() -> None:
    assert deltas(decoded([b"\n", orjson.dumps(said({"text": "a"}, finish="STOP"))])) == [
        (0, FIRST, None),
        (0, {"content": "a"}, None),
        (0, {}, "stop"),
    ]


@pytest.mark.parametrize("raw", [b"", b"  ", b"<html>busy</html>", b": ping\n\n", b"data: {}\n\n", b"[]", b"{}", b"{"])
def test_nothing_is_not_an_answer(raw: bytes) -> None:
    with pytest.raises(UpstreamError):
        decoded([raw])


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_may_end_in_any_way_and_split_over_reads(end: bytes) -> None:
    events = [said({"text": "é\U0001f600"}), said({"text": "b"}, finish="STOP")]
    raw = b"\xef\xbb\xbf" + b"".join(b"data: " + orjson.dumps(event) + end + end for event in events)
    whole = decoded([raw])
    assert [delta.get("content") for _, delta, _ in deltas(whole)] == ["", "é\U0001f600", "b", None]
    assert decoded(raw[place : place + 1] for place in range(len(raw))) == whole
    shuffled = random.Random(1)
    for _ in range(50):
        cuts = sorted(shuffled.sample(range(len(raw)), 6))
        assert decoded([raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]) == whole


def test_a_text_signature_is_told_once_before_the_end() -> None:
    signed = said({"text": "a"}, {"text": "", "thoughtSignature": "c2ln"}, finish="STOP")
    assert deltas(decoded([sse(signed)]))[-2:] == [
        (0, {"extra_content": {"google": {"thought_signature": "c2ln"}}}, None),
        (0, {}, "stop"),
    ]


def test_a_signature_travels_in_the_id_only_where_the_deployment_says_so() -> None:
    assert PROVIDER.chat is not None
    stream = PROVIDER.chat.open_stream(chat(), target(emulate=frozenset(("thinking",))), STAMP)
    found = stream.feed(sse(said(CALL, OTHER)))
    names = [delta["tool_calls"][0]["id"] for _, delta, _ in deltas(found)[1:]]
    assert uncarry(names[0]) == ("a", {"google": {"thought_signature": "S1=="}})
    assert names[1] == "b"


def test_googles_own_tools_are_no_calls_for_the_client() -> None:
    own = [
        {"toolCall": {"id": "1"}, "thoughtSignature": "x"},
        {"toolResponse": {"id": "1"}},
        {"executableCode": {"language": "PYTHON", "code": "1"}},
    ]
    chunks = decoded(
        [sse(said(*own, {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}, finish="STOP"))]
    )
    assert "tool_calls" not in str(chunks)
    assert accumulated(chunks)["choices"][0]["message"]["content"] == "\n```python\n1\n```\n\n```\n1\n```\n"


def test_images_and_sound_are_deltas_with_their_place() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "aa=="}}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "bb=="}}
    chunks = decoded([sse(said(image, image, sound, sound, {**image, "thought": True}, finish="STOP"))])
    found = [delta for _, delta, _ in deltas(chunks)]
    assert [delta["images"][0]["index"] for delta in found if "images" in delta] == [0, 1]
    assert [sorted(delta["audio"]) for delta in found if "audio" in delta] == [
        ["data", "expires_at", "id", "transcript"],
        ["data"],
    ]


def test_log_probabilities_stand_on_the_event_s_first_chunk() -> None:
    event = said({"text": "é"}, finish="STOP")
    event["candidates"][0]["logprobsResult"] = {"chosenCandidates": [{"token": "é", "logProbability": -0.5}]}
    choice = decoded([sse(event)])[1]["choices"][0]
    assert choice["logprobs"]["content"] == [{"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []}]


def test_sources_are_told_in_characters_before_the_end() -> None:
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.test", "title": "A"}}],
        "groundingSupports": [{"segment": {"startIndex": 3, "endIndex": 5}, "groundingChunkIndices": [0, 9]}],
    }
    last = said({"text": "bc"}, finish="STOP")
    last["candidates"][0]["groundingMetadata"] = grounding
    chunks = decoded([sse(said({"text": "é "}), last)], chat(web_search_options={}))
    citation = {"start_index": 2, "end_index": 4, "url": "https://a.test", "title": "A"}
    expected = {"annotations": [{"index": 0, "type": "url_citation", "url_citation": citation}]}
    assert deltas(chunks)[-2][1] == expected
    accumulated(chunks)


def test_work_is_linear_in_small_pieces() -> None:
    def spent(size: int) -> float:
        raw = orjson.dumps([said({"text": "a" * size}, finish="STOP")])
        start = time.process_time()
        decoded(raw[place : place + 16] for place in range(0, len(raw), 16))
        return time.process_time() - start

    spent(10_000)
    assert spent(400_000) < 40 * max(spent(40_000), 0.001)


def test_feedback_alone_refuses_nothing_and_a_finished_candidate_stays_finished() -> None:
    feedback = {"promptFeedback": {"safetyRatings": []}}
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
    found = decoded([sse(feedback, said({"text": "a"}, finish="STOP"), blocked)])
    assert deltas(found)[-1] == (0, {}, "stop")
    assert deltas(decoded([sse(blocked)])) == [(0, FIRST, None), (0, {}, "content_filter")]


def test_a_client_of_functions_gets_one_function_call() -> None:
    request = chat(functions=[{"name": "w"}])
    chunks = decoded([sse(said(CALL, OTHER), said({"text": ""}, finish="STOP", **USED))], request)
    call = {"name": "w", "arguments": '{"c":"x"}'}
    assert deltas(chunks) == [(0, FIRST, None), (0, {"function_call": call}, None), (0, {}, "function_call")]
    whole = answered(said(CALL, OTHER, finish="STOP"), request)["choices"][0]
    assert whole["message"] == {"role": "assistant", "content": None, "refusal": None, "function_call": call}
    assert whole["finish_reason"] == "function_call"
