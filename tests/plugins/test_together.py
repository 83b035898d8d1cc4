"""Together: a request in its own spelling, and its streams in the one that SDKs take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from gateway.abilities import abilities
from gateway.contract import Target, UpstreamRequest
from gateway.envelope import open_envelope
from gateway.errors import UnsupportedParameter
from plugins.together import PROVIDER

ROWS = yaml.safe_load((Path(__file__).resolve().parents[2] / PROVIDER.models).read_text())


def send(model: str = "meta-llama/Llama-3.3-70B-Instruct-Turbo", **fields: Any) -> tuple[Any, UpstreamRequest]:
    chat = open_envelope(orjson.dumps({"model": "asked", "messages": [], **fields}))
    target = Target("together", model, PROVIDER.base_url, model, abilities=abilities(ROWS, model))
    sent = PROVIDER.native["openai.chat"].build_request(chat, target)
    return orjson.loads(sent.body), sent


def test_the_address_is_togethers() -> None:
    assert send()[1].url == "https://api.together.ai/v1/chat/completions"


@pytest.mark.parametrize(
    ("limits", "dropped"),
    [
        ({"max_completion_tokens": 7}, ()),
        ({"max_tokens": 7}, ()),
        ({"max_tokens": 5, "max_completion_tokens": 7}, ("max_tokens",)),
        ({"max_completion_tokens": 7, "max_tokens": 5}, ("max_tokens",)),
    ],
)
def test_the_limit_has_its_old_name(limits: dict[str, int], dropped: tuple[str, ...]) -> None:
    body, sent = send(**limits)
    assert body["max_tokens"] == 7
    assert "max_completion_tokens" not in body
    assert sent.dropped == dropped


@pytest.mark.parametrize(("stop", "sent"), [("END", ["END"]), (["a", "b"], ["a", "b"])])
def test_stop_is_a_list(stop: Any, sent: list[str]) -> None:
    body, request = send(stop=stop)
    assert body["stop"] == sent
    assert request.translated == (("stop",) if stop != sent else ())


@pytest.mark.parametrize(
    ("asked", "logprobs"),
    [
        ({"logprobs": True, "top_logprobs": 3}, 3),
        ({"top_logprobs": 3, "logprobs": True}, 3),
        ({"logprobs": True}, 1),
        ({"logprobs": True, "top_logprobs": 0}, 1),
        ({"logprobs": True, "top_logprobs": 99}, 20),
        ({"logprobs": False, "top_logprobs": None}, None),
        ({"logprobs": 5}, 5),
    ],
)
def test_logprobs_is_a_number(asked: dict[str, Any], logprobs: int | None) -> None:
    body, sent = send(**asked)
    assert body.get("logprobs") == logprobs
    assert "top_logprobs" not in body
    assert sent.dropped == ()
    assert sent.translated == (("logprobs",) if asked["logprobs"] is True else ())


def test_top_logprobs_alone_is_named_as_dropped() -> None:
    assert send(top_logprobs=3)[1].dropped == ("top_logprobs",)


def test_top_logprobs_that_is_no_number_is_named_as_dropped() -> None:
    body, sent = send(logprobs=True, top_logprobs="three")
    assert (body["logprobs"], sent.dropped) == (1, ("top_logprobs",))


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("openai/gpt-oss-120b", "none", {"reasoning_effort": "low"}),
        ("openai/gpt-oss-120b", "minimal", {"reasoning_effort": "low"}),
        ("openai/gpt-oss-120b", "max", {"reasoning_effort": "high"}),
        ("openai/gpt-oss-120b", "medium", {"reasoning_effort": "medium"}),
        ("zai-org/GLM-5.2", "none", {"reasoning": {"enabled": False}}),
        ("zai-org/GLM-5.2", "low", {"reasoning_effort": "low"}),
        ("deepseek-ai/DeepSeek-V4-Pro", "low", {"reasoning_effort": "high"}),
        ("deepseek-ai/DeepSeek-V4-Pro", "xhigh", {"reasoning_effort": "max"}),
        ("deepseek-ai/DeepSeek-V4-Pro", "none", {"reasoning": {"enabled": False}}),
    ],
)
def test_each_family_spells_effort_in_its_way(model: str, effort: str, sent: dict[str, Any]) -> None:
    body, request = send(model, reasoning_effort=effort)
    assert {name: body[name] for name in ("reasoning", "reasoning_effort") if name in body} == sent
    assert request.translated == (() if sent == {"reasoning_effort": effort} else ("reasoning_effort",))


def test_developer_is_system_and_system_stays() -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}]
    body, sent = send(messages=messages)
    assert [message["role"] for message in body["messages"]] == ["system", "system"]
    assert sent.translated == ("messages",)


def test_penalties_keep_their_own_scale() -> None:
    asked = {"frequency_penalty": 0.5, "repetition_penalty": 1.1, "top_k": 4, "min_p": 0.1}
    assert asked.items() <= send(**asked)[0].items()


def test_nothing_is_added_for_usage() -> None:
    assert "stream_options" not in send(stream=True)[0]


def test_audio_and_constraints_are_refused() -> None:
    for name, value in (("modalities", ["audio"]), ("audio", {}), ("guided_regex", "a")):
        with pytest.raises(UnsupportedParameter) as refused:
            send(**{name: value})
        assert refused.value.param == name


def test_a_rate_limit_has_openais_code() -> None:
    refused = PROVIDER.read_error(
        429, {}, b'{"error":{"message":"slow","type":"credit_limit","param":null,"code":null}}'
    )
    assert (refused.code, refused.kind) == ("rate_limit_exceeded", "rate_limit_error")


def test_an_overflow_has_openais_code() -> None:
    body = (
        b'{"error":{"message":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 9"}}'
    )
    assert PROVIDER.read_error(422, {}, body).code == "context_length_exceeded"


def test_cache_marks_leave_messages_and_are_named() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    part = {"type": "text", "text": "q"}
    body, sent = send(
        messages=[{"role": "user", "content": [{**part, **mark}]}, {"role": "user", "content": "z", **mark}]
    )
    assert body["messages"] == [{"role": "user", "content": [part]}, {"role": "user", "content": "z"}]
    assert sent.dropped == ("cache_control",)
