"""The providers whose bytes pass through: what holds for each of them, on recorded traffic."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.abilities import abilities
from gateway.contract import ChatRequest, Mender, Provider, Target
from gateway.dialects.openai_chat import chunks_of
from gateway.envelope import open_envelope
from gateway.errors import GatewayError, UnsupportedParameter, UpstreamError
from gateway.fields import missing
from gateway.hub import FINISH_REASONS, PARAMS
from gateway.relay import Passthrough
from gateway.sse import EventReader
from plugins import azure, fireworks, openai, together, xai
from tests.corpus import body, cases

PROVIDERS = {module.PROVIDER.name: module.PROVIDER for module in (openai, azure, together, fireworks, xai)}
ROOT = Path(__file__).resolve().parents[2]
DECISIONS = {"forward", "rename", "convert", "emulate", "drop", "reject"}


@cache
def rows_of(resource: str) -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / resource).read_text())


def target(name: str, model: str = "m", **more: Any) -> Target:
    provider = PROVIDERS[name]
    known = abilities(rows_of(provider.models), model)
    base = provider.base_url.replace("{resource}", "acme")
    return Target(**{"provider": name, "model": model, "base_url": base, "family": model, "abilities": known, **more})


def families(provider: Provider) -> list[str]:
    patterns = [row["match"] for row in rows_of(provider.models)]
    return [
        "unknown",
        *(
            name.replace("*", "x").replace("[", "").replace("]", "")
            for p in patterns
            for name in ([p] if isinstance(p, str) else p)
        ),
    ]


def request(**fields: Any) -> ChatRequest:
    return open_envelope(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}))


def mender_of(name: str, chat: ChatRequest) -> Mender | None:
    opened = PROVIDERS[name].native["openai.chat"].open_mender
    return opened(chat, target(name)) if opened else None


def mended(name: str, pieces: list[bytes], chat: ChatRequest) -> list[bytes]:
    """The payloads that a client gets, [DONE] left out."""
    mender, reader = mender_of(name, chat), EventReader()
    payloads = [payload for piece in pieces for payload in reader.feed(piece)] + reader.finish()
    payloads = [payload for payload in payloads if payload != b"[DONE]"]
    if mender is None:
        return payloads
    kept = [new for payload in payloads if (new := mender.chunk(payload)) is not None]
    return kept + mender.finish()


def asked(case: dict[str, Any]) -> ChatRequest:
    sent = (case.get("request") or {}).get("body") or {}
    return request(**{name: sent[name] for name in ("n", "stream_options") if name in sent})


ALL = [pytest.param(name, id=name) for name in PROVIDERS]
MISFILED = ("openai-044-stream-stream-unknown-error-responses-1",)  # a stream of the Responses API
STREAMS = [
    pytest.param(name, *case.values, id=case.id, marks=case.marks)
    for name in PROVIDERS
    for case in cases(name, kind="stream", framing="sse", endpoint="chat")
    if case.id not in MISFILED
]
ANSWERS = [
    pytest.param(name, *case.values, id=case.id, marks=case.marks)
    for name in PROVIDERS
    for case in cases(name, kind="chat", framing="json", endpoint="chat")
] + [
    pytest.param("openai", *case.values, id=case.id, marks=case.marks)
    for name in ("bedrock", "gemini")  # their OpenAI-compatible addresses
    for case in cases(name, endpoint="openai-compat")
]
ERRORS = [
    pytest.param(name, *case.values, id=case.id, marks=case.marks)
    for name in PROVIDERS
    for case in cases(name, kind="error", framing="json")
]


@pytest.mark.parametrize("name", ALL)
def test_the_table_is_total_for_every_family(name: str) -> None:
    for family in families(PROVIDERS[name]):
        table = PROVIDERS[name].table(target(name, family))
        assert missing(table, PARAMS) == set()
        assert {row.decision for row in table.values()} <= DECISIONS
        assert all(row.note for row in table.values() if row.decision != "forward")


VALUES: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": False,
    "stop": "END",
    "stream_options": {"include_usage": True},
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "required",
    "logprobs": True,
    "reasoning_effort": "medium",
    "service_tier": "default",
    "model": "m",
}


@pytest.mark.parametrize("param", sorted(PARAMS))
@pytest.mark.parametrize("name", ALL)
def test_a_parameter_fares_as_its_row_says(name: str, param: str) -> None:
    """A forwarded one arrives, a dropped one is named and gone, a rejected one is refused with its name."""
    for family in families(PROVIDERS[name]):
        to = target(name, family)
        value = VALUES.get(param, 7)
        chat = request(**{"tools": VALUES["tools"], param: value})
        row = PROVIDERS[name].table(to)[param]
        build = PROVIDERS[name].native["openai.chat"].build_request
        if row.decision == "reject":
            with pytest.raises(UnsupportedParameter) as refused:
                build(chat, to)
            assert refused.value.param == param
            continue
        sent = build(chat, to)
        arrived = orjson.loads(sent.body)
        if row.decision == "drop":
            assert param in sent.dropped
            assert param not in arrived
        elif row.decision == "rename":
            assert arrived[row.to] == value
            assert param not in arrived
        elif row.decision == "forward" and param != "model":
            assert arrived[param] == value
            assert param not in sent.dropped


@pytest.mark.parametrize("name", ALL)
def test_what_may_not_be_dropped_is_refused_where_the_deployment_says_so(name: str) -> None:
    to = target(name, unsupported="reject")
    build = PROVIDERS[name].native["openai.chat"].build_request
    with pytest.raises(UnsupportedParameter) as refused:
        build(request(safety_settings=[]), to)
    assert refused.value.param == "safety_settings"


@pytest.mark.parametrize("name", ALL)
def test_what_an_attempt_must_leave_out_is_left_out_and_named(name: str) -> None:
    to = target(name, without=frozenset(("seed", "temperature")), unsupported="reject")
    sent = PROVIDERS[name].native["openai.chat"].build_request(request(seed=1, temperature=1, top_p=0.5), to)
    assert set(sent.dropped) == {"seed", "temperature"}
    assert {"seed", "temperature"}.isdisjoint(orjson.loads(sent.body))


@pytest.mark.parametrize("name", ALL)
def test_a_null_says_nothing_and_is_not_reported(name: str) -> None:
    sent = (
        PROVIDERS[name]
        .native["openai.chat"]
        .build_request(request(safety_settings=None, modalities=None), target(name))
    )
    assert sent.dropped == ()
    assert "safety_settings" not in orjson.loads(sent.body)


LONG = (
    b'{ "x_vendor" : {"deep": [1, 2.50, 1e2, "\\u00e9"]},\n  "model":"m" , "messages": [{"role":"user","content":"'
    + b"word " * 4_000
    + b'"}], "x_last":\t18446744073709551617 }'
)


@pytest.mark.parametrize("name", ["openai", "azure", "together", "xai"])
def test_untouched_bytes_arrive_as_they_were_sent(name: str) -> None:
    build = PROVIDERS[name].native["openai.chat"].build_request
    assert build(open_envelope(LONG), target(name, "upstream-7")).body == LONG.replace(b'"m"', b'"upstream-7"')
    assert build(open_envelope(LONG), target(name)).body is LONG


def test_fireworks_adds_one_member_and_changes_no_other_byte() -> None:
    to = target("fireworks", "accounts/a/models/m")
    sent = PROVIDERS["fireworks"].native["openai.chat"].build_request(open_envelope(LONG), to)
    for part in (
        b'"x_vendor" : {"deep": [1, 2.50, 1e2, "\\u00e9"]}',
        b'"x_last":\t18446744073709551617',
        b"word " * 4_000,
    ):
        assert part in sent.body
    assert sent.translated == ("context_length_exceeded_behavior",)


@pytest.mark.parametrize("name", ALL)
def test_the_request_is_a_pure_function_of_its_input(name: str) -> None:
    chat = request(max_tokens=5, stop="x", logprobs=True, top_logprobs=9, reasoning_effort="max", stream=True)
    build = PROVIDERS[name].native["openai.chat"].build_request
    before = chat.edited({})
    first = build(chat, target(name, "other"))
    assert first == build(chat, target(name, "other"))
    assert chat.edited({}) == before


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_a_recorded_stream_is_the_same_however_it_is_cut(name: str, case: dict[str, Any]) -> None:
    data = body(case)
    whole = mended(name, [data], asked(case))
    every = range(1, len(data))
    rng = random.Random(len(data))
    for cuts in [[cut] for cut in every] if len(data) < 1_500 else [sorted(rng.sample(every, 20)) for _ in range(10)]:
        points = [0, *cuts, len(data)]
        assert mended(name, [data[a:b] for a, b in pairwise(points)], asked(case)) == whole


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_a_recorded_stream_runs_through_the_official_accumulator(name: str, case: dict[str, Any]) -> None:
    payloads = mended(name, [body(case)], asked(case))
    state = ChatCompletionStreamState()
    finishes: dict[int, list[str]] = {}
    for payload in payloads:
        if b'"error"' in payload and "error" in orjson.loads(payload):
            pytest.skip("the provider reports an error in this stream")
        chunk = ChatCompletionChunk.model_validate_json(payload)
        assert chunk.object == "chat.completion.chunk"
        list(state.handle_chunk(ChatCompletionChunk.construct(**orjson.loads(payload))) or [])
        for choice in chunk.choices:
            finishes.setdefault(choice.index, []).extend([choice.finish_reason] if choice.finish_reason else [])
    final = state.current_completion_snapshot
    assert final.id
    assert final.model
    for choice in final.choices:
        assert choice.message.role == "assistant"
        assert len(finishes[choice.index]) == 1 or "[DONE]" not in body(case).decode()
        assert_sound_calls([call.model_dump() for call in choice.message.tool_calls or []])


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_a_recorded_streams_usage_comes_last(name: str, case: dict[str, Any]) -> None:
    payloads = [orjson.loads(payload) for payload in mended(name, [body(case)], asked(case))]
    with_usage = [number for number, chunk in enumerate(payloads) if chunk.get("usage")]
    if asked(case).wants_usage:
        assert with_usage == [len(payloads) - 1]
        assert payloads[-1]["choices"] == []
    else:
        assert with_usage in ([], [len(payloads) - 1])


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_mending_loses_no_text_and_no_argument(name: str, case: dict[str, Any]) -> None:
    reader = EventReader()
    raw = [payload for payload in (*reader.feed(body(case)), *reader.finish()) if payload != b"[DONE]"]
    assert said(raw) == said(mended(name, [body(case)], asked(case)))


def said(payloads: list[bytes]) -> tuple[str, str, str]:
    """All content, reasoning and arguments in the order they came."""
    content, reasoning, arguments = "", "", ""
    for payload in payloads:
        for choice in orjson.loads(payload).get("choices", ()):
            delta = choice.get("delta") or {}
            content += delta.get("content") or ""
            reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
            arguments += "".join(
                call.get("function", {}).get("arguments") or "" for call in delta.get("tool_calls") or ()
            )
    return content, reasoning, arguments


@pytest.mark.parametrize(("name", "case"), STREAMS)
def test_mending_a_mended_stream_changes_nothing(name: str, case: dict[str, Any]) -> None:
    once = mended(name, [body(case)], asked(case))
    mender = mender_of(name, asked(case))
    again = once if mender is None else [mender.chunk(payload) for payload in once] + mender.finish()
    assert all(new is old for new, old in zip(again, once, strict=True))


@pytest.mark.parametrize(("name", "case"), ANSWERS)
def test_a_recorded_answer_is_what_the_official_types_say(name: str, case: dict[str, Any]) -> None:
    mender = mender_of(name, asked(case))
    data = body(case)
    sound = mender.body(data) if mender else data
    answer = orjson.loads(sound)
    ChatCompletion.model_validate(with_required(answer), strict=False)
    for choice in answer["choices"]:
        assert choice["finish_reason"] in FINISH_REASONS
        assert_sound_calls(choice["message"].get("tool_calls") or [])
    assert (mender.body(sound) if mender else sound) is sound


def with_required(answer: dict[str, Any]) -> dict[str, Any]:
    """Keys that the types ask for and that even OpenAI leaves out are filled in, so that only the shape is judged."""
    choices = [{"logprobs": None, **choice} for choice in answer["choices"]]
    return {**answer, "choices": choices}


def assert_sound_calls(calls: list[dict[str, Any]]) -> None:
    ids = [call["id"] for call in calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    for call in calls:
        assert call["type"] == "function"
        assert call["function"]["name"]
        orjson.loads(call["function"]["arguments"] or "{}")


@pytest.mark.parametrize(("name", "case"), ERRORS)
def test_a_recorded_error_has_a_status_and_shows_no_secret(name: str, case: dict[str, Any]) -> None:
    response = case["response"]
    headers = {key.lower(): value for key, value in response["headers"].items()}
    error = PROVIDERS[name].read_error(response["status"], headers, body(case))
    assert isinstance(error, UpstreamError)
    assert isinstance(error, GatewayError)
    expected = {401: 502, 403: 502, 412: 502}.get(response["status"], response["status"])
    assert error.status == expected
    shown = orjson.dumps(error.body()).decode()
    assert error.message
    assert not any(secret in shown for secret in ("*****", "platform.openai.com", "sk-", "org-"))
    assert {"message", "type", "param", "code"} <= set(error.body()["error"])
    assert error.details["provider"] == name


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "payload", [b"{oops}", b"7", b"[]", b'{"choices":7}', b'{"choices":[7]}', b"{}", b'{"error":{"message":"x"}}']
)
def test_what_is_no_chunk_passes_as_it_is_or_is_left_out(name: str, payload: bytes) -> None:
    mender = mender_of(name, request())
    if mender:
        assert mender.chunk(payload) in (payload, None)
        assert mender.body(payload) == payload or payload == b'{"choices":[7]}'


REQUESTS = [
    param for param in STREAMS + ANSWERS if not param.values[1] or (param.values[1].get("request") or {}).get("body")
]
# Taken out although it was accepted once: other models of the same provider refuse it.
CAUTIOUS = {"messages.name", "tools.function.strict", "tool_choice", "parallel_tool_calls"}


@pytest.mark.parametrize(("name", "case"), REQUESTS)
def test_what_a_provider_accepted_it_still_gets(name: str, case: dict[str, Any]) -> None:
    sent = case["request"]["body"]
    model = sent.get("model") or case["request"]["path"].split("/deployments/")[-1].split("/")[0]
    chat = open_envelope(orjson.dumps({"model": model, **sent}))
    made = PROVIDERS[name].native["openai.chat"].build_request(chat, target(name, model))
    arrived = orjson.loads(made.body)
    assert set(made.dropped) <= CAUTIOUS
    for key, value in sent.items():
        if key not in ("model", "stream_options", "tools", "messages", *made.dropped, *made.translated):
            assert arrived.get({"max_completion_tokens": "max_tokens"}.get(key, key), arrived.get(key)) == value


TALK: dict[str, Any] = {
    "max_completion_tokens": 300,
    "temperature": 1.4,
    "stop": "END",
    "user": "u-1",
    "seed": 7,
    "parallel_tool_calls": False,
    "tool_choice": "required",
    "messages": [
        {"role": "system", "content": "Be short"},
        {"role": "developer", "content": "Use metric units"},
        {"role": "user", "content": "So?"},
    ],
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
}


@pytest.mark.parametrize(
    ("name", "model", "changed", "dropped", "translated"),
    [
        (
            *("together", "org/m", {"max_tokens": 300, "stop": ["END"], "roles": ["system", "system", "user"]}),
            *({"user", "parallel_tool_calls"}, {"stop", "messages"}),
        ),
        ("xai", "grok-4", {"roles": ["system", "system", "user"]}, {"stop"}, {"messages"}),
        ("azure", "gpt-4o", {}, set(), set()),
        ("openai", "gpt-5", {}, {"temperature", "stop"}, set()),
        (
            *("fireworks", "a/m", {"context_length_exceeded_behavior": "error", "roles": ["system", "system", "user"]}),
            *(set(), {"messages", "context_length_exceeded_behavior"}),
        ),
    ],
)
def test_one_conversation_as_each_provider_takes_it(
    name: str, model: str, changed: dict[str, Any], dropped: set[str], translated: set[str]
) -> None:
    made = PROVIDERS[name].native["openai.chat"].build_request(request(**TALK), target(name, model))
    arrived = orjson.loads(made.body)
    roles = changed.pop("roles", ["system", "developer", "user"])
    assert (set(made.dropped), set(made.translated)) == (dropped, translated)
    assert [message["role"] for message in arrived.pop("messages")] == roles
    renamed = {"max_completion_tokens"} if "max_tokens" in changed else set()
    kept = {key: value for key, value in TALK.items() if key not in dropped | renamed | {"messages"}}
    assert arrived == {**kept, **changed, "model": model}


@pytest.mark.parametrize("case", cases("openai", kind="error", framing="sse"))
def test_a_recorded_error_inside_a_stream_breaks_it_after_what_was_good(case: dict[str, Any]) -> None:
    data = body(case)
    for cut in range(len(data)):
        relay = Passthrough(lambda payload: PROVIDERS["openai"].read_error(200, {}, payload), chunks_of)
        passed = relay.feed(data[:cut]) + relay.feed(data[cut:])
        assert relay.failure is not None
        assert not relay.done
        assert b"Par" in passed
        assert b"error" not in passed


def test_an_error_event_inside_a_stream_has_the_status_it_speaks_of() -> None:
    for provider in PROVIDERS.values():
        read = provider.read_error
        assert read(200, {}, b'{"error":{"message":"overloaded","type":"server_error","code":503}}').status == 503
        assert read(200, {}, b'{"id":"x","choices":[],"error":{"message":"no capacity","code":502}}').status == 502
        assert read(200, {}, b'{"error":{"message":"sorry","type":"server_error"}}').status == 500


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
