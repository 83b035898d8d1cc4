from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import Truncated, UpstreamError
from gateway.eventstream import encode
from gateway.hub import Json
from tests.plugins.bedrock.support import (
    CLAUDE,
    NOVA,
    STAMP,
    WEATHER,
    accumulated,
    chunks_of,
    deltas,
    event,
    exception,
    frames,
    opened,
    target,
)

START = ("messageStart", {"role": "assistant"})
STOP = ("messageStop", {"stopReason": "end_turn"})
META = ("metadata", {"usage": {"inputTokens": 9, "outputTokens": 30, "totalTokens": 39}, "metrics": {"latencyMs": 900}})


def delta(index: int, **what: Any) -> tuple[str, Json]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": what}


def ended(index: int) -> tuple[str, Json]:
    return "contentBlockStop", {"contentBlockIndex": index}


def tool(index: int, name: str, use_id: str = "tooluse_1", **more: str) -> tuple[str, Json]:
    use = {"toolUseId": use_id, "name": name, **more}
    return "contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": use}}


GOLDEN = [
    START,
    delta(0, reasoningContent={"text": "Let me"}),
    delta(0, reasoningContent={"signature": "Sig"}),
    ended(0),
    delta(1, text="Checking"),
    ended(1),
    tool(2, "w", "tooluse_A"),
    delta(2, toolUse={"input": '{"c":"x"}'}),
    ended(2),
    tool(3, "now", "tooluse_B"),
    ended(3),
    ("messageStop", {"stopReason": "tool_use"}),
    META,
]
TEXT = [START, delta(0, text="Hel"), delta(0, text="lo"), ended(0), STOP, META]


def whole(*events: tuple[str, Json], **how: Any) -> list[Json]:
    return chunks_of(opened(**how), [frames(*events)])


def test_the_golden_stream_gives_the_golden_chunks() -> None:
    chunks = whole(*GOLDEN)
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Let me"},
        {"thinking_blocks": [{"index": 0, "type": "thinking", "thinking": "Let me", "signature": "Sig"}]},
        {"content": "Checking"},
        {"tool_calls": [call(0, "tooluse_A", "w")]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"c":"x"}'}}]},
        {"tool_calls": [call(1, "tooluse_B", "now")]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 8 + ["tool_calls"]
    assert chunks[-2]["choices"][0]["native_finish_reason"] == "tool_use"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39}


def call(index: int, use_id: str, name: str) -> Json:
    return {"index": index, "id": use_id, "type": "function", "function": {"name": name, "arguments": ""}}


def test_every_chunk_has_the_same_head() -> None:
    for chunk in whole(*GOLDEN):
        assert chunk["id"] == "chatcmpl-abc"
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["created"], chunk["model"]) == (STAMP.created, CLAUDE)


@pytest.mark.parametrize("cut", range(len(frames(*GOLDEN))))
def test_any_cut_gives_the_same_chunks(cut: int) -> None:
    data = frames(*GOLDEN)
    assert chunks_of(opened(), [data[:cut], data[cut:]]) == whole(*GOLDEN)


def test_single_bytes_give_the_same_chunks() -> None:
    assert chunks_of(opened(), [bytes((byte,)) for byte in frames(*GOLDEN)]) == whole(*GOLDEN)


@pytest.mark.parametrize("cut", range(len(frames(*GOLDEN[:-1]))))
def test_no_shortened_stream_looks_complete(cut: int) -> None:
    decoder = opened()
    decoder.feed(frames(*GOLDEN)[:cut])
    assert not decoder.done
    with pytest.raises(Truncated):
        decoder.finish()


def test_the_end_behind_message_stop_completes_a_stream_without_metadata() -> None:
    decoder = opened()
    decoder.feed(frames(*TEXT[:-1]))
    assert not decoder.done
    assert decoder.finish() == []
    assert decoder.done


@pytest.mark.parametrize("missing", range(1, len(event(*META))))
def test_a_cut_inside_the_metadata_is_a_truncation(missing: int) -> None:
    decoder = opened()
    decoder.feed(frames(*TEXT)[:-missing])
    with pytest.raises(Truncated):
        decoder.finish()


