"""gateway.exchange, from outside: the name that the client asked for, wildcards, and the headers that cross."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import HELLO, PROVIDERS, TRANSLATED, Reply, deployments, gateway_and_demo, gateway_before
from upstreams import OK_BODY, SSE_HEAD, ScriptedUpstream, answer

Run = Callable[[Any], Any]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_answer_bears_the_name_that_was_asked_for_where_wanted(
    run: Run, tmp_path: Path, provider: str, stream: bool
) -> None:
    async def main() -> Reply:
        async with gateway_and_demo(tmp_path, deployments=deployments(echo_model="requested")) as (live, _):
            return await live.chat(provider, stream=stream, stream_options={"include_usage": True} if stream else None)

    reply = run(main())
    answers = reply.chunks if stream else [reply.json()]
    # Azure's first chunk speaks of the filter and names no model.
    assert {each["model"] for each in answers} - ({""} if provider == "azure" else set()) == {provider}
    assert not stream or reply.done


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_answer_bears_the_providers_name_otherwise(run: Run, tmp_path: Path, provider: str) -> None:
    async def main() -> Reply:
        async with gateway_and_demo(tmp_path) as (live, _):
            return await live.chat(provider)

    assert run(main()).json()["model"] != provider


@pytest.mark.parametrize("stream", [False, True])
def test_echoing_the_name_changes_nothing_else(run: Run, tmp_path: Path, stream: bool) -> None:
    async def main() -> tuple[Reply, Reply]:
        entry = {"provider": "openai", "model": "gpt-4o-mini"}
        pair = {"plain": entry, "echo": {**entry, "echo_model": "requested"}}
        async with gateway_and_demo(tmp_path, deployments=pair) as (live, _):
            return await live.chat("plain", stream=stream), await live.chat("echo", stream=stream)

    def rest(reply: Reply) -> list[Any]:
        answers = reply.chunks if stream else [reply.json()]
        changing = ("model", "id", "created", "obfuscation")
        return [{name: value for name, value in each.items() if name not in changing} for each in answers]

    plain, echo = run(main())
    assert rest(plain) == rest(echo) != []


def test_a_wildcard_takes_the_rest_of_the_name_as_the_model(run: Run, tmp_path: Path) -> None:
    async def main() -> list[Any]:
        wild = {f"{name}/*": {"provider": name, "model": "*"} for name in ("openai", "together")}
        special = {
            "openai/inner/*": {"provider": "together", "model": "*"},
            "openai/pinned": {"provider": "xai", "model": "p"},
        }
        async with gateway_and_demo(tmp_path, deployments={**wild, **special}) as (live, demo):
            names = ("openai/any-model", "together/meta-llama/Llama-3", "openai/inner/x", "openai/pinned")
            replies = [await live.chat(name) for name in names]
            listed = [entry["id"] for entry in (await live.get("/v1/models")).json()["data"]]
            models = [orjson.loads(request.body)["model"] for request in demo.requests]
            return [[reply.headers["x-gateway-deployment"] for reply in replies], models, listed]

    used, models, listed = run(main())
    assert used == ["openai/*", "together/*", "openai/inner/*", "openai/pinned"]
    assert models == ["any-model", "meta-llama/Llama-3", "x", "p"]
    assert "openai/*" in listed


@pytest.mark.parametrize("name", ["openai/", "openai/../x", "openai/a//b", "openai/.", "openai/a%2fb", "openai/a b"])
def test_a_wildcard_takes_no_name_that_is_none(run: Run, tmp_path: Path, name: str) -> None:
    async def main() -> tuple[Reply, int]:
        wild = {"openai/*": {"provider": "openai", "model": "*"}}
        async with gateway_and_demo(tmp_path, deployments=wild) as (live, demo):
            return await live.chat(name), demo.served

    reply, served = run(main())
    assert (reply.status, reply.error["code"], served) == (404, "model_not_found", 0)


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_only_what_may_cross_crosses(run: Run, tmp_path: Path) -> None:
    given = {
        "Authorization": "Bearer client-key",
        "Cookie": "session=1",
        "X-Forwarded-For": "192.0.2.1",
        "X-Custom": "1",
        "Idempotency-Key": "once",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }

    async def main() -> tuple[Reply, bytes]:
        script = [{"t": answer(OK_BODY, Set_Cookie="a=1", X_Secret="1", X_Request_Id="up-7", Server="them")}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            return await live.post({"model": "m", "messages": HELLO}, **given), upstream.requests[0]

    reply, sent = run(main())
    crossed = headers_of(sent)
    assert crossed["authorization"] == "Bearer sk-up"
    assert (crossed["idempotency-key"], crossed["traceparent"]) == ("once", given["Traceparent"])
    assert not {"cookie", "x-forwarded-for", "x-custom"} & set(crossed)
    assert not {"set-cookie", "x-secret", "server"} & set(reply.headers)
    assert reply.headers["x-upstream-request-id"] == "up-7"


def test_headers_of_the_provider_entry_go_with_every_request(run: Run, tmp_path: Path) -> None:
    async def main() -> bytes:
        async with ScriptedUpstream([{"t": answer(OK_BODY)}]) as upstream:
            entry = {"type": "openai", "base_url": upstream.url, "api_key": "k", "headers": {"X-Team": "search"}}
            async with gateway_before(tmp_path, upstream.url, content={"providers": {"up": entry}}) as live:
                await live.chat("m")
                return upstream.requests[0]

    assert headers_of(run(main()))["x-team"] == "search"


@pytest.mark.parametrize("provider", TRANSLATED)
def test_a_whole_answer_to_a_stream_request_is_no_stream(run: Run, tmp_path: Path, provider: str) -> None:
    async def main() -> Reply:
        async with gateway_and_demo(tmp_path) as (live, demo):
            demo.misbehave("html")
            return await live.chat(provider, stream=True)

    assert run(main()).status == 502


def test_a_whole_body_where_a_stream_was_asked_for_becomes_a_stream(run: Run, tmp_path: Path) -> None:
    async def main() -> Reply:
        async with (
            ScriptedUpstream([{"t": answer(OK_BODY)}]) as upstream,
            gateway_before(tmp_path, upstream.url) as live,
        ):
            return await live.chat("m", stream=True)

    reply = run(main())
    assert (reply.done, reply.text()) == (True, "Hello")


@pytest.mark.parametrize("body", ["", "[]", "null", '{"object":"list"}', "{", "plain text"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_200_that_is_no_answer_is_a_502(run: Run, tmp_path: Path, body: str, stream: bool) -> None:
    async def main() -> Reply:
        async with (
            ScriptedUpstream([{"t": answer(body)}]) as upstream,
            gateway_before(tmp_path, upstream.url) as live,
        ):
            return await live.chat("m", stream=stream)

    reply = run(main())
    assert reply.status == 502
    assert reply.error["code"] in ("upstream_bad_response", "upstream_truncated")


def test_redirects_are_not_followed(run: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, int]:
        async with (
            ScriptedUpstream(
                [{"t": answer("", "307 Temporary Redirect", Location="/elsewhere")}], [{"t": answer(OK_BODY)}]
            ) as upstream,
            gateway_before(tmp_path, upstream.url) as live,
        ):
            return await live.chat("m"), len(upstream.requests)

    reply, count = run(main())
    assert (reply.status, reply.error["code"], count) == (502, "upstream_bad_response", 1)


def test_connections_to_the_provider_are_used_again(run: Run, tmp_path: Path) -> None:
    async def main() -> int:
        stream = [{"t": SSE_HEAD}, {"chunk": "{{D1}}{{FIN}}{{DONE}}"}, {"end": True}]
        async with (
            ScriptedUpstream(stream, [{"t": answer(OK_BODY)}]) as upstream,
            gateway_before(tmp_path, upstream.url) as live,
        ):
            assert (await live.chat("m", stream=True)).done
            for _ in range(3):
                assert (await live.chat("m")).status == 200
            return len(upstream.connections)

    assert run(main()) == 1
