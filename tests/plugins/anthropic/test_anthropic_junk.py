"""Whatever a client or the provider sends, the plugin answers with a body, a completion or a clear error."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, Truncated, UpstreamError
from gateway.hub import PARAMS
from plugins.anthropic import PROVIDER
from tests.plugins.anthropic.anthropic_support import STAMP, USER, build, chat, opened, target

WORDS = st.sampled_from(
    [
        *("type", "name", "function", "custom", "text", "content", "role", "user", "assistant", "tool", "system", "id"),
        *("thinking", "signature", "enabled", "adaptive", "budget_tokens", "effort", "high", "json_schema", "schema"),
        *(
            "properties",
            "anyOf",
            "$ref",
            "format",
            "items",
            "required",
            "image_url",
            "url",
            "file",
            "tools",
            "allowed_tools",
        ),
        *("tool_calls", "tool_call_id", "arguments", "thinking_blocks", "reasoning_details", "cache_control", "betas"),
        *(
            "search_context_size",
            "user_location",
            "approximate",
            "grammar",
            "user_id",
            "input_audio",
            "video_url",
            "#/$defs/a",
        ),
    ]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.floats(0, 3), WORDS, st.just(""))
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=12
)
BLOCKS = st.sampled_from(["text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "x"])


@given(
    st.dictionaries(st.sampled_from(sorted(PARAMS - {"model", "stream"} | {"anthropic"})), JSON, max_size=3),
    st.sampled_from(["claude-sonnet-4-5", "claude-sonnet-4-0", "claude-opus-4-8"]),
)
@settings(max_examples=60, deadline=None)
def test_any_value_of_any_parameter_is_sent_or_refused_clearly(body, family):
    try:
        request = build(family, **body)
    except InvalidRequest as error:
        assert error.param or "nested" in error.message
        return
    assert json.loads(request.body)["model"] == family
    given_names = {name for name, value in body.items() if value is not None}
    assert set(request.dropped) <= given_names | {"cache_control"}


@given(st.lists(st.dictionaries(WORDS, JSON, max_size=4), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_message_is_sent_or_refused_clearly(messages):
    spoken = [
        {**message, "role": "assistant"} if "tool_calls" in message else {"role": "user", **message}
        for message in messages
    ]
    try:
        request = build(messages=[USER, *spoken])
    except InvalidRequest as error:
        assert error.param == "messages"
    else:
        assert json.loads(request.body)["messages"]


TOOLS = [{"type": "function", "function": {"name": "f"}}]
KINDS = st.sampled_from(
    [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
        "ping",
    ]
)
DELTAS = st.sampled_from(["text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta"])


def event(kind: str, index: Any, block: Any, delta: Any, inner: Any, more: Any) -> dict[str, Any]:
    body = {"type": block, "text": inner, "thinking": inner, "id": "a", "name": "f", "input": more, "data": inner}
    change = {
        "type": delta,
        "text": inner,
        "thinking": inner,
        "signature": inner,
        "partial_json": inner,
        "citation": more,
    }
    return {
        "type": kind,
        "index": index,
        "content_block": body,
        "delta": change,
        "message": more,
        "usage": more,
        "error": more,
    }


EVENTS = st.builds(
    event, KINDS, st.integers(0, 2) | JSON, BLOCKS | JSON, DELTAS | JSON, st.text(max_size=3) | JSON, JSON
)


@given(st.lists(EVENTS, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_events_end_in_chunks_or_in_a_failure(items):
    stream = opened(tools=TOOLS)
    data = b"".join(b"data: %s\n\n" % orjson.dumps(item) for item in items)
    chunks = stream.feed(data)
    orjson.dumps(chunks)
    try:
        chunks += stream.finish()
    except Truncated:
        assert not stream.done
    assert stream.done or all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])


@given(JSON, st.lists(st.dictionaries(WORDS, JSON, max_size=5) | JSON, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_answer_is_read_or_is_the_providers_fault(more, content):
    native = {"content": content, "usage": more, "stop_reason": more, "stop_details": more, "model": more}
    for body in (native, more):
        with contextlib.suppress(UpstreamError):
            orjson.dumps(PROVIDER.chat.read_response(orjson.dumps(body), chat(), target(), STAMP))
    assert PROVIDER.read_error(400, {}, orjson.dumps({"error": more, "request_id": more})).status >= 400