def test_bytes_behind_the_last_event_are_ignored() -> None:
    decoder = opened()
    chunks = decoder.feed(frames(*TEXT, delta(0, text="LEAK")))
    assert decoder.feed(frames(delta(0, text="LEAK"))) == []
    assert "LEAK" not in str(chunks)
    assert decoder.finish() == []


def test_text_needs_no_block_start_and_empty_text_gives_no_chunk() -> None:
    chunks = whole(START, delta(0, text=""), delta(0, text="a"), ended(0), STOP, META)
    assert deltas(chunks) == [{"role": "assistant", "content": ""}, {"content": "a"}, {}]


def test_the_role_comes_once_even_without_message_start() -> None:
    chunks = whole(delta(0, text="a"), START, delta(0, text="b"), STOP)
    assert [d.get("role") for d in deltas(chunks)] == ["assistant", None, None, None]


def test_tool_indexes_are_dense_whatever_the_block_indexes_are() -> None:
    chunks = whole(START, tool(7, "a", "1"), ended(7), tool(3, "b", "2"), delta(3, toolUse={"input": "{}"}), STOP)
    calls = [d["tool_calls"][0] for d in deltas(chunks) if "tool_calls" in d]
    assert [(c["index"], c.get("id")) for c in calls] == [(0, "1"), (0, None), (1, "2"), (1, None)]


def test_a_block_index_used_again_opens_a_new_call() -> None:
    message = accumulated(
        whole(
            START,
            tool(0, "a", "1"),
            delta(0, toolUse={"input": '{"x":'}),
            delta(0, toolUse={"input": "1}"}),
            tool(0, "b", "2"),
            delta(0, toolUse={"input": '{"y":2}'}),
            STOP,
        )
    )["choices"][0]["message"]
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]]
    assert calls == [("a", '{"x":1}'), ("b", '{"y":2}')]


def test_arguments_of_interleaved_calls_find_their_own_call() -> None:
    events = [START, tool(0, "a", "1"), tool(1, "b", "2")]
    for first, second in zip('{"x":"aé"}', '{"y":"bü"}', strict=True):
        events += [delta(0, toolUse={"input": first}), delta(1, toolUse={"input": second})]
    message = accumulated(whole(*events, STOP))["choices"][0]["message"]
    assert [c["function"]["arguments"] for c in message["tool_calls"]] == ['{"x":"aé"}', '{"y":"bü"}']


def test_a_servers_own_tool_calls_are_not_shown() -> None:
    chunks = whole(
        START,
        tool(0, "nova_grounding", type="server_tool_use"),
        delta(0, toolUse={"input": '{"q":1}'}),
        ended(0),
        ("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolResult": {"toolUseId": "x"}}}),
        delta(1, toolResult=[{"text": "secret"}]),
        ended(1),
        delta(2, text="found"),
        delta(3, citation={"location": {"web": {"url": "https://r.test/", "domain": "r.test"}}}),
        ("messageStop", {"stopReason": "tool_use"}),
        META,
        model=NOVA,
    )
    assert "tool_calls" not in str(deltas(chunks))
    assert "secret" not in str(chunks)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    cited = accumulated(chunks)["choices"][0]["message"]["annotations"]
    assert cited[0]["url_citation"]["url"] == "https://r.test/"
    assert cited[0]["url_citation"]["end_index"] == len("found")


def test_thinking_without_signature_is_text_only() -> None:
    chunks = whole(START, delta(0, reasoningContent={"text": "hm"}), ended(0), delta(1, text="a"), STOP)
    assert {"reasoning_content": "hm"} in deltas(chunks)
    assert "thinking_blocks" not in str(chunks)


def test_redacted_thinking_comes_whole() -> None:
    pieces = [delta(0, reasoningContent={"redactedContent": text}) for text in ("RXU4", "RUNr")]
    blocks = [d["thinking_blocks"] for d in deltas(whole(START, *pieces, ended(0), STOP)) if "thinking_blocks" in d]
    assert blocks == [[{"index": 0, "type": "redacted_thinking", "data": "Eu8ECk"}]]


