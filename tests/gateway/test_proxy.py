"""gateway.proxy: what a client gets for any request, and the headers that tell how it went."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import HELLO, Reply, gateway_and_demo, read_reply, request_bytes

Run = Callable[[Any], Any]


def entry(key: str, **more: Any) -> dict[str, Any]:
    return {"hash": "sha256:" + hashlib.sha256(key.encode()).hexdigest(), **more}


KEYS = {
    "one": entry("key-one", models=["openai", "wild/*"]),
    "all": entry("key-all"),
    "late": entry("key-late", expires="2020-01-01"),
}


def asked(run: Run, folder: Path, *asks: tuple[str, str, dict[str, str]], **content: Any) -> list[Reply]:
    """Answers to requests without a body: path, method, headers."""

    async def main() -> list[Reply]:
        async with gateway_and_demo(folder, **content) as (live, _):
            return [await live.get(path, method, **headers) for path, method, headers in asks]

    replies: list[Reply] = run(main())
    return replies


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/", "GET", 404, "not_found"),
        ("/v1/chat/completion", "POST", 404, "not_found"),
        ("/v1/chat/completions", "GET", 405, "method_not_allowed"),
        ("/v1/models", "POST", 405, "method_not_allowed"),
        ("/v1/models/nobody", "GET", 404, "model_not_found"),
        ("/v1/capabilities", "DELETE", 405, "method_not_allowed"),
        ("/v1/chat/completions", "POST", 415, "unsupported_media_type"),
    ],
)
def test_every_refusal_has_openais_shape(
    run: Run, tmp_path: Path, path: str, method: str, status: int, code: str
) -> None:
    (reply,) = asked(run, tmp_path, (path, method, {}))
    assert (reply.status, reply.error["code"]) == (status, code)
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert "server" not in reply.headers


def test_a_client_of_another_api_is_told_what_is_answered(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            error = (await live.get("/v1/responses", "POST")).error
            assert "/v1/chat/completions, /v1/models" in error["message"]

    run(main())


def test_a_sane_request_id_is_echoed_and_an_odd_one_replaced(run: Run, tmp_path: Path) -> None:
    given = ["abc-1._X", "a b", "x" * 129, "é", ""]
    replies = asked(run, tmp_path, *[("/v1/models", "GET", {"X-Request-ID": each}) for each in given])
    shown = [reply.headers["x-request-id"] for reply in replies]
    assert shown[0] == "abc-1._X"
    assert all(each.startswith("req_") for each in shown[1:])
    assert len(set(shown)) == len(shown)


def test_the_answer_tells_how_it_came_about(run: Run, tmp_path: Path) -> None:
    async def main() -> list[Reply]:
        async with gateway_and_demo(tmp_path) as (live, _):
            return [await live.chat("openai"), await live.chat("openai", stream=True)]

    for reply in run(main()):
        assert reply.headers["x-gateway-deployment"] == "openai"
        assert reply.headers["x-gateway-attempts"] == "openai=200"
        assert len(reply.headers["x-gateway-config"]) >= 8
        assert reply.headers["x-upstream-request-id"].startswith("req_demo")
        assert "x-gateway-dropped-params" not in reply.headers


@pytest.mark.parametrize("stream", [False, True])
def test_no_name_of_a_parameter_writes_headers_of_its_own(run: Run, tmp_path: Path, *, stream: bool) -> None:
    odd = {"x\r\nset-cookie: a=1": 1, "a,b": 1, "é": 1, "l" * 5000: 1, "x_new": 1}
    many = {f"x_{number}": 1 for number in range(60)}

    async def main() -> list[Reply]:
        async with gateway_and_demo(tmp_path) as (live, _):
            return [await live.chat("anthropic", stream=stream, **asked) for asked in (odd, many)]

    [reply, other] = run(main())
    assert (reply.status, other.status) == (200, 200)
    assert "set-cookie" not in reply.headers
    named = reply.headers["x-gateway-dropped-params"].split(",")
    assert named == ["x%0D%0Aset-cookie%3A%20a%3D1", "a%2Cb", "%C3%A9", "l" * 64, "x_new"]
    assert other.headers["x-gateway-dropped-params"].endswith(",x_49,10 more")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer key-all", 200),
        ("bearer key-all", 200),
        ("Bearer key-one", 200),
        ("Bearer key-al", 401),
        ("Bearer key-late", 401),
        ("Bearer", 401),
        ("key-all", 401),
        ("Basic a2V5LWFsbA==", 401),
        ("", 401),
    ],
)
def test_only_a_known_key_is_let_in(run: Run, tmp_path: Path, header: str, status: int) -> None:
    some = {name: {"provider": "openai", "model": "*" if "*" in name else name} for name in ("openai", "wild/*")}
    (reply,) = asked(run, tmp_path, ("/v1/models", "GET", {"Authorization": header}), keys=KEYS, deployments=some)
    assert reply.status == status
    if status == 401:
        assert reply.error["code"] == "invalid_api_key"
        assert reply.headers["www-authenticate"] == "Bearer"
        assert b"key-al" not in reply.body


def test_a_key_sees_its_models_only(run: Run, tmp_path: Path) -> None:
    async def main() -> list[Reply]:
        wild = {"wild/*": {"provider": "openai", "model": "*"}}
        both = {"openai": {"provider": "openai", "model": "m"}, "xai": {"provider": "xai", "model": "m"}}
        async with gateway_and_demo(tmp_path, keys=KEYS, deployments={**both, **wild}) as (live, _):
            live.headers["Authorization"] = "Bearer key-one"
            replies = [await live.get(path) for path in ("/v1/models", "/v1/models/openai", "/v1/models/xai")]
            names = ("openai", "wild/x", "xai", "nobody")
            return replies + [await live.chat(name) for name in names]

    listed, mine, theirs, openai, wild, forbidden, unknown = run(main())
    assert [each["id"] for each in listed.json()["data"]] == ["openai", "wild/*"]
    assert (mine.status, theirs.status) == (200, 404)
    assert (openai.status, wild.status) == (200, 200)
    assert (forbidden.status, unknown.status) == (404, 404)
    assert forbidden.body.replace(b"xai", b"nobody") == unknown.body


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "evil.example:{port}"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_without_keys_only_programs_on_this_machine_are_served(
    run: Run, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async def main() -> Reply:
        async with gateway_and_demo(tmp_path) as (live, _):
            given = {name: value.format(port=live.port) for name, value in headers.items()}
            return await live.post({"model": "openai", "messages": HELLO}, **given)

    assert run(main()).status == status


def test_a_connection_serves_one_request_after_the_other(run: Run, tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        async with gateway_and_demo(tmp_path) as (live, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            got = []
            for stream in (False, True, False):
                body = orjson.dumps({"model": "openai", "messages": HELLO, "stream": stream})
                keep = {"Connection": "keep-alive"}
                writer.write(request_bytes(live.port, "/v1/chat/completions", body, keep))
                head = await reader.readuntil(b"\r\n\r\n")
                if stream:
                    got.append(head + await reader.readuntil(b"\r\n0\r\n\r\n"))
                else:
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    got.append(head + await reader.readexactly(length))
            writer.close()
            return got

    for data in run(main()):
        reply = read_reply(data)
        assert (reply.status, reply.complete) == (200, True)
        assert "connection" not in reply.headers


def test_two_pipelined_requests_are_answered_in_order(run: Run, tmp_path: Path) -> None:
    async def main() -> bytes:
        async with gateway_and_demo(tmp_path) as (live, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            first = request_bytes(live.port, "/v1/models/openai", None, {"Connection": "keep-alive"})
            writer.write(first + request_bytes(live.port, "/v1/models/xai", None, {}))
            got = await reader.read()
            writer.close()
            return got

    got = run(main())
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert got.index(b'"openai"') < got.index(b'"xai"')


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'{"messages":[]}', "model"),
        (b'{"model":7,"messages":[]}', "model"),
        (b'{"model":"openai"}', "messages"),
        (b'{"model":"openai","model":"xai","messages":[]}', "model"),
        (b'{"model":"openai","messages":[],"stream":"yes"}', "stream"),
        (b'{"model":"openai","messages":"\xff"}', None),
    ],
)
def test_a_body_that_cannot_be_read_reaches_no_provider(
    run: Run, tmp_path: Path, body: bytes, param: str | None
) -> None:
    async def main() -> tuple[Reply, int]:
        async with gateway_and_demo(tmp_path) as (live, demo):
            return await live.post(body), demo.served

    reply, served = run(main())
    assert (reply.status, served) == (400, 0)
    assert reply.error["type"] == "invalid_request_error"
    assert param is None or reply.error["param"] == param


def test_many_clients_at_once_get_their_own_answers(run: Run, tmp_path: Path) -> None:
    async def main() -> list[Reply]:
        async with gateway_and_demo(tmp_path) as (live, _):
            asks = [
                live.chat(provider, stream=stream, messages=[{"role": "user", "content": f"number {n} of {provider}"}])
                for n, provider in enumerate(("openai", "anthropic", "google", "bedrock", "together") * 8)
                for stream in (False, True)
            ]
            return await asyncio.gather(*asks)

    replies = run(main())
    for at, reply in enumerate(replies):
        assert f"number {at // 2} of" in reply.text()
