"""What the OpenAI-like providers share: repairs of an answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.plugins.mending import call, calls_of, chunk, mender, through


def test_a_sound_chunk_stays_the_same_object() -> None:
    opened = mender()
    payloads = [
        chunk({"delta": {"role": "assistant", "content": ""}}),
        chunk({"delta": {"content": 'says "role" and "tool_calls"'}}),
        chunk(call(id="a", type="function", function={"name": "f", "arguments": ""})),
        chunk(call(function={"arguments": "{}"})),
        chunk({"delta": {}, "finish_reason": "tool_calls"}),
        orjson.dumps(
            {**orjson.loads(chunk()), "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
        ),
    ]
    assert all(opened.chunk(payload) is payload for payload in payloads)
    assert opened.finish() == []


def test_the_role_is_told_once_per_choice() -> None:
    chunks = through(mender(), *[chunk({"delta": {"role": "assistant", "content": text}}) for text in "ab"])
    assert [one["choices"][0]["delta"] for one in chunks] == [{"role": "assistant", "content": "a"}, {"content": "b"}]


def test_a_role_is_taken_out_of_several_choices_too() -> None:
    said = [{"index": n, "delta": {"role": "assistant", "content": "x"}} for n in (0, 1)]
    chunks = through(mender(n=2), chunk(*said), chunk(*said))
    assert ["role" in choice["delta"] for one in chunks for choice in one["choices"]] == [True, True, False, False]


def test_a_missing_role_is_supplied() -> None:
    assert through(mender(), chunk({"delta": {"content": "a"}}))[0]["choices"][0]["delta"]["role"] == "assistant"


def test_choices_begin_in_order() -> None:
    chunks = through(
        mender(n=2), chunk({"index": 1, "delta": {"content": "B"}}), chunk({"index": 0, "delta": {"content": "A"}})
    )
    assert [(choice["index"], choice["delta"]) for choice in chunks[0]["choices"]] == [
        (0, {"role": "assistant", "content": ""}),
        (1, {"role": "assistant", "content": "B"}),
    ]
    assert chunks[1]["choices"][0]["delta"] == {"content": "A"}


@pytest.mark.parametrize(
    ("native", "told"), [("eos", "stop"), ("tool_call", "tool_calls"), ("whatever", "stop"), (7, "stop")]
)
def test_an_unknown_finish_reason_becomes_a_known_one_and_stays_readable(native: Any, told: str) -> None:
    choice = through(mender(), chunk({"delta": {"content": "a"}, "finish_reason": native}))[0]["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (told, native)


def test_a_choice_finishes_once() -> None:
    ends = [chunk({"delta": {}, "finish_reason": reason, "seed": 1}) for reason in ("tool_calls", "tool_calls", "stop")]
    reasons = [one["choices"][0]["finish_reason"] for one in through(mender(), *ends)]
    assert reasons == ["tool_calls", None, None]


def test_a_finish_repeated_without_anything_else_is_left_out() -> None:
    ends = [chunk({"delta": {}, "finish_reason": "stop"})] * 2
    assert len(through(mender(), *ends)) == 1


@pytest.mark.parametrize("with_call", [True, False])
def test_an_empty_finish_reason_is_settled_before_the_end(with_call: bool) -> None:
    delta = (
        call(id="a", type="function", function={"name": "f", "arguments": "{}"})["delta"]
        if with_call
        else {"content": "a"}
    )
    chunks = through(mender(), chunk({"delta": delta, "finish_reason": ""}))
    assert chunks[0]["choices"][0]["finish_reason"] is None
    assert chunks[1]["choices"][0]["finish_reason"] == ("tool_calls" if with_call else "stop")
    assert (chunks[1]["id"], chunks[1]["object"]) == ("c1", "chat.completion.chunk")


def test_an_empty_finish_reason_is_settled_before_usage() -> None:
    usage = orjson.dumps({**orjson.loads(chunk()), "usage": {"prompt_tokens": 1}})
    chunks = through(mender(), chunk({"delta": {"content": "a"}, "finish_reason": ""}), usage)
    assert len(chunks) == 2
    assert chunks[1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[1]["usage"] == {"prompt_tokens": 1}


def test_a_stream_that_never_says_how_it_ended_gets_no_invented_end() -> None:
    assert through(mender(), chunk({"delta": {"content": "a"}}))[0]["choices"][0]["finish_reason"] is None
    assert len(through(mender(), chunk({"delta": {"content": "a"}}))) == 1


def test_ids_and_names_of_calls_are_told_once() -> None:
    whole = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "x"}}
    assert calls_of(through(mender(), chunk(call(**whole)), chunk(call(**whole)))) == [
        {"index": 0, **whole},
        {"index": 0, "function": {"arguments": "x"}},
    ]


def test_an_id_that_comes_before_the_name_waits_for_it() -> None:
    chunks = through(
        mender(),
        chunk(call(id="a", type="function", function={"arguments": "1"})),
        chunk(call(id="a", function={"name": "f", "arguments": "2"})),
        chunk(call(id="a", function={"arguments": "3"})),
    )
    assert calls_of(chunks) == [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "12"}},
        {"index": 0, "function": {"arguments": "3"}},
    ]


def test_a_call_whose_name_never_comes_is_told_at_the_finish() -> None:
    chunks = through(
        mender(), chunk(call(id="a", function={"arguments": "1"})), chunk({"delta": {}, "finish_reason": "tool_calls"})
    )
    assert [entry["function"]["arguments"] for entry in calls_of(chunks)] == ["1"]


@pytest.mark.parametrize("indexes", [(-1, -1), (None, None), (0.0, 1.0), (3, 7), (0, 0), (True, False)])
def test_calls_are_numbered_from_zero_without_gaps(indexes: tuple[Any, Any]) -> None:
    payloads = [
        chunk(call(index, id=f"call_{n}", type="function", function={"name": "f", "arguments": "{}"}))
        for n, index in enumerate(indexes)
    ]
    found = calls_of(through(mender(), *payloads))
    assert [(entry["index"], entry["id"]) for entry in found] == [(0, "call_0"), (1, "call_1")]
    assert all(type(entry["index"]) is int for entry in found)


def test_arguments_without_index_and_id_belong_to_the_latest_call() -> None:
    payloads = [
        chunk(call(None, id="a", function={"name": "f", "arguments": ""})),
        chunk(call(None, function={"arguments": "{}"})),
    ]
    assert calls_of(through(mender(), *payloads))[1] == {"index": 0, "function": {"arguments": "{}"}}


@pytest.mark.parametrize(("arguments", "told"), [({"a": 1}, '{"a":1}'), (None, ""), ("x", "x"), ([1], "[1]")])
def test_arguments_are_a_string(arguments: Any, told: str) -> None:
    payload = chunk(call(id="a", type="function", function={"name": "f", "arguments": arguments}))
    assert calls_of(through(mender(), payload))[0]["function"]["arguments"] == told


def test_a_call_without_id_gets_the_same_one_every_time() -> None:
    ids = {calls_of(through(mender(), chunk(call(function={"name": "f", "arguments": ""}))))[0]["id"] for _ in range(2)}
    assert len(ids) == 1
    assert ids.pop().startswith("call_")


def test_a_custom_tools_delta_is_left_alone() -> None:
    assert calls_of(through(mender(), chunk(call(id="a", type="custom", custom={"name": "f"}))))[0]["custom"] == {
        "name": "f"
    }


def test_null_tool_calls_go_with_the_repeated_role() -> None:
    said = chunk({"delta": {"role": "assistant", "content": "a", "tool_calls": None}})
    deltas = [one["choices"][0]["delta"] for one in through(mender(), said, said)]
    assert deltas == [{"role": "assistant", "content": "a"}, {"content": "a"}]


def test_nulls_that_no_sdk_minds_cost_nothing() -> None:
    opened = mender()
    opened.chunk(chunk({"delta": {"role": "assistant", "content": ""}}))
    said = chunk({"delta": {"content": "a", "role": None, "tool_calls": None}})
    assert opened.chunk(said) is said


def test_reasoning_is_told_under_the_name_that_clients_know() -> None:
    chunks = through(
        mender(),
        chunk({"delta": {"reasoning": "hm"}}),
        chunk({"delta": {"reasoning": "hm", "reasoning_content": "so"}}),
        chunk({"delta": {"reasoning": None, "content": "a"}}),
    )
    deltas = [one["choices"][0]["delta"] for one in chunks]
    assert [delta.get("reasoning_content") for delta in deltas] == ["hm", "so", None]
    assert "reasoning" not in deltas[0]


def test_a_number_as_logprobs_becomes_the_list_that_clients_know() -> None:
    chunks = through(
        mender(), chunk({"delta": {"content": "é"}, "logprobs": -0.5, "top_logprobs": {"é": -0.5, "e": -2}})
    )
    assert chunks[0]["choices"][0]["logprobs"]["content"] == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [
                {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
                {"token": "e", "logprob": -2.0, "bytes": [101]},
            ],
        }
    ]


def test_usage_beside_content_goes_to_a_last_chunk_if_the_client_asked() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    end = chunk({"delta": {"content": "a"}, "finish_reason": "stop"}, usage=usage)
    chunks = through(mender(**asked), end)
    assert [(one["usage"], len(one["choices"])) for one in chunks] == [(None, 1), (usage, 0)]
    assert [one["usage"] for one in through(mender(), end)] == [usage]


def test_usage_that_comes_twice_is_told_once() -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    last = orjson.dumps({**orjson.loads(chunk()), "usage": {"prompt_tokens": 9}})
    chunks = through(mender(**asked), chunk({"delta": {"content": "a"}}, usage={"prompt_tokens": 1}), last)
    assert [one.get("usage") for one in chunks] == [None, {"prompt_tokens": 9}]


def test_a_chunk_that_says_nothing_of_the_stream_is_completed() -> None:
    bare = orjson.dumps({"choices": [{"index": 0, "delta": {"content": "b"}}]})
    chunks = through(mender(), chunk({"delta": {"content": "a"}}), bare)
    assert {name: chunks[1][name] for name in ("id", "created", "model", "object")} == {
        "id": "c1",
        "created": 1,
        "model": "m",
        "object": "chat.completion.chunk",
    }


def whole(message: Any, **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": "stop", **more}
    return orjson.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


def test_a_sound_answer_stays_the_same_object() -> None:
    for message in ({"role": "assistant", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": []}):
        body = whole(message)
        assert mender().body(body) is body


def test_one_bad_finish_reason_among_several_is_found() -> None:
    choices = [
        {"index": n, "message": {"role": "assistant", "content": "a"}, "finish_reason": r}
        for n, r in enumerate(("stop", "eos"))
    ]
    answer = orjson.loads(mender().body(orjson.dumps({"object": "chat.completion", "choices": choices})))
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "stop"]


@pytest.mark.parametrize("reason", ["", None])
def test_an_answer_with_calls_and_no_reason_ended_for_the_calls(reason: Any) -> None:
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": None}}]}
    choice = orjson.loads(mender().body(whole(message, finish_reason=reason)))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    made = choice["message"]["tool_calls"][0]
    assert (made["type"], made["function"]) == ("function", {"name": "f", "arguments": "{}"})
    assert made["id"].startswith("call_")


def test_what_is_no_call_is_left_alone() -> None:
    body = whole({"role": "assistant", "content": None, "tool_calls": [7, {"id": "a", "type": "custom", "custom": {}}]})
    assert mender().body(body) is body


def test_a_later_delta_without_arguments_says_nothing_more() -> None:
    first = call(id="a", type="function", function={"name": "f", "arguments": "{}"})
    assert calls_of(through(mender(), chunk(first), chunk(call(id="a", function={"name": "f"}))))[1] == {
        "index": 0,
        "function": {},
    }


def test_an_answer_without_a_message_gets_an_empty_one() -> None:
    answer = orjson.dumps({"id": "x", "choices": [{"index": 0, "finish_reason": "content_filter"}]})
    mended = orjson.loads(mender().body(answer))
    assert mended["choices"][0]["message"] == {"role": "assistant", "content": None}
    assert mended["object"] == "chat.completion"


@pytest.mark.parametrize("tops", [{"Hi": -0.1}, [{"Hi": -0.1}]])
def test_parallel_lists_of_logprobs_become_one_list(tops: Any) -> None:
    body = whole(
        {"role": "assistant", "content": "Hi"},
        logprobs={"tokens": ["Hi"], "token_logprobs": [-0.1], "top_logprobs": tops},
    )
    content = orjson.loads(mender().body(body))["choices"][0]["logprobs"]["content"]
    assert content[0]["logprob"] == -0.1
    assert content[0]["top_logprobs"] == [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105]}]


def test_a_token_without_a_probability_has_openais_stand_in() -> None:
    body = whole({"role": "assistant", "content": "Hi"}, logprobs={"tokens": ["H", "i"], "token_logprobs": [None]})
    content = orjson.loads(mender().body(body))["choices"][0]["logprobs"]["content"]
    assert [entry["logprob"] for entry in content] == [-9999.0, -9999.0]


def test_an_answer_too_deep_to_write_again_passes_as_it_is() -> None:
    body = (
        b'{"choices":[{"index":0,"message":{"role":"assistant","x":'
        + b"[" * 300
        + b"]" * 300
        + b'},"finish_reason":"eos"}]}'
    )
    assert mender().body(body) is body
