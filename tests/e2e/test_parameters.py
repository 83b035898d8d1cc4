"""The honest parameter contract, as a client sees it: what was dropped, what was changed, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import (
    HELLO,
    MODELS,
    PROVIDERS,
    TRANSLATED,
    Reply,
    accounts,
    command,
    deployments,
    document,
    gateway_and_demo,
    gateway_before,
    serving,
)
from upstreams import NAMES, OK_BODY, SSE_HEAD, ScriptedUpstream, answer

from gateway.hub import PARAMS

Run = Callable[[Any], Any]


def names(reply: Reply, kind: str) -> set[str]:
    """The parameters that a header of the answer names."""
    return set(reply.headers.get(f"x-gateway-{kind}-params", "").split(",")) - {""}


def one(served: Run, folder: Path, provider: str, options: dict[str, Any], **body: Any) -> tuple[Reply, bytes]:
    """The answer of one provider's demo, and the body that reached it; empty when nothing did."""

    async def main() -> tuple[Reply, bytes]:
        async with gateway_and_demo(folder, deployments=deployments(**options)) as (live, demo):
            reply = await live.chat(provider, **body)
            return reply, demo.requests[-1].body if demo.requests else b""

    result: tuple[Reply, bytes] = served(main())
    return result


DROPPED = {
    "openai": set(),
    "azure": {"moderation"},
    "together": {"moderation", "store"},
    "fireworks": {"moderation", "store"},
    "xai": {"moderation", "store", "logit_bias"},
    "anthropic": {"moderation", "store", "logit_bias", "seed", "x_new"},
    "google": {"moderation", "store", "logit_bias", "x_new"},
    "bedrock": {"moderation", "store", "logit_bias", "seed", "x_new"},
}
ASKS = {"seed": 7, "store": True, "moderation": {"model": "m"}, "logit_bias": {"5": 1}, "max_tokens": 50}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_a_provider_does_not_know_is_left_out_and_named(
    served: Run, tmp_path: Path, provider: str, stream: bool
) -> None:
    more = {"x_new": {"a": 1}} if provider in TRANSLATED else {}
    reply, sent = one(served, tmp_path, provider, {}, stream=stream, **ASKS, **more)
    assert reply.status == 200
    assert names(reply, "dropped") == DROPPED[provider]
    assert not DROPPED[provider] & set(orjson.loads(sent))


@pytest.mark.parametrize("provider", ["together", "fireworks", "xai", "openai"])
def test_a_field_that_nobody_knows_travels_on_to_providers_of_the_same_dialect(
    served: Run, tmp_path: Path, provider: str
) -> None:
    async def main() -> tuple[Reply, bytes]:
        async with ScriptedUpstream([{"t": answer(OK_BODY)}]) as upstream:
            entry = {"type": provider, "base_url": upstream.url, "api_key": "k"}
            content = {"providers": {"p": entry}, "deployments": {"m": {"provider": "p", "model": "some-model"}}}
            async with serving(tmp_path, content) as live:
                return await live.chat("m", x_new={"a": [1]}), upstream.requests[0]

    reply, sent = served(main())
    assert names(reply, "dropped") == set()
    assert orjson.loads(sent.partition(b"\r\n\r\n")[2])["x_new"] == {"a": [1]}


CHANGED: list[tuple[str, dict[str, Any], set[str]]] = [
    ("anthropic", {"temperature": 1.7}, {"temperature"}),
    ("anthropic", {"stop": "END"}, {"stop"}),
    ("anthropic", {"reasoning_effort": "low", "max_tokens": 3000}, {"reasoning_effort"}),
    ("bedrock", {"temperature": 1.7}, {"temperature"}),
    ("google", {"reasoning_effort": "low"}, {"reasoning_effort"}),
    ("together", {"stop": "END"}, {"stop"}),
    ("together", {"logprobs": True}, {"logprobs"}),
    ("azure", {"service_tier": "auto"}, set()),
    ("openai", {"temperature": 1.7, "stop": "END"}, set()),
]


@pytest.mark.parametrize(("provider", "body", "wanted"), CHANGED)
def test_what_reaches_the_provider_changed_is_named(
    served: Run, tmp_path: Path, provider: str, body: dict[str, Any], wanted: set[str]
) -> None:
    reply, _ = one(served, tmp_path, provider, {}, **body)
    assert reply.status == 200, reply.body
    assert names(reply, "translated") >= wanted
    assert not wanted or names(reply, "dropped") == set()
    if not wanted:
        assert names(reply, "translated") == set()


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if "moderation" in DROPPED[name]])
def test_a_deployment_may_refuse_what_would_be_dropped(served: Run, tmp_path: Path, provider: str) -> None:
    reply, sent = one(served, tmp_path, provider, {"unsupported_params": "reject"}, moderation={"model": "m"})
    assert reply.status == 400
    assert (reply.error["code"], reply.error["param"]) == ("unsupported_parameter", "moderation")
    assert reply.error["type"] == "invalid_request_error"
    assert sent == b""


