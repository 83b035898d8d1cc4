"""The gateway before providers that are no plain host: behind a proxy, at a Unix socket, at an IPv6 address."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from connectproxy import ConnectProxy
from livegateway import HELLO, Live, Reply, Talk, free_port, gateway_before, request_bytes, serving
from upstreams import OK_BODY, ScriptedUpstream, Step, answer, certificates

from gateway.app import App
from gateway.config.loader import load
from gateway.config.plugins import Registry

Run = Callable[[Any], Any]
OK: list[Step] = [{"t": "{{OK}}"}]
PASSWORD = "s3cret-password"


def content(url: str, proxy: str | None, **more: Any) -> dict[str, Any]:
    entry = {"type": "openai", "base_url": url, "api_key": "sk-up", "ca_file": certificates().ca_file, **more}
    if proxy:
        entry["proxy"] = proxy
    once = {"provider": "up", "model": "m", "retry": {"attempts": 1}}
    return {"providers": {"up": entry}, "deployments": {"m": once}}


@asynccontextmanager
async def behind_proxy(
    tmp_path: Path, login: str = "", used: str = ""
) -> AsyncIterator[tuple[Live, ConnectProxy, ScriptedUpstream]]:
    """A gateway, a proxy, and an https provider whose name only the proxy knows; with `used`, by another login."""
    async with (
        ScriptedUpstream(OK, tls="good") as upstream,
        ConnectProxy({"localhost": ("127.0.0.1", upstream.port)}, login) as proxy,
        serving(tmp_path, content("https://localhost:7/v1", proxy.url.replace(login, used or login))) as live,
    ):
        yield live, proxy, upstream


def test_requests_go_by_the_proxy_and_share_its_tunnels(served: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with behind_proxy(tmp_path, f"user:{PASSWORD}") as (live, proxy, upstream):
            for _ in range(3):
                assert (await live.chat("m")).status == 200
            assert proxy.hosts == ["localhost:7"]
            assert len(upstream.requests) == 3
            assert all(b"authorization: bearer sk-up" in each.lower() for each in upstream.requests)
            assert not any(b"proxy-" in each.lower() for each in upstream.requests)

    served(main())


def test_a_reload_takes_another_proxy_or_none_and_new_connections(served: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with behind_proxy(tmp_path) as (live, first, upstream):
            reply = await live.chat("m")
            async with ConnectProxy({"localhost": ("127.0.0.1", upstream.port)}) as second:
                for url, proxy in (("https://localhost:7/v1", second.url), (f"{upstream.url}/v1", None)):
                    whole = json.loads(live.path.read_text())
                    live.path.write_text(json.dumps({**whole, **content(url, proxy)}))
                    live.signal(signal.SIGHUP)
                    reply = await next_answer(live, reply)
                    assert reply.status == 200
                assert first.hosts == second.hosts == ["localhost:7"]
                assert len(upstream.connections) == 3

    served(main())


async def next_answer(live: Live, last: Reply) -> Reply:
    """The first answer by another configuration."""
    async with asyncio.timeout(10):
        while True:
            reply = await live.chat("m")
            if reply.headers["x-gateway-config"] != last.headers["x-gateway-config"]:
                return reply
            await asyncio.sleep(0.02)  # the reload reads the file in a thread


def test_a_proxy_that_refuses_us_is_told_without_its_password(served: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, str]:
        async with behind_proxy(tmp_path, "user:other", f"user:{PASSWORD}") as (live, proxy, _):
            reply = await live.chat("m")
            await live.logged(1, code="upstream_proxy_error")
            assert len(proxy.asked) == 1
            return reply, live.log_path.read_text()

    reply, log = served(main())
    assert (reply.status, reply.error["code"]) == (502, "upstream_proxy_error")
    assert "status 407" in reply.error["message"]
    assert PASSWORD not in log + str(reply.error) + str(reply.headers)


def test_a_model_server_at_a_unix_socket_is_served(served: Run, tmp_path: Path) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(OK_BODY, Connection="close").encode())
        writer.close()

    async def main() -> Reply:
        path = tmp_path / "model.sock"
        async with (
            await asyncio.start_unix_server(respond, path),
            gateway_before(tmp_path, f"http+unix://{quote(str(path), safe='')}/v1") as live,
        ):
            return await live.chat("m")

    heads: list[bytes] = []
    assert served(main()).status == 200
    assert heads[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")


def test_clients_and_providers_may_be_at_ipv6_addresses(served: Run, tmp_path: Path) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(OK_BODY, Connection="close").encode())
        writer.close()

    async def main() -> list[int]:
        port, admin = free_port(), free_port()
        body = orjson.dumps({"model": "m", "messages": HELLO})
        async with await asyncio.start_server(respond, "::1", 0) as upstream:
            whole = content(f"http://[::1]:{upstream.sockets[0].getsockname()[1]}/v1", None)
            server = {"listen": f"[::1]:{port}", "admin": f"[::1]:{admin}"}
            async with at_its_address(tmp_path, {"version": 1, "server": server, **whole}):
                chat = await asked(port, "/v1/chat/completions", body)
                return [chat.status, (await asked(admin, "/readyz", None)).status]

    assert served(main()) == [200, 200]


@asynccontextmanager
async def at_its_address(folder: Path, whole: dict[str, Any]) -> AsyncIterator[None]:
    """The gateway where the configuration says, not at a port of 127.0.0.1."""
    path, providers, ready = folder / "gateway.yaml", Registry(), asyncio.Event()
    path.write_text(json.dumps(whole))
    loaded = load(str(path), os.environ, providers)
    assert loaded.config is not None, [str(finding) for finding in loaded.findings]
    app = App(loaded.config, loaded, lambda: load(str(path), os.environ, providers), providers)
    task = asyncio.create_task(app.serve(lambda config: ready.set()))
    async with asyncio.timeout(10):
        await ready.wait()
    try:
        yield
    finally:
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            await task


async def asked(port: int, path: str, body: bytes | None) -> Reply:
    talk = Talk(*await asyncio.open_connection("::1", port))
    request = request_bytes(port, path, body, {}, "POST" if body else "GET")
    talk.writer.write(request.replace(b"127.0.0.1:", b"[::1]:"))
    return await talk.rest()