def test_thinking_tokens_are_told_apart() -> None:
    stop = {
        "stopReason": "end_turn",
        "additionalModelResponseFields": {"usage": {"output_tokens_details": {"thinking_tokens": 7}}},
    }
    usage = whole(START, delta(0, text="a"), ("messageStop", stop), META)[-1]["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 7}
    assert usage["completion_tokens"] == 30


def test_cached_input_counts_as_prompt() -> None:
    counts = {
        "inputTokens": 3,
        "outputTokens": 4,
        "totalTokens": 27,
        "cacheReadInputTokens": 15,
        "cacheWriteInputTokens": 5,
    }
    usage = whole(START, STOP, ("metadata", {"usage": counts, "serviceTier": {"type": "flex"}}))[-1]
    assert usage["service_tier"] == "flex"
    assert usage["usage"]["prompt_tokens"] == 23
    assert usage["usage"]["total_tokens"] == 27
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 15, "cache_write_tokens": 5}


EXCEPTIONS = [
    ("throttlingException", 429, "rate_limit_exceeded", "429"),
    ("internalServerException", 500, "upstream_error", "5xx"),
    ("modelStreamErrorException", 502, "upstream_error", "5xx"),
    ("validationException", 400, "invalid_request", "request"),
    ("serviceUnavailableException", 503, "overloaded", "5xx"),
    ("modelTimeoutException", 504, "upstream_timeout", "timeout"),
]


@pytest.mark.parametrize("before", [[], TEXT[:3]], ids=["first", "midstream"])
@pytest.mark.parametrize(("kind", "status", "code", "cause"), EXCEPTIONS)
def test_an_exception_frame_is_a_failure_of_its_class(
    kind: str, status: int, code: str, cause: str, before: list[tuple[str, Json]]
) -> None:
    decoder = opened()
    chunks = decoder.feed(frames(*before) + exception(kind, "Too bad") + frames(*TEXT[3:]))
    assert decoder.failure is not None
    assert (decoder.failure.status, decoder.failure.code, decoder.failure.cause) == (status, code, cause)
    assert decoder.failure.message == "Too bad"
    assert not decoder.done
    assert len(chunks) == len(before)
    assert decoder.feed(frames(*TEXT)) == []
    assert decoder.finish() == []


def test_an_unmodelled_error_frame_is_a_failure() -> None:
    decoder = opened()
    decoder.feed(encode({":message-type": "error", ":error-code": "InternalFailure", ":error-message": "Broken"}, b""))
    assert isinstance(decoder.failure, UpstreamError)
    assert decoder.failure.message == "Broken"


def test_a_wrong_checksum_keeps_what_came_before_and_fails() -> None:
    decoder = opened()
    data = bytearray(frames(*TEXT))
    data[len(frames(*TEXT[:2])) + 40] ^= 1
    chunks = decoder.feed(bytes(data))
    assert deltas(chunks)[-1] == {"content": "Hel"}
    assert decoder.failure is not None
    assert decoder.failure.code == "upstream_bad_response"
    assert not decoder.done


def test_json_instead_of_a_stream_is_a_failure() -> None:
    decoder = opened()
    assert decoder.feed(b'{"message":"Something went wrong"}') == []
    assert decoder.failure is not None


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("contentBlockDelta", b"{"),
        ("contentBlockDelta", b"[]"),
        ("contentBlockDelta", b"{}"),
        ("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{}"}}}'),
        ("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"text":5}}'),
        ("contentBlockStart", b'{"contentBlockIndex":0,"start":{"toolUse":{}}}'),
        ("messageStop", b"null"),
        ("metadata", b"{}"),
    ],
)
def test_an_unreadable_event_is_a_failure(kind: str, payload: bytes) -> None:
    decoder = opened()
    decoder.feed(encode({":event-type": kind, ":message-type": "event"}, payload))
    assert decoder.failure is not None
    assert decoder.failure.code == "upstream_bad_response"


def test_an_unknown_event_and_an_unknown_delta_are_passed_over() -> None:
    news = [("somethingNew", {"a": 1}), delta(4, hologram={"x": 1})]
    assert whole(START, *news, delta(0, text="a"), STOP, META) == whole(START, delta(0, text="a"), STOP, META)


SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"a": {}}}}}
LIST = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array", "items": {"type": "integer"}}}}


