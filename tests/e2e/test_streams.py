"""Truthful streams: the status tells how it began, the end tells whether it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livegateway import PROVIDERS, TRANSLATED, Reply, gateway_and_demo, gateway_before
from upstreams import SSE_HEAD, ScriptedUpstream, chunk, event

Run = Callable[[Any], Any]


def asked(served: Run, folder: Path, provider: str, switch: str, **body: Any) -> tuple[Reply, dict[str, Any]]:
    """The demo's answer under a switch, through one provider, and its line in the log."""

    async def main() -> tuple[Reply, dict[str, Any]]:
        timeouts = {"idle": "1s", "first_byte": "1s"}
        entry = {"provider": provider, "model": "claude-sonnet-4-5", "retry": {"attempts": 1, "timeouts": timeouts}}
        async with gateway_and_demo(folder, deployments={"m": entry}) as (live, demo):
            demo.misbehave(switch)
            reply = await live.chat("m", **body)
            (line,) = await live.logged(1)
            return reply, line

    result: tuple[Reply, dict[str, Any]] = served(main())
    return result


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_whole_stream_ends_with_done_and_its_framing(served: Run, tmp_path: Path, provider: str) -> None:
    reply, line = asked(served, tmp_path, provider, "", stream=True)
    assert (reply.status, reply.done, reply.complete, line["code"]) == (200, True, True, "ok")
    assert line["tokens"]["source"] == "reported"
    assert line["bytes_out"] == len(reply.body)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_that_begins_with_an_error_has_the_errors_status(served: Run, tmp_path: Path, provider: str) -> None:
    reply, line = asked(served, tmp_path, provider, "firsterror", stream=True)
    assert reply.status in (429, 500, 502, 503)
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.error) >= {"message", "type", "param", "code"}
    assert line["status"] == reply.status


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_error_object_under_200_has_the_errors_status(
    served: Run, tmp_path: Path, provider: str, stream: bool
) -> None:
    reply, line = asked(served, tmp_path, provider, "error200", stream=stream)
    assert reply.status in (429, 502, 503)
    assert reply.error["message"]
    assert line["code"] == reply.error["code"] != "ok"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_that_stops_without_its_terminal_event_is_told_to_be_broken(
    served: Run, tmp_path: Path, provider: str
) -> None:
    reply, line = asked(served, tmp_path, provider, "cut", stream=True)
    assert reply.status == 200
    assert reply.chunks[-1]["error"]["code"] == "upstream_truncated"
    assert (reply.done, reply.complete) == (False, False)
    assert reply.text()
    assert line["code"] == "upstream_truncated"
    assert line["tokens"]["source"] == "partial"


