"""Recorded answers, those of Claude on Azure included: the same bytes from another host."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import Any

import pytest

from gateway.errors import Truncated
from plugins.anthropic import PROVIDER
from tests import corpus
from tests.plugins.anthropic.anthropic_support import SHARED, accumulated, answer, decoded, opened, plain
from tests.plugins.anthropic.natives import strict


def native_sum(usage: dict[str, Any]) -> tuple[int, int]:
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage.get(name) or 0 for name in names), usage.get("output_tokens") or 0


ANSWERS = corpus.cases("anthropic", kind="chat") + corpus.cases("azure", kind="chat", endpoint="messages")
STREAMS = corpus.cases("anthropic", kind="stream") + corpus.cases("azure", kind="stream", endpoint="messages")


@pytest.mark.parametrize("case", ANSWERS)
def test_a_recorded_answer_becomes_a_strict_completion(case):
    native = json.loads(corpus.body(case))
    found = answer(native)
    strict("CreateChatCompletionResponse", found)
    usage = found["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == native_sum(native["usage"])
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    made = found["choices"][0]["message"]
    wanted = [block["id"] for block in native["content"] if block["type"] == "tool_use"]
    assert [call["id"] for call in made.get("tool_calls", ())] == wanted
    texts = "".join(block["text"] for block in native["content"] if block["type"] == "text")
    assert made["content"] == (texts or (None if wanted else ""))


@pytest.mark.parametrize("case", STREAMS)
def test_a_recorded_stream_is_accepted_by_the_official_accumulator(case):
    data = corpus.body(case)
    chunks = decoded([data])
    for chunk in chunks:
        strict("CreateChatCompletionStreamResponse", chunk, "annotations")
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert sum("role" in c["delta"] for chunk in chunks for c in chunk["choices"]) == 1
    finishes = [c for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert [choice["delta"] for choice in finishes] == [{}]
    assert chunks[-1]["choices"] == []
    if "incomplete-partial-json" in case["id"]:  # max_tokens cut its arguments short: there is no whole form
        assert finishes[0]["finish_reason"] == "length"
    else:
        assert plain(accumulated(chunks)) == plain(answer(whole(data)))


@pytest.mark.parametrize("case", STREAMS)
def test_a_recorded_stream_is_the_same_however_it_is_cut_peer_bug_36(case):
    data = corpus.body(case)
    once = decoded([data])
    dice = random.Random(7)
    cuts = range(1, len(data)) if len(data) < 1500 else sorted(dice.sample(range(1, len(data)), 60))
    for cut in cuts:
        assert decoded([data[:cut], data[cut:]]) == once
    places = [0, *sorted(dice.sample(range(1, len(data)), min(200, len(data) - 1))), len(data)]
    assert decoded([data[a:b] for a, b in itertools.pairwise(places)]) == once


@pytest.mark.parametrize("case", STREAMS)
def test_no_recorded_stream_cut_at_an_event_looks_complete_peer_bug_32(case):
    data = corpus.body(case)
    ends = [found.end() for found in re.finditer(rb"\r?\n\r?\n", data)]
    for end in [0, *(end for end in ends if data[end:].strip())]:
        stream = opened()
        chunks = stream.feed(data[:end])
        assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
        with pytest.raises(Truncated):
            stream.finish()


@pytest.mark.parametrize("case", corpus.cases("anthropic", kind="error", framing="json"))
def test_a_recorded_refusal_keeps_its_meaning_and_hides_our_key(case):
    response = case["response"]
    error = PROVIDER.read_error(response["status"], response.get("headers") or {}, corpus.body(case))
    status = {401: 502, 529: 503}.get(response["status"], response["status"])
    assert error.status == status
    if response["status"] == 401:
        assert (error.code, error.cause) == ("upstream_auth_error", "auth")
        assert "x-api-key" not in error.message
    else:
        assert error.message == response["body"]["error"]["message"]


@pytest.mark.parametrize("case", corpus.cases("anthropic", kind="error", framing="sse"))
def test_an_error_event_fails_the_stream_peer_bug_34(case):
    stream = opened()
    chunks = stream.feed(corpus.body(case))
    assert stream.failure is not None
    assert (stream.failure.status, stream.failure.code) == (503, "overloaded")
    assert not stream.done
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    assert stream.feed(b"data: {}\n\n") == []
    assert stream.finish() == []


def whole(data: bytes) -> dict[str, Any]:
    """The message that a stream amounts to, put together independently of the decoder."""
    found: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    for event in (json.loads(line[5:]) for line in data.decode().splitlines() if line.startswith("data:")):
        kind = event["type"]
        if kind == "message_start":
            found = event["message"]
        elif kind == "content_block_start":
            found["content"].append({**event["content_block"]})
        elif kind == "content_block_delta":
            delta = event["delta"]
            inputs[event["index"]] = inputs.get(event["index"], "") + delta.get("partial_json", "")
            extend(found["content"][event["index"]], delta)
        elif kind == "message_delta":
            found |= event["delta"]
            found["usage"] = found["usage"] | {k: v for k, v in event["usage"].items() if v is not None}
    for index, text in inputs.items():
        if text:
            found["content"][index]["input"] = json.loads(text)
    return found


def extend(block: dict[str, Any], delta: dict[str, Any]) -> None:
    for name in ("text", "thinking", "signature"):
        if name in delta:
            block[name] = (block.get(name) or "") + delta[name]
    if "citation" in delta:
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the specification is not beside the project")
def test_the_golden_stream_gives_the_golden_chunks():
    section = (SHARED / "providers" / "anthropic.md").read_text().split("## 10. Streaming")[1]
    golden = (SHARED / "providers" / "goldens.md").read_text().split("### 2.1 Anthropic")[1].split("### 2.2")[0]
    data = re.findall(r"```\n(.*?)```", section, re.S)[0].strip().encode() + b"\n\n"
    chunks = decoded([data])
    rows = re.findall(r"^\| \d \| `(.*?)` \| (\w+) \|$", golden, re.M)
    assert len(rows) == 9
    for chunk, (delta, finish) in zip(chunks, rows, strict=False):
        reason = None if finish == "null" else finish
        assert chunk["choices"] == [{"index": 0, "delta": json.loads(delta), "finish_reason": reason}]
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["id"], chunk["created"], chunk["model"]) == ("chatcmpl-1", 1764000000, "claude-x")
    assert len(chunks) == 10
    (usage,) = re.findall(r'`"usage":(.*?)` \|', golden)
    assert chunks[-1]["usage"] == json.loads(usage)
