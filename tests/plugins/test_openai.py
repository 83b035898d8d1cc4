"""OpenAI's families take what they take; any other server gets what the client sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from gateway.abilities import abilities
from gateway.contract import Credential, Target, UpstreamRequest
from gateway.envelope import open_envelope
from gateway.errors import UnsupportedParameter
from plugins.openai import PROVIDER, own_host

ROWS = yaml.safe_load((Path(__file__).resolve().parents[2] / PROVIDER.models).read_text())
SAMPLING = {"temperature": 0.5, "top_p": 0.9, "presence_penalty": 1, "frequency_penalty": 1, "logprobs": True}


def send(model: str, base_url: str = PROVIDER.base_url, **fields: Any) -> tuple[dict[str, Any], UpstreamRequest]:
    chat = open_envelope(orjson.dumps({"model": "asked", "messages": [{"role": "user", "content": "Hi"}], **fields}))
    target = Target("openai", model, base_url, model, abilities=abilities(ROWS, model))
    sent = PROVIDER.native["openai.chat"].build_request(chat, target)
    return orjson.loads(sent.body), sent


@pytest.mark.parametrize(
    "model", ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5.1", "gpt-6-astra", "ft:o4-mini:a::b"]
)
def test_reasoning_models_get_the_new_limit(model: str) -> None:
    body, sent = send(model, max_tokens=5)
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body
    assert sent.dropped == ()


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini", "gpt-5-chat-latest", "gpt-3.5-turbo", "brand-new"])
def test_other_models_keep_the_limit_that_was_sent(model: str) -> None:
    assert send(model, max_tokens=5)[0]["max_tokens"] == 5


def test_of_two_limits_the_new_one_wins_and_the_old_one_is_named() -> None:
    body, sent = send("gpt-5", max_tokens=5, max_completion_tokens=7)
    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body
    assert sent.dropped == ("max_tokens",)


def test_two_equal_limits_lose_nothing() -> None:
    assert send("gpt-5", max_tokens=5, max_completion_tokens=5)[1].dropped == ()


@pytest.mark.parametrize("model", ["o1", "o3", "gpt-5", "gpt-5-mini", "gpt-6.1-sol"])
def test_reasoning_models_lose_sampling_by_name(model: str) -> None:
    body, sent = send(model, **SAMPLING, reasoning_effort="none")
    assert set(SAMPLING) <= set(sent.dropped)
    assert SAMPLING.keys().isdisjoint(body)


def test_the_defaults_of_sampling_do_no_harm() -> None:
    neutral = {"temperature": 1, "top_p": 1.0, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False}
    body, sent = send("o3", **neutral)
    assert neutral.items() <= body.items()
    assert sent.dropped == ()


@pytest.mark.parametrize(
    ("model", "effort", "sampled"),
    [
        ("gpt-5.1", None, True),
        ("gpt-5.2", "none", True),
        ("gpt-5.4", "low", False),
        ("gpt-5.6", None, False),
        ("gpt-5.6", "none", True),
        ("gpt-6", "high", False),
    ],
)
def test_newer_models_sample_only_without_reasoning(model: str, effort: str | None, sampled: bool) -> None:
    body, sent = send(model, temperature=0.5, **({"reasoning_effort": effort} if effort else {}))
    assert ("temperature" in body) is sampled
    assert (sent.dropped == ()) is sampled


@pytest.mark.parametrize(
    ("model", "effort", "told"),
    [
        ("o3", "minimal", "low"),
        ("o3", "max", "high"),
        ("gpt-5", "none", "minimal"),
        ("gpt-5.1", "xhigh", "high"),
        ("gpt-5.2", "max", "xhigh"),
        ("gpt-6.1-sol", "max", "xhigh"),
        ("gpt-6", "max", "max"),
        ("brand-new", "max", "max"),
    ],
)
def test_an_effort_that_a_model_does_not_have_becomes_one_it_has(model: str, effort: str, told: str) -> None:
    body, sent = send(model, reasoning_effort=effort)
    assert body["reasoning_effort"] == told
    assert sent.translated == (("reasoning_effort",) if told != effort else ())


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-chat-latest", "gpt-3.5-turbo"])
def test_models_that_do_not_reason_get_no_effort(model: str) -> None:
    assert send(model, reasoning_effort="low")[1].dropped == ("reasoning_effort",)


def test_gpt_5_loses_stop_and_temperature() -> None:
    assert set(send("gpt-5", stop="END", temperature=1.4, seed=7)[1].dropped) == {"stop", "temperature"}


def test_o1_keeps_stop() -> None:
    assert send("o1", stop="END")[0]["stop"] == "END"


def test_audio_output_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        send("gpt-5", modalities=["text", "audio"])
    assert refused.value.param == "modalities"
    assert "modalities" not in send("gpt-5", modalities=["text"])[0]
    assert send("gpt-4o-audio-preview", modalities=["text", "audio"])[0]["modalities"] == ["text", "audio"]


def test_search_models_lose_what_they_refuse() -> None:
    assert set(send("gpt-4o-search-preview", temperature=1, n=2)[1].dropped) == {"temperature", "n"}


def test_extras_of_open_models_never_reach_openai() -> None:
    body, sent = send("gpt-4o", top_k=5, min_p=0.1, repetition_penalty=1.1, chat_template="x")
    assert set(sent.dropped) == {"top_k", "min_p", "repetition_penalty", "chat_template"}
    assert {"top_k", "min_p", "repetition_penalty", "chat_template"}.isdisjoint(body)


def test_a_constraint_on_the_answer_is_refused_not_lost() -> None:
    with pytest.raises(UnsupportedParameter):
        send("gpt-4o", guided_json={"type": "object"})


def test_cache_marks_of_another_provider_are_taken_out() -> None:
    part = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    body, sent = send(
        "gpt-4o", messages=[{"role": "user", "content": [part, "odd"]}, {"role": "user", "content": "b"}, 7]
    )
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, "odd"]},
        {"role": "user", "content": "b"},
        7,
    ]
    assert sent.dropped == ("cache_control",)


def test_a_cache_mark_on_a_message_goes_too() -> None:
    assert send("gpt-4o", messages=[{"role": "user", "content": "a", "cache_control": {}}])[0]["messages"] == [
        {"role": "user", "content": "a"}
    ]


def test_a_cache_mark_in_text_changes_nothing() -> None:
    messages = [{"role": "user", "content": 'what is "cache_control"?'}]
    assert send("gpt-4o", messages=messages)[0]["messages"] == messages


def test_another_server_gets_everything_untouched() -> None:
    extras = {
        "guided_json": {},
        "top_k": 5,
        "ignore_eos": True,
        "max_tokens": 5,
        "temperature": 0.1,
        "stop": "x",
        "modalities": None,
    }
    for base_url in ("http://127.0.0.1:8000/v1", "https://api.openai.com.evil.test/v1"):
        body, sent = send("o3", base_url, **extras)
        assert extras.items() <= body.items()
        assert (sent.dropped, sent.translated) == ((), ())
        assert sent.url == base_url + "/chat/completions"


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.openai.com/v1",
        "https://eu.api.openai.com/v1",
        "https://bedrock-mantle.us-east-1.api.aws/openai/v1",
        "https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1",
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/openai/v1",
    ],
)
def test_openais_own_hosts_are_known(base_url: str) -> None:
    assert own_host(base_url)


@pytest.mark.parametrize(
    "base_url", ["https://api.openai.com.evil.test", "https://notapi.openai.com", "http://localhost/api.openai.com/"]
)
def test_other_hosts_are_not_openai(base_url: str) -> None:
    assert not own_host(base_url)


def test_the_key_goes_as_a_bearer_token() -> None:
    sent = send("gpt-4o")[1]
    assert PROVIDER.authorize(sent, Credential("key", "k"), 0.0) == {"authorization": "Bearer k"}
    assert PROVIDER.authorize(sent, Credential(), 0.0) == {}


def test_a_local_server_may_name_a_model_by_its_path_and_openai_may_not() -> None:
    assert PROVIDER.check({"base_url": "http://127.0.0.1:8000/v1"}, "/models/llama 3") == ()
    assert [problem.option for problem in PROVIDER.check({}, "/models/llama")] == ["model"]
    assert [problem.option for problem in PROVIDER.check({"base_url": "http://h/v1"}, "a\nb")] == ["model"]


def test_an_answer_of_openai_passes_unmended() -> None:
    assert PROVIDER.native["openai.chat"].open_mender is None
