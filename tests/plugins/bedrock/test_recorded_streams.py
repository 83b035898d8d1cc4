from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from gateway.errors import Truncated
from gateway.eventstream import FrameReader
from gateway.hub import Json
from tests import corpus
from tests.plugins.bedrock.support import (
    CLAUDE,
    accumulated,
    chunks_of,
    deltas,
    opened,
    plain,
    read,
)


def request_of(case: Json) -> tuple[str, Json]:
    """Model and tools of a recorded case, as a client would have named them."""
    from urllib.parse import unquote

    sent = case["request"] or {}
    path = (sent.get("path") or f"/model/{CLAUDE}/converse-stream").split("/")[2]
    return unquote(path), {}


STREAMS = corpus.cases("bedrock", kind="stream", endpoint="converse-stream")


@pytest.mark.parametrize("case", STREAMS)
def test_recorded_streams_are_read_the_same_at_every_cut(case: Json) -> None:
    data = corpus.body(case)
    model, params = request_of(case)
    chunks = chunks_of(opened(model, **params), [data])
    rng = random.Random(7)
    cuts = list(range(1, len(data))) if len(data) < 1_500 else rng.sample(range(1, len(data)), 200)
    for cut in cuts:
        assert chunks_of(opened(model, **params), [data[:cut], data[cut:]]) == chunks
    pieces = sorted(rng.sample(range(1, len(data)), 20))
    assert (
        chunks_of(opened(model), [data[a:b] for a, b in zip([0, *pieces], [*pieces, len(data)], strict=True)]) == chunks
    )


@pytest.mark.parametrize("case", STREAMS)
def test_recorded_streams_shortened_at_any_frame_never_look_complete(case: Json) -> None:
    data = corpus.body(case)
    at = 0
    while at < len(data):
        decoder = opened(request_of(case)[0])
        chunks = decoder.feed(data[:at])
        assert not decoder.done
        if not any(chunk["choices"] and chunk["choices"][0]["finish_reason"] for chunk in chunks):
            with pytest.raises(Truncated):
                decoder.finish()
        at += int.from_bytes(data[at : at + 4])
    assert at == len(data)


@pytest.mark.parametrize("case", STREAMS)
def test_recorded_streams_give_strict_chunks_and_right_sums(case: Json) -> None:
    from jsonschema import Draft202012Validator

    definitions = corpus.schema("chat-strict")["$defs"]
    validator = Draft202012Validator({"$ref": "#/$defs/CreateChatCompletionStreamResponse", "$defs": definitions})
    data = corpus.body(case)
    chunks = chunks_of(opened(request_of(case)[0]), [data])
    for chunk in chunks:
        assert list(validator.iter_errors(plain(chunk))) == []
    counts = orjson.loads(FrameReader().feed(data)[-1].payload)["usage"]
    assert chunks[-1]["usage"]["total_tokens"] == counts["totalTokens"]
    assert sum(bool(c["choices"] and c["choices"][0]["finish_reason"]) for c in chunks) == 1


@pytest.mark.parametrize("case", STREAMS)
def test_recorded_streams_accumulate_to_what_the_whole_answer_gives(case: Json) -> None:
    data = corpus.body(case)
    model = request_of(case)[0]
    chunks = chunks_of(opened(model), [data])
    streamed = accumulated(chunks)["choices"][0]
    whole_answer = read(gathered(data), model)["choices"][0]
    assert streamed["finish_reason"] == whole_answer["finish_reason"]
    message = whole_answer["message"]
    assert (streamed["message"].get("content") or None) == (message["content"] or None)
    assert streamed["message"].get("reasoning_content") == message.get("reasoning_content")
    assert without_index(streamed["message"].get("thinking_blocks")) == message.get("thinking_blocks")
    assert [
        (c["id"], c["function"]["name"], orjson.loads(c["function"]["arguments"]))
        for c in streamed["message"].get("tool_calls") or ()
    ] == [
        (c["id"], c["function"]["name"], orjson.loads(c["function"]["arguments"]))
        for c in message.get("tool_calls", ())
    ]
    assert len(streamed["message"].get("annotations") or ()) == len(message.get("annotations", ()))


def without_index(blocks: list[Json] | None) -> list[Json] | None:
    return blocks and [{name: value for name, value in block.items() if name != "index"} for block in blocks]


def gathered(data: bytes) -> Json:
    """The whole answer that the events of a stream amount to, put together without our decoder."""
    from botocore.eventstream import EventStreamBuffer

    blocks: dict[int, Json] = {}
    answer: Json = {}
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    for message in buffer:
        payload = orjson.loads(message.payload)
        place = payload.get("contentBlockIndex")
        if place is not None:
            block = blocks.setdefault(place, {})
            for kind, what in {**payload.get("start", {}), **payload.get("delta", {})}.items():
                _gather(block, kind, what)
        answer |= {name: payload[name] for name in ("stopReason", "usage") if name in payload}
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = orjson.loads(block["toolUse"]["input"] or "{}")
    return {"output": {"message": {"role": "assistant", "content": list(blocks.values())}}, **answer}


def _gather(block: Json, kind: str, what: Any) -> None:
    if kind == "text":
        block["text"] = block.get("text", "") + what
    elif kind == "toolUse":
        old = block.setdefault("toolUse", {"input": ""})
        block["toolUse"] = {**old, **what, "input": old["input"] + what.get("input", "")}
    elif kind == "reasoningContent":
        inner = block.setdefault("reasoningContent", {"reasoningText": {"text": "", "signature": ""}})["reasoningText"]
        for name in ("text", "signature"):
            inner[name] += what.get(name, "")
    elif kind == "citation" and "text" not in block:
        block.setdefault("citationsContent", {"citations": []})["citations"].append(what)


@pytest.mark.parametrize("case", corpus.cases("bedrock", kind="error", framing="eventstream"))
def test_reported_exception_frames_fail_and_never_look_complete(case: Json) -> None:
    decoder = opened()
    chunks = decoder.feed(corpus.body(case))
    assert decoder.failure is not None
    assert not decoder.done
    assert not any(chunk["choices"] and chunk["choices"][0]["finish_reason"] for chunk in chunks)
    first = "error-before-output" in case["tags"]
    assert deltas(chunks) == ([] if first else [{"role": "assistant", "content": ""}, {"content": "Hel"}])