ALWAYS: list[tuple[str, dict[str, Any]]] = [
    *[(provider, {"n": 2}) for provider in ("anthropic", "bedrock")],
    *[
        (provider, {"modalities": ["text", "audio"]})
        for provider in ("anthropic", "bedrock", "together", "fireworks", "xai")
    ],
    *[(provider, {"audio": {"voice": "alloy", "format": "wav"}}) for provider in ("anthropic", "bedrock", "google")],
    *[(provider, {"guided_regex": "a+"}) for provider in ("azure", *TRANSLATED)],
]


@pytest.mark.parametrize(("provider", "body"), ALWAYS)
def test_what_would_change_the_answers_shape_is_always_refused(
    served: Run, tmp_path: Path, provider: str, body: dict[str, Any]
) -> None:
    reply, sent = one(served, tmp_path, provider, {}, **body)
    assert (reply.status, reply.error["code"]) == (400, "unsupported_parameter"), reply.body
    assert reply.error["param"] == next(iter(body))
    assert sent == b""


def refused(param: str, code: str = "unsupported_parameter") -> str:
    error = {"message": f"Unsupported parameter: '{param}'.", "type": "invalid_request_error"}
    return answer(orjson.dumps({"error": {**error, "param": param, "code": code}}).decode(), "400 Bad Request")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("code", ["unsupported_parameter", "unsupported_value", "unknown_parameter"])
def test_one_more_try_leaves_out_what_the_provider_refused(
    served: Run, tmp_path: Path, code: str, stream: bool
) -> None:
    whole = [{"t": SSE_HEAD}, {"chunk": NAMES["D2"] + NAMES["FIN"] + NAMES["DONE"]}, {"end": True}]
    good = whole if stream else [{"t": answer(OK_BODY)}]

    async def main() -> tuple[Reply, list[bytes]]:
        async with (
            ScriptedUpstream([{"t": refused("logit_bias", code)}], good) as upstream,
            gateway_before(tmp_path, upstream.url) as live,
        ):
            return await live.chat("m", logit_bias={"1": 1}, seed=3, stream=stream), upstream.requests

    reply, sent = served(main())
    assert reply.status == 200
    assert names(reply, "dropped") == {"logit_bias"}
    assert reply.headers["x-gateway-attempts"] == "m=400,m=200"
    first, second = (set(orjson.loads(request.partition(b"\r\n\r\n")[2])) for request in sent)
    assert first - second == {"logit_bias"}
    assert "seed" in second


def test_two_refused_parameters_are_left_out_one_after_the_other(served: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, int]:
        scripts = [[{"t": refused("logit_bias")}], [{"t": refused("seed")}], [{"t": answer(OK_BODY)}]]
        async with ScriptedUpstream(*scripts) as upstream, gateway_before(tmp_path, upstream.url) as live:
            return await live.chat("m", logit_bias={"1": 1}, seed=3), len(upstream.requests)

    reply, count = served(main())
    assert (reply.status, count, names(reply, "dropped")) == (200, 3, {"logit_bias", "seed"})


@pytest.mark.parametrize(
    ("param", "options"),
    [("logit_bias", {"unsupported_params": "reject"}), ("messages", {}), ("tools", {}), ("not_sent", {})],
)
def test_no_second_try_where_leaving_it_out_is_not_allowed_or_would_not_help(
    served: Run, tmp_path: Path, param: str, options: dict[str, Any]
) -> None:
    async def main() -> tuple[Reply, int]:
        script = [{"t": refused(param)}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url, **options) as live:
            return await live.chat("m", logit_bias={"1": 1}, tools=[]), len(upstream.requests)

    reply, count = served(main())
    assert (reply.status, reply.error["param"], count) == (400, param, 1)