def test_an_emulated_answer_streams_as_content_and_hides_the_tool() -> None:
    pieces = ['{"a"', ":1", "}"]
    chunks = whole(
        START,
        delta(0, text="I will answer"),
        tool(1, "json_answer"),
        *(delta(1, toolUse={"input": piece}) for piece in pieces),
        ended(1),
        ("messageStop", {"stopReason": "tool_use"}),
        META,
        model=NOVA,
        response_format=SCHEMA,
    )
    assert [d["content"] for d in deltas(chunks) if d.get("content")] == pieces
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"


def test_a_wrapped_answer_is_unwrapped() -> None:
    events = [
        START,
        tool(0, "json_answer"),
        delta(0, toolUse={"input": '{"values":'}),
        delta(0, toolUse={"input": "[1,2]}"}),
        STOP,
    ]
    chunks = whole(*events, model=NOVA, response_format=LIST)
    assert accumulated(chunks)["choices"][0]["message"]["content"] == "[1,2]"


def test_a_wrapped_answer_that_the_limit_cut_is_shown_as_it_is() -> None:
    events = [
        START,
        tool(0, "json_answer"),
        delta(0, toolUse={"input": '{"values":[1'}),
        ("messageStop", {"stopReason": "max_tokens"}),
    ]
    chunks = whole(*events, model=NOVA, response_format=LIST)
    assert accumulated(chunks)["choices"][0]["message"]["content"] == '{"values":[1'
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_text_is_the_answer_when_the_model_did_not_use_the_emulated_tool() -> None:
    chunks = whole(START, delta(0, text='{"a"'), delta(0, text=":1}"), STOP, model=NOVA, response_format=SCHEMA)
    assert accumulated(chunks)["choices"][0]["message"]["content"] == '{"a":1}'


def test_a_second_emulated_answer_is_left_out() -> None:
    twice = [
        part for n in (0, 1) for part in (tool(n, "json_answer"), delta(n, toolUse={"input": '{"a":1}'}), ended(n))
    ]
    chunks = whole(START, *twice, STOP, model=NOVA, response_format=SCHEMA)
    assert accumulated(chunks)["choices"][0]["message"]["content"] == '{"a":1}'


def test_tool_names_come_back_as_the_client_wrote_them() -> None:
    odd = {"type": "function", "function": {"name": "ns.find/it", "parameters": {}}}
    chunks = whole(START, tool(0, "ns_find_it"), ended(0), STOP, tools=[odd])
    assert deltas(chunks)[1]["tool_calls"][0]["function"]["name"] == "ns.find/it"


def test_two_requests_do_not_share_tool_names() -> None:
    odd = {"type": "function", "function": {"name": "tenant.secret", "parameters": {}}}
    mine, other = opened(tools=[odd]), opened(tools=[WEATHER])
    events = frames(START, tool(0, "tenant_secret"), ended(0), STOP)
    assert "tenant.secret" in str(mine.feed(events))
    assert "tenant.secret" not in str(other.feed(events))


def test_an_id_carries_the_thinking_where_the_deployment_says_so() -> None:
    from gateway.conversation import uncarry

    chunks = whole(*GOLDEN, where=target(emulate=frozenset(("thinking",))))
    first, second = [d["tool_calls"][0]["id"] for d in deltas(chunks) if "id" in d.get("tool_calls", [{}])[0]]
    name, payload = uncarry(first)
    assert name == "tooluse_A"
    assert payload == {"anthropic": [{"type": "thinking", "thinking": "Let me", "signature": "Sig"}]}
    assert second == "tooluse_B"


def test_a_client_of_functions_gets_one_function_call() -> None:
    events = [START, tool(0, "f", "1"), delta(0, toolUse={"input": '{"a":1}'}), ended(0), tool(1, "f", "2"), ended(1)]
    chunks = whole(*events, ("messageStop", {"stopReason": "tool_use"}), functions=[{"name": "f"}])
    found = deltas(chunks)
    assert found[1:3] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": '{"a":1}'}},
    ]
    assert len(found) == 4
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


def test_a_second_message_stop_and_metadata_without_usage_add_nothing() -> None:
    chunks = whole(START, delta(0, text="a"), STOP, STOP, ("metadata", {"metrics": {}}))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
