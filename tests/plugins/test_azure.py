"""Azure: where requests go, what they lose, and which of its answers' oddities are put right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.abilities import abilities
from gateway.contract import Credential, Target, UpstreamRequest
from gateway.envelope import open_envelope
from gateway.errors import InvalidRequest
from plugins.azure import PROVIDER

ROWS = yaml.safe_load((Path(__file__).resolve().parents[2] / PROVIDER.models).read_text())
BASE = "https://acme.openai.azure.com"
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def send(
    model: str = "prod", *, family: str = "gpt-4o", base: str = BASE, version: str = "", **fields: Any
) -> tuple[Any, UpstreamRequest]:
    chat = open_envelope(orjson.dumps({"model": "asked", "messages": [], **fields}))
    options = {"api_version": version} if version else {}
    target = Target("azure", model, base, family, options, abilities(ROWS, family))
    sent = PROVIDER.native["openai.chat"].build_request(chat, target)
    return orjson.loads(sent.body), sent


@pytest.mark.parametrize("base", [BASE, BASE + "/", BASE + "/openai/v1", BASE + "/openai", BASE + "/openai/v1/"])
def test_without_a_version_the_v1_path_is_used(base: str) -> None:
    body, sent = send(base=base)
    assert sent.url == BASE + "/openai/v1/chat/completions"
    assert body["model"] == "prod"


def test_with_a_version_the_deployment_is_in_the_path() -> None:
    sent = send(version="2024-10-21", base=BASE + "/prefix")[1]
    assert sent.url == BASE + "/prefix/openai/deployments/prod/chat/completions?api-version=2024-10-21"


def test_a_deployment_is_one_segment_whatever_it_is_called() -> None:
    url = send("a/b c#?&%", version="2024-10-21&x=1")[1].url
    assert url == BASE + "/openai/deployments/a%2Fb%20c%23%3F%26%25/chat/completions?api-version=2024-10-21%26x%3D1"


@pytest.mark.parametrize("model", [".", ".."])
def test_dots_are_no_deployment(model: str) -> None:
    with pytest.raises(InvalidRequest):
        send(model, version="2024-10-21")


@pytest.mark.parametrize("family", ["o3", "gpt-5", "gpt-5-chat", "gpt-5-chat-latest"])
def test_the_family_behind_the_deployment_decides_the_limit(family: str) -> None:
    assert send(family=family, max_tokens=5)[0]["max_completion_tokens"] == 5


def test_an_older_family_keeps_its_limit() -> None:
    assert send(family="gpt-4o", max_tokens=5)[0]["max_tokens"] == 5


def test_what_speaks_of_tools_goes_only_with_tools() -> None:
    body, sent = send(tool_choice="auto", parallel_tool_calls=False)
    assert set(sent.dropped) == {"tool_choice", "parallel_tool_calls"}
    assert {"tool_choice", "parallel_tool_calls"}.isdisjoint(body)
    body, sent = send(tool_choice="auto", parallel_tool_calls=False, tools=TOOLS)
    assert (body["tool_choice"], body["parallel_tool_calls"], sent.dropped) == ("auto", False, ())


@pytest.mark.parametrize(("tier", "kept"), [("auto", True), ("priority", True), ("flex", False), ("scale", False)])
def test_only_azures_own_tiers_arrive(tier: str, kept: bool) -> None:
    body, sent = send(service_tier=tier)
    assert ("service_tier" in body) is kept
    assert (sent.dropped == ()) is kept


def test_what_azure_never_takes_is_dropped_by_name() -> None:
    assert set(send(web_search_options={}, moderation={}, prompt_cache_options={}, top_k=1)[1].dropped) == {
        *("web_search_options", "moderation", "prompt_cache_options", "top_k")
    }


@pytest.mark.parametrize(
    ("version", "dropped"),
    [
        ("2023-07-01-preview", {"parallel_tool_calls", "reasoning_effort"}),
        ("2024-10-21", {"reasoning_effort"}),
        ("2025-04-01-preview", set()),
    ],
)
def test_an_old_version_loses_what_it_did_not_know(version: str, dropped: set[str]) -> None:
    sent = send(version=version, family="", tools=TOOLS, parallel_tool_calls=True, reasoning_effort="low")[1]
    assert set(sent.dropped) == dropped


@pytest.mark.parametrize(("version", "asked"), [("", True), ("2024-10-21", True), ("2023-07-01-preview", False)])
def test_usage_is_asked_for_where_the_version_knows_it(version: str, asked: bool) -> None:
    assert ("stream_options" in send(version=version, stream=True)[0]) is asked


def test_a_key_has_a_header_of_its_own_and_a_token_is_a_bearer() -> None:
    sent = send()[1]
    assert PROVIDER.authorize(sent, Credential("key", "k"), 0.0) == {"api-key": "k"}
    assert PROVIDER.authorize(sent, Credential("bearer", "t"), 0.0) == {"authorization": "Bearer t"}


@pytest.mark.parametrize(("options", "source"), [({}, "key"), ({"entra": True}, "entra"), ({"entra": {}}, "key")])
def test_entra_has_its_own_source(options: dict[str, Any], source: str) -> None:
    assert PROVIDER.credential(options) == source


@pytest.mark.parametrize("version", ["2024-10-21&x=1", "v1", 20241021, "2024-13-01", "2024-10-21-beta", ""])
def test_a_wrong_version_is_found(version: Any) -> None:
    assert [problem.option for problem in PROVIDER.check({"api_version": version}, "prod")] == ["api_version"]


@pytest.mark.parametrize("model", ["../../x", "a/b", "a..b", "a?b", ".", "a b"])
def test_a_wrong_deployment_is_found(model: str) -> None:
    assert [problem.option for problem in PROVIDER.check({}, model)] == ["model"]


@pytest.mark.parametrize("resource", ["evil.test#", "evil.test/", "user@evil.test", 7])
def test_a_wrong_resource_is_found(resource: Any) -> None:
    assert [problem.option for problem in PROVIDER.check({"resource": resource}, "*")] == ["resource"]


def test_good_options_have_no_problem() -> None:
    assert PROVIDER.check({"api_version": "2024-10-21-preview", "resource": "acme-eu"}, "gpt-4o_2024.05") == []


# Answers

FILTER = {"hate": {"filtered": False, "severity": "safe"}}
PROMPT = {
    "choices": [],
    "created": 0,
    "id": "",
    "model": "",
    "object": "",
    "prompt_filter_results": [{"prompt_index": 0}],
}
OFFSETS = {"check_offset": 1, "start_offset": 1, "end_offset": 9}
VERDICT = {"index": 0, "finish_reason": None, "content_filter_results": FILTER, "content_filter_offsets": OFFSETS}


def chunk(**choice: Any) -> bytes:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 7, "model": "gpt-4o"}
    return orjson.dumps({**head, "choices": [{"index": 0, "finish_reason": None, **choice}]})


def stray(*choices: Any, **more: Any) -> bytes:
    return orjson.dumps({"id": "", "object": "", "created": 0, "model": "", "choices": list(choices), **more})


USAGE = orjson.dumps(
    {**orjson.loads(chunk()), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
)


def through(*payloads: bytes) -> list[Any]:
    opened = PROVIDER.native["openai.chat"].open_mender
    assert opened is not None
    mender = opened(
        open_envelope(b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'),
        Target("azure", "m", BASE),
    )
    kept = [new for payload in payloads if (new := mender.chunk(payload)) is not None]
    return [orjson.loads(payload) for payload in kept + mender.finish()]


def test_the_prompts_verdict_waits_for_the_first_real_chunk() -> None:
    chunks = through(
        orjson.dumps(PROMPT), chunk(delta={"role": "assistant", "content": "a"}), chunk(delta={"content": "b"})
    )
    assert len(chunks) == 2
    assert chunks[0]["prompt_filter_results"] == [{"prompt_index": 0}]
    assert (chunks[0]["id"], chunks[0]["choices"][0]["delta"]["content"]) == ("c", "a")
    assert "prompt_filter_results" not in chunks[1]


@pytest.mark.parametrize("delta", [{}, {"delta": {}}])
def test_late_verdicts_become_chunks_of_the_stream_and_never_follow_usage(delta: dict[str, Any]) -> None:
    late = stray({**VERDICT, **delta})
    chunks = through(
        *(
            late,
            chunk(delta={"role": "assistant", "content": "a"}),
            late,
            chunk(delta={}, finish_reason="stop"),
            late,
            USAGE,
            late,
        )
    )
    assert len(chunks) == 5
    assert chunks[-1]["usage"]["total_tokens"] == 2
    for one in (chunks[1], chunks[3]):
        assert (one["id"], one["object"], one["created"]) == ("c", "chat.completion.chunk", 7)
        assert one["choices"][0]["delta"] == {}
        assert one["choices"][0]["content_filter_offsets"] == OFFSETS


def test_a_stream_with_late_verdicts_gives_the_whole_answer_in_the_official_helper() -> None:
    state = ChatCompletionStreamState()
    late = stray(VERDICT)
    for one in through(
        *(
            orjson.dumps(PROMPT),
            chunk(delta={"role": "assistant", "content": "a"}),
            late,
            chunk(delta={"content": "b"}),
        ),
        *(chunk(delta={}, finish_reason="stop"), late, USAGE, late),
    ):
        list(state.handle_chunk(ChatCompletionChunk.model_validate(one)))
    final = state.get_final_completion()
    assert (final.id, final.model, final.choices[0].message.content) == ("c", "gpt-4o", "ab")
    assert final.usage is not None
    assert final.usage.total_tokens == 2


def test_a_first_chunk_without_delta_gets_one() -> None:
    chunks = through(chunk(content_filter_results={}), chunk(delta={"content": "a"}))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant"}


# Errors


def test_the_filters_verdict_reaches_the_client() -> None:
    error = {
        "message": "filtered",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "innererror": {"code": "R"},
    }
    body = PROVIDER.read_error(400, {}, orjson.dumps({"error": error})).body()["error"]
    assert (body["code"], body["type"], body["param"]) == ("content_filter", "invalid_request_error", "prompt")
    assert body["innererror"] == {"code": "R"}


def test_a_rate_limit_in_words_has_openais_code_and_its_wait() -> None:
    error = {"code": "429", "message": "Requests have exceeded the rate limit. Please retry after 6 seconds."}
    refused = PROVIDER.read_error(429, {}, orjson.dumps({"error": error}))
    assert (refused.code, refused.retry_after, refused.details["upstream_code"]) == ("rate_limit_exceeded", 6.0, "429")


@pytest.mark.parametrize("code", ["DeploymentNotFound", "404"])
def test_a_404_says_both_things_that_may_be_wrong(code: str) -> None:
    refused = PROVIDER.read_error(404, {}, orjson.dumps({"error": {"code": code, "message": "Resource not found"}}))
    assert refused.code == "model_not_found"
    assert "deployment" in refused.message
    assert "api_version" in refused.message


@pytest.mark.parametrize(
    "body", [b'{"error":{"code":"401","message":"Access denied"}}', b'{"statusCode":401,"message":"denied"}']
)
def test_a_refused_key_is_ours(body: bytes) -> None:
    assert PROVIDER.read_error(401, {}, body).code == "upstream_auth_error"
