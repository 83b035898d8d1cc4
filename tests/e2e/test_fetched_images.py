"""Images that a client names by URL, through the gateway: fetched for the deployments that ask for it, for no other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from imageweb import HOST, PDF, PNG, Web, served, web
from livegateway import Client, accounts, document
from upstreams import Step, demo

from gateway.config.loader import load
from gateway.config.plugins import Registry
from gateway.demo import Demo
from gateway.listeners import open_sockets
from gateway.serving import Serving, log_of
from gateway.upstream import Sweep

Run = Callable[[Any], Any]
URL = f"https://{HOST}/a.png"
BASE64 = b64encode(PNG).decode()
NAMES = ("anthropic", "google", "bedrock", "openai")


def messages(url: str = URL) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]


@dataclass
class Place:
    """A gateway before the demo, with an internet of its own."""

    live: Client
    upstream: Demo
    internet: Web
    running: Serving

    def sent(self) -> Any:
        """The body of the last request that a provider got."""
        return orjson.loads(self.upstream.requests[-1].body)


@contextlib.asynccontextmanager
async def place(folder: Path, *scripts: Sequence[Step], fetch: Any = True, **more: Any) -> AsyncIterator[Place]:
    async with web(*scripts) as internet, demo() as upstream:
        known = accounts(upstream, *NAMES)
        providers = {name: {**entry, "fetch_images": fetch} for name, entry in known.items()}
        whole, client = document(folder, {"providers": providers, "deployments": DEPLOYMENTS, **more})
        async with gateway(whole) as running:
            running.proxy.snapshot.upstreams.images = internet.images()
            yield Place(client, upstream, internet, running)


@contextlib.asynccontextmanager
async def gateway(whole: dict[str, Any]) -> AsyncIterator[Serving]:
    """What `sluiceway serve` serves requests with, in reach of the test."""
    registry = Registry()
    loaded = load("gateway.yaml", os.environ, registry, text=json.dumps(whole))
    assert loaded.config is not None, [str(finding) for finding in loaded.findings]
    log, sweep = log_of(loaded.config), Sweep()
    opened = open_sockets(loaded.config.server.listen, {})
    running = Serving(loaded.config, loaded.digest, registry, log, sweep)
    log.start()
    sweep.add(log)
    sweep.start()
    await running.start(opened.sockets)
    try:
        yield running
    finally:
        await running.drain(1, asyncio.Event())
        sweep.stop()
        log.close()


DEPLOYMENTS = {
    "anthropic": {"provider": "anthropic", "model": "claude-sonnet-4-5", "emulate": ["n"]},
    "google": {"provider": "google", "model": "gemini-2.5-flash"},
    "bedrock": {"provider": "bedrock", "model": "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"},
    "openai": {"provider": "openai", "model": "gpt-4o-mini"},
    "down": {"provider": "anthropic", "model": "demo-overloaded", "retry": {"attempts": 1}},
}

INLINE = {
    "anthropic": lambda sent: sent["messages"][0]["content"][1]["source"],
    "google": lambda sent: sent["contents"][0]["parts"][1]["inlineData"],
    "bedrock": lambda sent: sent["messages"][0]["content"][1]["image"],
    "openai": lambda sent: sent["messages"][1]["content"][1]["image_url"],
}
WANTED = {
    "anthropic": {"type": "base64", "media_type": "image/png", "data": BASE64},
    "google": {"mimeType": "image/png", "data": BASE64},
    "bedrock": {"format": "png", "source": {"bytes": BASE64}},
    "openai": {"url": f"data:image/png;base64,{BASE64}"},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_provider_gets_the_image_itself(run: Run, tmp_path: Path, name: str, stream: bool) -> None:
    async def main() -> None:
        async with place(tmp_path, served(PNG)) as here:
            reply = await here.live.chat(name, messages=messages(), stream=stream)
            assert reply.status == 200, reply.body
            assert reply.done == stream
            assert INLINE[name](here.sent()) == WANTED[name]
            assert len(here.internet.server.requests) == 1

    run(main())


def test_a_file_by_url_becomes_a_document(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with place(tmp_path, served(PDF, "application/pdf")) as here:
            part = {"type": "file", "file": {"filename": "a.pdf", "file_data": f"https://{HOST}/a.pdf"}}
            reply = await here.live.chat("anthropic", messages=[{"role": "user", "content": [part]}])
            assert reply.status == 200, reply.body
            source = {"type": "base64", "media_type": "application/pdf", "data": b64encode(PDF).decode()}
            assert here.sent()["messages"][0]["content"][0]["source"] == source

    run(main())


def test_without_the_option_nothing_is_fetched(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with place(tmp_path, served(PNG), fetch=False) as here:
            assert (await here.live.chat("openai", messages=messages())).status == 200
            assert here.sent()["messages"] == messages()
            assert (await here.live.chat("anthropic", messages=messages())).status == 200
            assert here.sent()["messages"][0]["content"][1]["source"] == {"type": "url", "url": URL}
            for name in ("bedrock", "google"):
                reply = await here.live.chat(name, messages=messages())
                assert (reply.status, reply.error["code"]) == (400, "unsupported_parameter")
            assert not here.internet.asked

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_that_cannot_be_had_is_the_clients_mistake(run: Run, tmp_path: Path, stream: bool) -> None:
    async def main() -> None:
        async with place(tmp_path, served(b"gone", "text/plain", "404 Not Found")) as here:
            reply = await here.live.chat("anthropic", messages=messages(), stream=stream)
            assert reply.status == 400
            assert reply.error == {
                "message": "The image cannot be fetched: the server answered with status 404.",
                "type": "invalid_request_error",
                "param": "messages[1].content[1].image_url.url",
                "code": "invalid_image_url",
            }
            assert not here.upstream.requests
            (line,) = await here.live.logged(1, status=400)
            assert line["code"] == "invalid_image_url"

    run(main())


@pytest.mark.parametrize("url", ["https://169.254.169.254/latest/", "http://images.example.com/", "file:///etc/passwd"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_inside_is_ever_asked(run: Run, tmp_path: Path, name: str, url: str) -> None:
    async def main() -> None:
        async with place(tmp_path, served(PNG)) as here:
            reply = await here.live.chat(name, messages=messages(url))
            assert (reply.status, reply.error["code"]) == (400, "invalid_image_url")
            assert not here.internet.asked
            assert not here.upstream.requests

    run(main())


def test_what_google_keeps_itself_is_not_fetched(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with place(tmp_path, served(PNG)) as here:
            film = "https://www.youtube.com/watch?v=1"
            assert (await here.live.chat("google", messages=messages(film))).status == 200
            assert here.sent()["contents"][0]["parts"][1]["fileData"]["fileUri"] == film
            assert not here.internet.asked

    run(main())


def test_several_calls_and_attempts_fetch_an_image_once(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        routings = {"steady": {"strategy": "priority", "targets": ["down", "bedrock"]}}
        async with place(tmp_path, served(PNG), routings=routings) as here:
            reply = await here.live.chat("steady", messages=messages())
            assert reply.headers["x-gateway-attempts"].endswith("bedrock=200"), reply.headers
            assert len(here.upstream.requests) == 2
            assert len(here.internet.server.requests) == 1
            reply = await here.live.chat("anthropic", messages=messages(), n=3)
            assert len(reply.json()["choices"]) == 3
            assert len(here.upstream.requests) == 5
            assert len(here.internet.server.requests) == 2

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_the_room_of_an_image_is_free_again_when_the_request_is_over(
    run: Run, until: Any, tmp_path: Path, stream: bool
) -> None:
    async def main() -> None:
        large = PNG + b"\x00" * 90_000
        async with place(tmp_path, served(large), server={"max_buffered": "128KiB", "max_body": "128KiB"}) as here:
            for _ in range(3):
                assert (await here.live.chat("google", messages=messages(), stream=stream)).status == 200
                await until(lambda: here.running.proxy.held == 0)
            two = [*messages(), *messages(URL + "?2")]
            for _ in range(2):
                reply = await here.live.chat("google", messages=two, stream=stream)
                assert (reply.status, reply.error["code"]) == (503, "overloaded")
                await until(lambda: here.running.proxy.held == 0)

    run(main())
