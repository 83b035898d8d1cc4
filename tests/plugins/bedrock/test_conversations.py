from __future__ import annotations

import copy
import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, UnsupportedParameter
from gateway.hub import Json
from tests import corpus
from tests.plugins.bedrock.rules import check
from tests.plugins.bedrock.support import CLAUDE, MARK, MODELS, PDF, PNG, SIGNED, build, built, says, target

TEXTS = st.one_of(st.sampled_from(["", " ", "a", "hello\n", "é"]), st.text(max_size=5))
IDS = st.sampled_from(["a", "b", "call_1", "ä", "x" * 70, "functions.f:0", ""])
NAMES = st.sampled_from(["f", "g", "a.b", "a/b", "n" * 70, "ü"])
PARTS = st.one_of(
    st.builds(lambda text, mark: {"type": "text", "text": text, **mark}, TEXTS, st.sampled_from([{}, MARK])),
    st.just({"type": "image_url", "image_url": {"url": PNG}}),
    st.just(PDF),
)
CONTENT = st.one_of(st.none(), TEXTS, st.lists(PARTS, max_size=4))
CALLS = st.builds(
    lambda use_id, name, arguments: {
        "id": use_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    IDS,
    NAMES,
    st.sampled_from(["", "{}", '{"a":1}', "{bad", None, '{"a":1}{"b":2}']),
)
MESSAGES = st.one_of(
    st.builds(says, st.sampled_from(["user", "system", "developer"]), CONTENT),
    st.builds(lambda content, calls: says("assistant", content, tool_calls=calls), TEXTS, st.lists(CALLS, max_size=3)),
    st.builds(
        lambda content, blocks: says("assistant", content, thinking_blocks=blocks),
        TEXTS,
        st.lists(st.just(SIGNED), max_size=2),
    ),
    st.builds(
        lambda use_id, content, mark: {"role": "tool", "tool_call_id": use_id, "content": content, **mark},
        IDS,
        CONTENT,
        st.sampled_from([{}, MARK]),
    ),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    messages=st.lists(MESSAGES, min_size=1, max_size=9),
    model=st.sampled_from(MODELS),
    tools=st.lists(NAMES, max_size=3, unique=True),
    effort=st.sampled_from([None, "none", "high"]),
)
def test_any_conversation_becomes_one_that_converse_takes(
    messages: list[Json], model: str, tools: list[str], effort: str | None
) -> None:
    params: Json = {"messages": messages, "reasoning_effort": effort}
    params["tools"] = [{"type": "function", "function": {"name": name}} for name in tools]
    before = copy.deepcopy(params)
    try:
        body = build(model, params)
    except UnsupportedParameter as error:
        assert error.param == "messages"
        assert re.search("image|document|system message", str(error))
        return
    check(body)
    assert params == before
    assert build(model, params) == body


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["type", "role", "content", "text", "tool_calls", "function", "name", "image_url"]),
                inner,
                max_size=3,
            ),
        ),
        max_leaves=8,
    )
)
def test_a_malformed_message_is_our_error_and_never_a_crash(value: Any) -> None:
    for messages in ([value], [{"role": "user", "content": value}], [{"role": "assistant", "tool_calls": value}]):
        try:
            build(CLAUDE, messages=messages)
        except GatewayError as error:
            assert error.status == 400


def pairs() -> list[Any]:
    folder = corpus.CORPUS / "_pairs"
    if not folder.is_dir():
        return [pytest.param({}, marks=pytest.mark.skip(reason="no recorded traffic"))]
    found = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    return [
        pytest.param(pair, id=pair["id"])
        for pair in found
        if "bedrock" in pair["members"] and "openai" in pair["members"]
    ]


def meaning(body: Json) -> Json:
    """The body without what differs by library: limits, ids, descriptions, strictness, auto, empty members."""
    numbers: dict[str, str] = {}
    text = json.dumps(body, sort_keys=True)
    for use_id in re.findall(r'"toolUseId": "([^"]+)"', text):
        numbers.setdefault(use_id, f"id-{len(numbers)}")
        text = text.replace(use_id, numbers[use_id])
    found: Json = json.loads(text)
    found.get("inferenceConfig", {}).pop("maxTokens", None)
    config = found.get("toolConfig", {})
    config.pop("toolChoice", None) if config.get("toolChoice") == {"auto": {}} else None
    for tool in config.get("tools", ()):
        spec = tool["toolSpec"]
        spec.pop("strict", None)
        spec["inputSchema"]["json"] = {
            k: v for k, v in spec["inputSchema"]["json"].items() if k not in ("additionalProperties", "title")
        }
    for turn in found["messages"]:
        for block in turn["content"]:
            block.get("toolResult", {}).pop("status", None)
    return {name: value for name, value in found.items() if value not in ({}, [])}


# Where a library sent other tools to Bedrock than to OpenAI: it left one out, forced none, or made a tool of a schema.
OTHERWISE = {
    "pydantic-tool-choice-tools_plus_output-1": ("toolConfig",),
    "pydantic-tool-choice-tools_plus_output-2": ("toolConfig",),
    "reqllm-object_basic": ("toolConfig", "outputConfig"),
    "reqllm-tool_round_trip_1": ("toolConfig",),
    "reqllm-tool_round_trip_2": ("toolConfig",),
}


@pytest.mark.parametrize("pair", pairs())
def test_a_scenario_becomes_what_other_libraries_sent(pair: Json) -> None:
    member = pair["members"]["bedrock"]
    request = built(target(member["model"]), pair["members"]["openai"]["body"])
    body = orjson.loads(request.body)
    check(body)
    ours, theirs = meaning(body), meaning(member["body"])
    for name in OTHERWISE.get(pair["id"], ()):
        ours.pop(name, None), theirs.pop(name, None)
    assert ours == theirs
    assert request.url.rsplit("/", 1)[1] == member["endpoint"]
