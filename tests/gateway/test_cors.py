"""gateway.cors: pages of named origins may call, and read every answer; for others nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from livegateway import HELLO, Client, Reply, gateway_and_demo, hashed, request_bytes

Run = Callable[[Any], Any]
PAGE, OTHER = "https://app.example", "https://evil.example"
CHAT = "/v1/chat/completions"
KEYS = {"one": {"hash": hashed("key-one")}}
LIMITED = {"one": {"hash": hashed("key-one"), "limits": {"rpm": 600}}}
MARK = "access-control-allow-origin"
# What the official SDK asks for from a browser.
WANTED = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)


def asking(origin: str = PAGE, headers: str = WANTED, **more: str) -> dict[str, str]:
    """The headers of a preflight."""
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
        **more,
    }


def answers(run: Run, folder: Path, ask: Callable[[Client], Any], **content: Any) -> Any:
    """What a client got from a gateway that names one page."""

    async def main() -> Any:
        server = {"cors": [PAGE, "http://localhost:3000"], **content.pop("server", {})}
        async with gateway_and_demo(folder, **{"keys": KEYS, "server": server, **content}) as (live, _):
            return await ask(live)

    return run(main())


def test_a_browser_may_ask_without_a_key(run: Run, tmp_path: Path) -> None:
    reply = answers(run, tmp_path, lambda live: live.get(CHAT, "OPTIONS", **asking()))
    assert (reply.status, reply.body) == (204, b"")
    assert "content-length" not in reply.headers
    assert reply.headers[MARK] == PAGE
    assert reply.headers["access-control-allow-methods"] == "GET, POST"
    assert reply.headers["access-control-allow-headers"] == WANTED.replace(",", ", ")
    assert reply.headers["access-control-max-age"] == "7200"
    assert reply.headers["vary"].startswith("Origin")
    assert "access-control-allow-credentials" not in reply.headers


def test_only_known_headers_are_allowed(run: Run, tmp_path: Path) -> None:
    wanted = asking(headers="Authorization, X-Evil, x-request-id, cookie, X-Stainless-Lang, , x-stainless-" + "a" * 99)
    reply = answers(run, tmp_path, lambda live: live.get(CHAT, "OPTIONS", **wanted))
    assert reply.headers["access-control-allow-headers"] == "Authorization, x-request-id, X-Stainless-Lang"


def test_a_header_that_a_routing_chooses_by_is_allowed(run: Run, tmp_path: Path) -> None:
    routings = {"r": {"targets": ["openai"], "sticky": "header:X-Session"}}
    ask = asking(headers="x-session")
    reply = answers(run, tmp_path, lambda live: live.get(CHAT, "OPTIONS", **ask), routings=routings)
    assert reply.headers["access-control-allow-headers"] == "x-session"


def test_a_page_on_the_internet_may_call_this_machine_when_it_is_named(run: Run, tmp_path: Path) -> None:
    ask = asking(**{"Access-Control-Request-Private-Network": "true"})
    reply = answers(run, tmp_path, lambda live: live.get(CHAT, "OPTIONS", **ask))
    assert reply.headers["access-control-allow-private-network"] == "true"


def test_other_pages_are_answered_as_without_cors(run: Run, tmp_path: Path) -> None:
    async def ask(live: Client) -> list[Reply]:
        bearer = {"Authorization": "Bearer key-one"}
        return [
            await live.get(CHAT, "OPTIONS", **asking(OTHER)),
            await live.get(CHAT, "OPTIONS", **asking("null")),
            await live.get(CHAT, "OPTIONS", Origin=PAGE),
            await live.get("/v1/models", Origin=OTHER, **bearer),
        ]

    strange, null, no_preflight, served = answers(run, tmp_path, ask)
    assert [each.status for each in (strange, null, no_preflight, served)] == [405, 405, 405, 200]
    assert all(MARK not in each.headers for each in (strange, null, served))
    assert all(each.headers["vary"] == "Origin" for each in (strange, null, served))


def test_every_answer_can_be_read_by_the_page(run: Run, tmp_path: Path) -> None:
    async def ask(live: Client) -> list[Reply]:
        page, bearer = {"Origin": PAGE}, {"Authorization": "Bearer key-one"}
        body = orjson.dumps({"model": "openai", "messages": HELLO})
        stream = orjson.dumps({"model": "openai", "messages": HELLO, "stream": True})
        return [
            await live.post(body, **page, **bearer),
            await live.post(stream, **page, **bearer),
            await live.get("/v1/models", **page, **bearer),
            await live.get("/v1/models", **page),
            await live.get("/nowhere", **page),
            await live.post(b"{", **page, **bearer),
            await live.post(body, **page, **bearer, **{"Content-Type": "text/plain"}),
        ]

    replies = answers(run, tmp_path, ask, keys=LIMITED)
    assert [each.status for each in replies] == [200, 200, 200, 401, 404, 400, 415]
    assert replies[1].done
    for each in replies:
        assert (each.headers[MARK], each.headers["vary"]) == (PAGE, "Origin")
        shown = each.headers["access-control-expose-headers"].split(", ")
        ours = {name for name in each.headers if name.startswith(("x-gateway-", "x-ratelimit-", "x-request"))}
        assert ours <= set(shown)
    assert "x-ratelimit-remaining-requests" in replies[0].headers


def test_the_second_request_of_a_connection_is_marked_like_the_first(run: Run, tmp_path: Path) -> None:
    async def ask(live: Client) -> list[str]:
        body = orjson.dumps({"model": "openai", "messages": HELLO})
        headers = {"Origin": PAGE, "Authorization": "Bearer key-one", "Connection": ""}
        data = request_bytes(live.port, CHAT, body, headers)
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        found = []
        for _ in range(3):
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
            found += [line for line in head.split("\r\n") if line.startswith(MARK)]
        writer.close()
        return found

    assert answers(run, tmp_path, ask) == [f"{MARK}: {PAGE}"] * 3


def test_a_named_page_may_call_a_gateway_without_keys_and_no_other_may(run: Run, tmp_path: Path) -> None:
    async def ask(live: Client) -> list[int]:
        body = orjson.dumps({"model": "openai", "messages": HELLO})
        asks: list[dict[str, str]] = [{"Origin": PAGE}, {"Origin": OTHER}, {"Origin": PAGE, "Host": "evil.example"}]
        return [(await live.post(body, **headers)).status for headers in asks]

    assert answers(run, tmp_path, ask, keys={}) == [200, 403, 403]


def test_without_cors_nothing_is_said_to_browsers(run: Run, tmp_path: Path) -> None:
    async def ask(live: Client) -> list[Reply]:
        preflight = await live.get(CHAT, "OPTIONS", **asking())
        return [preflight, await live.get("/v1/models", Origin=PAGE, Authorization="Bearer key-one")]

    replies = answers(run, tmp_path, ask, server={"cors": []})
    assert [each.status for each in replies] == [405, 200]
    for each in replies:
        assert not {name for name in each.headers if name.startswith("access-control") or name == "vary"}


def test_a_reload_changes_who_may_call(run: Run, tmp_path: Path) -> None:
    async def main() -> list[str | None]:
        async with gateway_and_demo(tmp_path, keys=KEYS, server={"cors": [PAGE]}) as (live, _):
            before = (await live.get("/v1/models", Origin=OTHER)).headers.get(MARK)
            live.path.write_text(live.path.read_text().replace(PAGE, OTHER))
            live.signal(1)
            async with asyncio.timeout(10):
                while (after := await live.get("/v1/models", Origin=OTHER)).headers.get(MARK) is None:  # noqa: ASYNC110 - another configuration
                    await asyncio.sleep(0.02)
            return [before, after.headers[MARK]]

    assert run(main()) == [None, OTHER]
