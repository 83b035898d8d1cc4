"""Hub requests as Messages requests: the table, headers and parameters."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway.contract import Credential
from gateway.envelope import open_envelope
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.fields import missing
from gateway.hub import PARAMS
from plugins.anthropic import PROVIDER, check
from tests.plugins.anthropic.anthropic_support import ROWS, SHARED, USER, build, chat, sent, target
from tests.plugins.anthropic.conversations import BUDGET, FAMILIES, NEW, PNG, TOOL, calls, result, system
from tests.plugins.anthropic.official import assert_official


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_is_total(family):
    assert missing(PROVIDER.table(target(family)), PARAMS) == set()


def test_the_record_authorizes_by_header_and_only_by_that():
    request = build()
    assert PROVIDER.authorize(request, Credential("key", "k"), 0) == {"x-api-key": "k"}
    assert PROVIDER.authorize(request, Credential("bearer", "t"), 0) == {"authorization": "Bearer t"}


def test_options_are_checked():
    assert check({"api_version": "2026-10-21", "beta": ["a", "b"]}, "m") == []
    assert check({}, "m") == []
    assert [problem.option for problem in check({"api_version": "latest", "beta": 7}, "m")] == ["api_version", "beta"]


def test_every_row_of_the_capability_data_names_known_abilities():
    assert {name for row in ROWS for name in row} == {"match", *ROWS[0]}


@pytest.mark.parametrize(
    ("family", "max_output"),
    [
        ("claude-3-haiku-20240307", 4096),
        ("claude-opus-4-1-20250805", 32000),
        ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", 64000),
        ("claude-opus-4-6", 128000),
        ("claude-of-2030", 128000),
    ],
)
def test_the_models_maximum_is_sent_when_no_limit_is_named(family, max_output):
    assert sent(family)["max_tokens"] == max_output


def test_a_date_is_not_taken_for_a_version():
    assert target("claude-fable-5-20260901").abilities["forced_tool"] is True
    assert target("claude-fable-5-2-20260901").abilities["forced_tool"] is False


@pytest.mark.skipif(not SHARED.is_dir(), reason="the specification is not beside the project")
def test_the_golden_request_gives_the_golden_body():
    given, wanted = map(
        json.loads, re.findall(r"```json\n(.*?)\n```", (SHARED / "providers/goldens.md").read_text())[:2]
    )
    request = PROVIDER.chat.build_request(chat(**given), target("claude-sonnet-4-5"))
    assert json.loads(request.body) == wanted
    assert request.dropped == ("seed",)
    assert set(request.translated) == {"temperature", "stop", "parallel_tool_calls"}
    assert request.url == "https://api.anthropic.com/v1/messages"
    assert_official(wanted)


def test_the_version_is_an_option_and_betas_are_merged_once():
    assert build().headers["anthropic-version"] == "2023-06-01"
    where = target(options={"api_version": "2026-10-21", "beta": ["a", "b"]})
    headers = {"anthropic-beta": "b, c"}
    request = PROVIDER.chat.build_request(chat(headers, anthropic={"betas": ["d"]}), where)
    assert request.headers["anthropic-version"] == "2026-10-21"
    assert request.headers["anthropic-beta"] == "a,b,c,d"
    assert "betas" not in json.loads(request.body)
    assert "anthropic-beta" not in build().headers


def test_a_file_by_id_brings_the_beta_that_it_needs():
    part = {"type": "file", "file": {"file_id": "file_1"}}
    request = build(messages=[{"role": "user", "content": [part]}])
    assert request.headers["anthropic-beta"] == "files-api-2025-04-14"
    inside = build(messages=[USER, calls("a"), result("a", [part])], tools=[TOOL])
    assert inside.headers["anthropic-beta"] == "files-api-2025-04-14"


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        ({"max_tokens": 7}, "max_tokens", 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, "max_tokens", 9),
        ({"max_tokens": 10**9}, "max_tokens", 64000),
        ({"max_tokens": 0}, "max_tokens", 0),
        ({"temperature": 0.2}, "temperature", 0.2),
        ({"temperature": 2}, "temperature", 1),
        ({"top_p": 0.5}, "top_p", 0.5),
        ({"top_k": 4}, "top_k", 4),
        ({"stop": "a"}, "stop_sequences", ["a"]),
        ({"stop": ["a", " ", ""]}, "stop_sequences", ["a"]),
        ({"stream": True}, "stream", True),
        ({"user": "u"}, "metadata", {"user_id": "u"}),
        ({"user": "u", "safety_identifier": "s"}, "metadata", {"user_id": "s"}),
        ({"metadata": {"user_id": "m"}}, "metadata", {"user_id": "m"}),
        ({"service_tier": "default"}, "service_tier", "standard_only"),
        ({"service_tier": "priority"}, "service_tier", "auto"),
        ({"cache_control": {"type": "ephemeral"}}, "cache_control", {"type": "ephemeral"}),
        ({"anthropic": {"speed": "fast"}}, "speed", "fast"),
        ({"max_tokens": 200_000, "anthropic": {"betas": ["output-300k-2026-03-24"]}}, "max_tokens", 200_000),
    ],
)
def test_a_parameter_reaches_the_provider(body, name, value):
    request = build(**body)
    assert json.loads(request.body)[name] == value
    assert request.dropped == ()


PICTURE = {
    "role": "user",
    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0=", "detail": "low"}}],
}


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"seed": 1, "logit_bias": {"1": 2}, "verbosity": "low"}, {"seed", "logit_bias", "verbosity"}),
        (
            {"frequency_penalty": 1, "presence_penalty": 1, "repetition_penalty": 2, "min_p": 0.1},
            {"frequency_penalty", "presence_penalty", "repetition_penalty", "min_p"},
        ),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs", "top_logprobs"}),
        ({"user": "me@example.com"}, {"user"}),
        ({"user": "+49 170 1234567"}, {"user"}),
        ({"metadata": {"a": "b"}}, {"metadata"}),
        ({"stop": [" "]}, {"stop"}),
        ({"service_tier": "flex"}, {"service_tier"}),
        ({"temperature": 0.5, "top_p": 0.5}, {"top_p"}),
        ({"tool_choice": "required"}, {"tool_choice"}),
        ({"of_2030": 1}, {"of_2030"}),
        ({"web_search_options": "low"}, {"web_search_options"}),
        ({"messages": [{"role": "user", "name": "bob", "content": "q"}]}, {"messages.name"}),
        ({"messages": [PICTURE]}, {"messages.image_url.detail"}),
        ({"store": True, "prediction": {}, "prompt_cache_key": "k"}, {"store", "prediction", "prompt_cache_key"}),
    ],
)
def test_what_is_left_out_is_named(body, names):
    assert set(build(**body).dropped) == names
    with pytest.raises(UnsupportedParameter):
        build(BUDGET, {"unsupported": "reject"}, **body)


@pytest.mark.parametrize(
    "body",
    [
        {"n": 1},
        {"logprobs": False},
        {"modalities": ["text"]},
        {"frequency_penalty": 0},
        {"logit_bias": {}},
        {"seed": None},
    ],
)
def test_what_asks_for_nothing_is_not_named_even_under_a_strict_policy(body):
    assert build(BUDGET, {"unsupported": "reject"}, **body).dropped == ()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": ["x"]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "mystery"}]}, "tools"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "maybe"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"anthropic": {"model": "x"}}, "anthropic"),
        ({"anthropic": "x"}, "anthropic"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "mystery"}]}]}, "messages"),
        ({"messages": [system([{"type": "image_url", "image_url": PNG}]), USER]}, "messages"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_name(body, param):
    with pytest.raises(InvalidRequest) as caught:
        build(**body)
    assert caught.value.status == 400
    assert caught.value.param == param


def test_several_choices_are_left_to_the_gateway_where_the_deployment_says_so():
    assert "n" not in sent(BUDGET, {"emulate": frozenset(("n",))}, n=2)


def test_a_request_nested_too_deeply_is_refused():
    deep: Any = {}
    for _ in range(300):
        deep = {"properties": {"a": deep}}
    raw = json.dumps({"model": "m", "messages": [USER], "anthropic": {"x": deep}}).encode()
    with pytest.raises(InvalidRequest):
        PROVIDER.chat.build_request(open_envelope(raw), target())


def test_parameters_that_an_attempt_must_leave_out_are_left_out():
    request = build(
        BUDGET, {"without": frozenset(("temperature", "tools", "stop"))}, temperature=0.5, tools=[TOOL], stop="x"
    )
    body = json.loads(request.body)
    assert not {"temperature", "tools", "stop_sequences"} & set(body)
    assert set(request.dropped) == {"temperature", "tools", "stop"}


def test_the_native_object_is_merged_last_one_level_deep():
    body = sent(NEW, reasoning_effort="low", anthropic={"output_config": {"effort": "max"}, "top_k": 3})
    assert body["output_config"] == {"effort": "max"}
    assert body["top_k"] == 3


def test_newer_models_get_no_sampling_parameters():
    request = build(NEW, temperature=0.3, top_p=0.4, top_k=5)
    assert not {"temperature", "top_p", "top_k"} & set(json.loads(request.body))
    assert request.dropped == ("temperature", "top_p", "top_k")
    assert build(NEW, temperature=1).dropped == ()


def test_a_neutral_value_is_sent_where_it_is_taken_and_left_out_unnamed_elsewhere():
    assert sent(BUDGET, temperature=1)["temperature"] == 1
    assert build(BUDGET, temperature=0.5, top_p=1).dropped == ()
    assert build(BUDGET, temperature=1, reasoning_effort="low").dropped == ()


def test_the_newest_version_gets_no_sampling_parameters_either():
    request = build(BUDGET, {"options": {"api_version": "2026-10-21"}}, temperature=0.3)
    assert request.dropped == ("temperature",)


def test_older_models_take_both_as_recorded():
    body = sent("claude-sonnet-4-0", temperature=0.7, top_p=0.3, top_k=50)
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.7, 0.3, 50)
