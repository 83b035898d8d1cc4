"""A client that goes away ends the provider's work at once; one that takes nothing costs little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from livegateway import HELLO, PROVIDERS, Process, Talk, gateway_and_demo, gateway_before, process
from upstreams import SSE_HEAD, ScriptedUpstream, chunk, event

from gateway.demo import start_demo

Run = Callable[[Any], Any]
AT_ONCE = 0.25
BODY = '{"id":"x","object":"chat.completion","choices":[{"index":0,'
FIRST = event(chunk(role="assistant", content="a"))
# What the provider has done when the client leaves, streamed or not.
WINDOWS: dict[str, tuple[bool, list[dict[str, Any]]]] = {
    "whole, before the head": (False, []),
    "whole, in the body": (
        False,
        [{"t": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n" + BODY}],
    ),
    "stream, before the head": (True, []),
    "stream, before the first event": (True, [{"t": SSE_HEAD}, {"chunk": ": ping\n\n"}]),
    "stream, in the middle": (True, [{"t": SSE_HEAD}, {"chunk": FIRST}]),
}


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("window", WINDOWS)
def test_the_provider_is_left_when_the_client_leaves(served: Run, tmp_path: Path, window: str, how: str) -> None:
    stream, steps = WINDOWS[window]

    async def main() -> tuple[float, dict[str, Any]]:
        begun = asyncio.Event()
        script = [*steps, {"set": begun}, {"stall": True}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            talk = await live.open({"model": "m", "messages": HELLO, "stream": stream})
            await begun.wait()
            if window == "stream, in the middle":
                await talk.until(b'"content":"a"')
            else:
                for _ in range(20):  # turns in which the gateway reads what the provider has sent
                    await asyncio.sleep(0)
            left = time.monotonic()
            talk.leave() if how == "reset" else talk.writer.close()
            async with asyncio.timeout(5):
                await upstream.connections[0].closed.wait()
            took = time.monotonic() - left
            (line,) = await live.logged(1)
            return took, line

    took, line = served(main())
    assert took < AT_ONCE
    assert line["code"] == "client_disconnect"
    if window == "stream, in the middle":
        assert line["tokens"] == {**line["tokens"], "completion": 1, "source": "partial"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_is_left_before_it_has_answered(
    served: Run, tmp_path: Path, provider: str, stream: bool
) -> None:
    async def main() -> float:
        async with gateway_and_demo(tmp_path) as (live, demo):
            demo.misbehave("hang")
            talk = await live.open({"model": provider, "messages": HELLO, "stream": stream})
            await demo.settled(1)
            left = time.monotonic()
            talk.leave()
            await demo.settled(0)
            assert demo.gone == 1
            return time.monotonic() - left

    assert served(main()) < AT_ONCE


def test_a_connection_that_was_left_serves_no_other_client(served: Run, tmp_path: Path) -> None:
    async def main() -> str:
        async with gateway_and_demo(tmp_path) as (live, demo):
            demo.misbehave("stall")
            talk = await live.open({"model": "openai", "messages": HELLO, "stream": True})
            await talk.until(b"data: ")
            talk.leave()
            await demo.settled(0)
            other = [{"role": "user", "content": "somebody else"}]
            return (await live.chat("openai", messages=other)).text()

    assert "somebody else" in served(main())


def test_a_stalled_client_stops_the_provider_until_it_reads_on(served: Run, tmp_path: Path) -> None:
    async def main() -> None:
        sent_all = asyncio.Event()
        rest = {"rep": {"chunk": event(chunk(content="x" * 60_000)), "n": 300}}
        script = [{"t": SSE_HEAD}, {"chunk": FIRST}, rest, {"set": sent_all}, {"chunk": "{{DONE}}"}, {"end": True}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            talk = await live.open({"model": "m", "messages": HELLO, "stream": True})
            await talk.until(b'"content":"a"')
            talk.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sent_all.wait(), 0.7)
            talk.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a socket's transport can
            reply = await talk.rest()
            assert (reply.done, reply.complete, len(reply.text())) == (True, True, 1 + 300 * 60_000)

    served(main())


FEW, MANY = 8, 32


async def _flood(folder: Path, provider: str) -> float:
    """How much a gateway grows for each further client that takes nothing of 1 GB.

    The first few also make the allocator grow, by an amount that no client has to answer for.
    """
    demo = await start_demo("127.0.0.1", 0)
    content = {
        "providers": {"p": {"type": provider, "base_url": demo.url(provider), "api_key": "x"}},
        "deployments": {"m": {"provider": "p", "model": "demo-flood-1000"}},
    }
    try:
        with process(folder, content) as running:
            book = psutil.Process(running.process.pid)
            talks = [await _stalled(running) for _ in range(FEW)]
            few = await _settled_size(book)
            talks += [await _stalled(running) for _ in range(MANY - FEW)]
            many = await _settled_size(book)
            assert demo.active == MANY
            for talk in talks:
                talk.leave()
            await demo.settled(0)
            return (many - few) / (MANY - FEW)
    finally:
        await demo.stop()


async def _stalled(running: Process) -> Talk:
    talk = await running.open({"model": "m", "messages": HELLO, "stream": True})
    await talk.until(b"data: ")
    talk.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
    return talk


async def _settled_size(book: psutil.Process) -> int:
    """The process's resident memory once it has stopped to grow."""
    sizes = [0, book.memory_info().rss]
    while sizes[-1] > max(sizes[-5:-1]) or len(sizes) < 6:
        await asyncio.sleep(0.1)
        sizes.append(book.memory_info().rss)
    return max(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_stalled_client_costs_less_than_512_kib_of_a_gigabyte(served: Run, tmp_path: Path, provider: str) -> None:
    assert served(_flood(tmp_path, provider)) < 512 * 1024
