"""The serving part of the gateway in this process, before scripted upstreams."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from livegateway import Live, document
from upstreams import ScriptedUpstream, answer

from gateway.config.loader import load
from gateway.config.plugins import Registry
from gateway.exchange import Upstreams
from gateway.health import Health
from gateway.log import Log
from gateway.serving import Serving
from gateway.upstream import Sweep

Run = Callable[[Any], Any]
Until = Callable[[Callable[[], bool]], Any]
OK = [{"t": "{{OK}}"}]
STALL = [{"stall": True}]
STREAM = [{"t": "{{SSE}}"}, {"chunk": "{{D1}}{{D2}}{{FIN}}{{DONE}}"}, {"end": 1}]
BROKEN = [{"t": "{{SSE}}"}, {"chunk": "{{D1}}{{D2}}"}, {"fin": 1}]
BUSY = [{"t": answer('{"error":{"message":"slow down"}}', "429 Too Many Requests", Retry_After="30")}]
DOWN = [{"t": answer('{"error":{"message":"down"}}', "503 Service Unavailable")}]


@asynccontextmanager
async def before(
    folder: Path, *scripts: list[dict[str, Any]], options: dict[str, Any] | None = None, **content: Any
) -> AsyncIterator[tuple[Live, list[ScriptedUpstream]]]:
    """The gateway before upstreams `a`, `b`, ..., each of which does the same for every request."""
    async with AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(ScriptedUpstream(script)) for script in scripts]
        names = "abcdef"[: len(ups)]
        providers = {
            name: {"type": "openai", "base_url": up.url, "api_key": "k"} for name, up in zip(names, ups, strict=True)
        }
        deployments = {name: {"provider": name, "model": f"real-{name}", **(options or {})} for name in names}
        whole = {"providers": providers, "deployments": deployments, **content}
        yield await stack.enter_async_context(running(folder, whole)), ups


@asynccontextmanager
async def running(folder: Path, content: dict[str, Any]) -> AsyncIterator[Live]:
    """The serving part of the gateway in this process, in `app`."""
    whole, client = document(folder, content)
    loaded = load("g.yaml", {}, Registry(), text=json.dumps(whole))
    assert loaded.config is not None, [str(finding) for finding in loaded.findings]
    log, sweep = Log(str(client.log_path)), Sweep()
    gateway = Serving(loaded.config, loaded.digest, Registry(), log, sweep)
    listener = socket.create_server(("127.0.0.1", client.port))
    log.start()
    sweep.add(log)
    sweep.start()
    await gateway.start([listener])
    try:
        yield Live(client.port, 0, client.log_path, {}, gateway)
    finally:
        hurry = asyncio.Event()
        hurry.set()
        await gateway.drain(0, hurry)
        sweep.stop()
        log.close()


def state(live: Live) -> Upstreams:
    upstreams: Upstreams = live.app.proxy.snapshot.upstreams
    return upstreams


def health(live: Live, name: str) -> Health:
    return state(live).health_of(name)
