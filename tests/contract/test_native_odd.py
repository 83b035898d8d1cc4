"""The providers whose bytes pass through: odd requests and odd answers break nothing."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UnsupportedParameter
from gateway.hub import PARAMS
from tests.contract.native import PROVIDERS, mender_of, request, target

SCALARS = st.none() | st.booleans() | st.integers(-3, 300) | st.sampled_from(["", "a", "stop", 0.5, -1.0, "none"])
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner), max_leaves=5
)


def objects(*names: str, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with some of these keys, mostly well formed and sometimes anything."""
    parts = {**dict.fromkeys(names, ANYTHING), **known}
    return st.fixed_dictionaries({}, optional=parts) | ANYTHING


FUNCTIONS = objects("name", "arguments")
CALLS = st.lists(objects("index", "id", "type", "custom", function=FUNCTIONS), max_size=3) | ANYTHING
DELTAS = objects("role", "content", "reasoning", "reasoning_content", tool_calls=CALLS)
LOGPROBS = objects("tokens", "token_logprobs", "top_logprobs", "content")
CHOICES = st.lists(
    objects("index", "finish_reason", "top_logprobs", delta=DELTAS, message=DELTAS, logprobs=LOGPROBS), max_size=3
)
CHUNKS = objects("id", "object", "created", "model", "usage", "prompt_filter_results", choices=CHOICES)


@settings(max_examples=150, deadline=None)
@given(st.lists(CHUNKS, max_size=5))
def test_no_answer_however_odd_breaks_the_mender(chunks: list[Any]) -> None:
    mender = mender_of("together", request(stream=True, stream_options={"include_usage": True}, n=2))
    assert mender is not None
    for payload in map(orjson.dumps, chunks):
        for made in (mender.chunk(payload), mender.body(payload)):
            assert made is None or isinstance(orjson.loads(made), type(orjson.loads(payload)))
    for made in mender.finish():
        assert orjson.loads(made)["object"] == "chat.completion.chunk"


FIVE = (("openai", "gpt-5.6"), ("azure", "o3"), ("together", "zai-org/GLM-5.2"), ("fireworks", "m"), ("xai", "grok-4"))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(PARAMS - {"model", "stream"})), ANYTHING, max_size=6), st.booleans())
def test_no_request_however_odd_gives_anything_but_a_request_or_a_clear_refusal(
    fields: dict[str, Any], stream: bool
) -> None:
    for name, model in FIVE:
        to = target(name, model)
        try:
            made = PROVIDERS[name].native["openai.chat"].build_request(request(**{"stream": stream, **fields}), to)
        except UnsupportedParameter as refused:
            assert refused.param in fields
            continue
        table = PROVIDERS[name].table(to)
        lost = set(fields) - set(orjson.loads(made.body)) - set(made.dropped) - set(made.translated)
        assert all(fields[name] is None or table[name].decision in ("rename", "reject", "convert") for name in lost)