def test_a_parameter_that_is_refused_again_and_again_is_tried_once_without(served: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, int]:
        script = [{"t": refused("logit_bias")}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            return await live.chat("m", logit_bias={"1": 1}), len(upstream.requests)

    reply, count = served(main())
    assert (reply.status, reply.error["param"], count) == (400, "logit_bias", 2)


def test_capabilities_tell_a_decision_for_every_parameter_of_every_model(served: Run, tmp_path: Path) -> None:
    routing = {"both": {"strategy": "priority", "targets": ["anthropic", "openai"]}}
    adapters = {"cold": {"deployment": "google", "set": {"temperature": 0}}}

    async def main() -> Reply:
        async with gateway_and_demo(tmp_path, routings=routing, adapters=adapters) as (live, _):
            return await live.get("/v1/capabilities")

    reply = served(main())
    entries = {entry["id"]: entry for entry in reply.json()["data"]}
    assert set(entries) == {*PROVIDERS, "cold", "both"}
    for entry in entries.values():
        for each in entry["deployments"]:
            assert set(each["parameters"]) == PARAMS
            kinds = {row["decision"] for row in each["parameters"].values()}
            assert kinds <= {"forward", "rename", "convert", "emulate", "drop", "reject"}
    assert [each["provider"] for each in entries["both"]["deployments"]] == ["anthropic", "openai"]
    assert entries["anthropic"]["deployments"][0]["parameters"]["seed"]["decision"] == "drop"


def test_capabilities_are_told_only_of_models_that_the_key_may_use(served: Run, tmp_path: Path) -> None:
    digest = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    keys = {"team": {"hash": digest, "models": ["openai"]}}

    async def main() -> tuple[Reply, Reply]:
        async with gateway_and_demo(tmp_path, keys=keys) as (live, _):
            return await live.get("/v1/capabilities"), await live.get("/v1/capabilities", Authorization="Bearer secret")

    stranger, team = served(main())
    assert stranger.status == 401
    assert [entry["id"] for entry in team.json()["data"]] == ["openai"]


RICH: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Hi é"}]},
    ],
    "temperature": 0.5,
    "stop": ["END"],
    "max_tokens": 64,
    "user": "u-1",
    "seed": 5,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_explain_prints_what_the_provider_receives(served: Run, tmp_path: Path, provider: str, stream: bool) -> None:
    body = json.dumps({"model": provider, **RICH, "stream": stream})

    async def main() -> tuple[Any, Any]:
        async with gateway_and_demo(tmp_path) as (live, demo):
            reply = await live.post(body.encode())
            assert reply.status == 200, reply.body
            told = command(*("explain", "-c", str(live.path), "-d", "-", "--format", "json"), input=body)
            assert told.returncode == 0, told.stderr
            (plan,) = json.loads(told.stdout)["attempts"]
            assert set(plan["dropped"]) == names(reply, "dropped")
            assert set(plan["translated"]) == names(reply, "translated")
            return plan["request"], demo.requests[-1]

    told, got = served(main())
    assert told["body"].encode() == got.body
    assert told["method"] == got.method
    assert told["url"].endswith(got.path)
    masked = {name for name, value in told["headers"].items() if "***" in value}
    received = {name.lower(): value for name, value in got.headers.items()}
    assert masked, "the credential's header is told of"
    assert set(received) == {name.lower() for name in told["headers"]}
    for name, value in told["headers"].items():
        if name not in masked:
            assert received[name] == value


def test_explain_masks_every_secret(tmp_path: Path) -> None:
    extra = {"headers": {"x-proxy-token": "sekret-one"}, "api_key": "sekret-two"}
    content = {
        "providers": {"p": {"type": "openai", "base_url": "http://127.0.0.1:9/v1", **extra}},
        "deployments": {"m": {"provider": "p", "model": "x"}},
    }
    whole, _ = document(tmp_path, content)
    (tmp_path / "g.yaml").write_text(json.dumps(whole))
    for form in ("text", "json"):
        told = command("explain", "-c", str(tmp_path / "g.yaml"), "-m", "m", "--format", form)
        assert told.returncode == 0, told.stderr
        assert "sekret" not in told.stdout + told.stderr
        assert "x-proxy-token" in told.stdout
        assert "***" in told.stdout


def test_an_adapter_sets_and_defaults_parameters(served: Run, tmp_path: Path) -> None:
    adapters = {
        "strict": {"deployment": "openai", "set": {"temperature": 0}, "default": {"max_tokens": 99}},
        "lora": {"deployment": "openai", "model": "demo-lora"},
    }

    async def main() -> list[Any]:
        async with gateway_and_demo(tmp_path, adapters=adapters) as (live, demo):
            assert (await live.chat("strict", temperature=1)).headers["x-gateway-deployment"] == "strict"
            await live.chat("strict", max_tokens=5, stream=True)
            await live.chat("lora")
            return [orjson.loads(request.body) for request in demo.requests]

    set_over, defaulted, lora = served(main())
    assert (set_over["temperature"], set_over["max_tokens"], set_over["model"]) == (0, 99, MODELS["openai"])
    assert (defaulted["temperature"], defaulted["max_tokens"]) == (0, 5)
    assert (lora["model"], lora["messages"]) == ("demo-lora", HELLO)


def test_every_account_of_the_demo_is_reached_under_its_own_address(served: Run, tmp_path: Path) -> None:
    async def main() -> int:
        async with gateway_and_demo(tmp_path) as (live, demo):
            assert set(accounts(demo)) == set(PROVIDERS)
            for provider in PROVIDERS:
                assert (await live.chat(provider)).headers["x-gateway-attempts"] == f"{provider}=200"
            return demo.served

    assert served(main()) == len(PROVIDERS)