@pytest.mark.parametrize("switch", ["reset", "midstream", "shortlength"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_that_fails_in_the_middle_ends_with_an_error_event(
    served: Run, tmp_path: Path, provider: str, switch: str
) -> None:
    reply, line = asked(served, tmp_path, provider, switch, stream=True)
    assert reply.status == 200
    if switch == "shortlength" and provider != "google":
        # All events came, the terminal one too, and only the framing lied. Google's stream ends with its framing.
        assert (reply.done, reply.complete, line["code"]) == (True, True, "ok")
        return
    assert set(reply.chunks[-1]["error"]) >= {"message", "type", "param", "code"}
    assert all("error" not in chunk for chunk in reply.chunks[:-1])
    assert (reply.done, reply.complete) == (False, False)
    assert line["code"] == reply.chunks[-1]["error"]["code"] != "ok"


@pytest.mark.parametrize("provider", ["openai", *TRANSLATED])
def test_a_stream_that_falls_silent_is_ended_by_the_idle_timer(served: Run, tmp_path: Path, provider: str) -> None:
    reply, line = asked(served, tmp_path, provider, "stall", stream=True)
    assert reply.chunks[-1]["error"]["code"] == "upstream_idle_timeout"
    assert (reply.complete, line["code"]) == (False, "upstream_idle_timeout")


def test_an_upstream_that_never_answers_is_a_504(served: Run, tmp_path: Path) -> None:
    reply, line = asked(served, tmp_path, "openai", "hang", stream=True)
    assert (reply.status, reply.error["code"], line["code"]) == (504, "upstream_timeout", "upstream_timeout")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_stream_that_comes_byte_by_byte_is_the_same_stream(served: Run, tmp_path: Path, provider: str) -> None:
    async def main() -> tuple[Reply, Reply]:
        async with gateway_and_demo(tmp_path) as (live, demo):
            plain = await live.chat(provider, stream=True)
            demo.misbehave("drip")
            return plain, await live.chat(provider, stream=True)

    plain, dripped = served(main())
    assert dripped.done
    assert dripped.text() == plain.text() != ""
    assert [sorted(each) for each in dripped.chunks[1:-1]] == [sorted(each) for each in plain.chunks[1:-1]]


def test_html_instead_of_a_stream_is_a_502(served: Run, tmp_path: Path) -> None:
    for switch in ("html", "badgateway"):
        reply, _ = asked(served, tmp_path, "openai", switch, stream=True)
        assert reply.status == 502
        assert b"<html" not in reply.body


def test_the_head_waits_for_the_first_event_but_not_for_the_second(served: Run, tmp_path: Path) -> None:
    async def main() -> bytes:
        first, last = event(chunk(role="assistant", content="a")), event(chunk(content="b"))
        steps = [{"t": SSE_HEAD}, {"chunk": ": waiting\n\n"}, {"chunk": first}, {"stall": True}]
        async with ScriptedUpstream(steps) as upstream, gateway_before(tmp_path, upstream.url) as live:
            talk = await live.open({"model": "m", "messages": [], "stream": True})
            seen = await talk.until(b'"content":"a"')
            talk.leave()
            assert last.encode() not in seen
            return seen

    seen = served(main())
    assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"text/event-stream; charset=utf-8" in seen
    assert b"content-length" not in seen.lower()


def test_a_comment_alone_does_not_open_the_stream(served: Run, tmp_path: Path) -> None:
    async def main() -> Reply:
        error = event({"error": {"message": "later", "type": "server_error", "code": None, "param": None}})
        steps = [{"t": SSE_HEAD}, {"chunk": ": ping\n\n"}, {"chunk": error}, {"end": True}]
        async with ScriptedUpstream(steps) as upstream, gateway_before(tmp_path, upstream.url) as live:
            return await live.post({"model": "m", "messages": [], "stream": True})

    assert served(main()).status == 500


def test_a_silent_stream_is_kept_alive_between_its_events(run: Run, tmp_path: Path) -> None:
    async def main() -> bytes:
        loop: Any = asyncio.get_running_loop()
        steps = [{"t": SSE_HEAD}, {"chunk": event(chunk(role="assistant", content="a"))}, {"stall": True}]
        async with ScriptedUpstream(steps) as upstream, gateway_before(tmp_path, upstream.url) as live:
            talk = await live.open({"model": "m", "messages": [], "stream": True})
            await talk.until(b'"content":"a"')
            for _ in range(3):
                loop.advance(10)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await talk.until(b"\n\n\r\ne\r\n: keep-alive\n\n\r\n")
            talk.leave()
            return talk.seen

    assert b"error" not in run(main())


def test_an_http_1_0_client_gets_a_stream_without_chunks(served: Run, tmp_path: Path) -> None:
    async def main() -> Any:
        async with gateway_and_demo(tmp_path) as (live, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
            body = b'{"model":"openai","messages":[{"role":"user","content":"hi"}],"stream":true}'
            head = f"POST /v1/chat/completions HTTP/1.0\r\nHost: 127.0.0.1:{live.port}\r\n"
            writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            got = await reader.read()
            writer.close()
            return got

    got = served(main())
    assert b"transfer-encoding" not in got.lower()
    assert got.endswith(b"data: [DONE]\n\n")
