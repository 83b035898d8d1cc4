"""gateway.demo.server and mischief: what a model's name or a script does to an answer on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import uvloop
from upstreams import demo

from gateway.demo import Demo
from gateway.eventstream import FrameReader

Run = Callable[[Any], Any]
FAILURES = (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError)


def request(provider: str, model: str, stream: bool) -> tuple[str, Any, dict[str, str]]:
    """Path, body and headers of one question, as each provider wants them."""
    said = [{"role": "user", "content": "Hello there"}]
    if provider == "anthropic":
        body: Any = {"model": model, "max_tokens": 99, "messages": said, "stream": stream}
        return "/v1/messages", body, {"anthropic-version": "2023-06-01"}
    if provider == "google":
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/models/{model}:{verb}", {"contents": [{"parts": [{"text": "Hello there"}]}]}, {}
    if provider == "bedrock":
        verb = "converse-stream" if stream else "converse"
        return f"/model/{model}/{verb}", {"messages": [{"role": "user", "content": [{"text": "Hello there"}]}]}, {}
    return "/chat/completions", {"model": model, "messages": said, "stream": stream}, {}


async def ask(upstream: Demo, model: str, *, provider: str = "openai", stream: bool = True) -> tuple[int, str, bytes]:
    path, body, headers = request(provider, model, stream)
    async with (
        aiohttp.ClientSession() as session,
        session.post(upstream.url(provider) + path, json=body, headers=headers) as response,
    ):
        return response.status, response.content_type, await response.read()


def answered(run: Run, model: str, **options: Any) -> tuple[int, str, bytes]:
    async def main() -> tuple[int, str, bytes]:
        async with demo() as upstream:
            return await ask(upstream, model, **options)

    return run(main())


FORMATS = ("openai", "anthropic", "google", "bedrock")
ENDS = {"openai": b"[DONE]", "anthropic": b"message_stop", "google": b'"finishReason"', "bedrock": b"messageStop"}


@pytest.mark.parametrize("provider", FORMATS)
@pytest.mark.parametrize("stream", [True, False])
def test_an_ordinary_answer_is_whole(run: Run, provider: str, stream: bool) -> None:
    status, _, body = answered(run, "demo", provider=provider, stream=stream)
    assert status == 200
    assert (ENDS[provider] in body) == (stream or provider == "google")


@pytest.mark.parametrize("provider", FORMATS)
def test_a_cut_stream_ends_well_without_its_terminal_event(run: Run, provider: str) -> None:
    status, _, body = answered(run, "demo-cut", provider=provider)
    assert status == 200
    assert body
    assert ENDS[provider] not in body


def test_a_cut_body_is_no_json(run: Run) -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(answered(run, "demo-cut", stream=False)[2])


@pytest.mark.parametrize("provider", FORMATS)
@pytest.mark.parametrize("switch", ["reset", "shortlength"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_broken_connection_is_seen(run: Run, provider: str, switch: str, stream: bool) -> None:
    with pytest.raises(FAILURES):
        answered(run, f"demo-{switch}", provider=provider, stream=stream)


@pytest.mark.parametrize("switch", ["reset", "shortlength"])
def test_a_broken_connection_is_seen_on_uvloop_too(switch: str) -> None:
    async def main() -> None:
        async with demo() as upstream:
            await ask(upstream, f"demo-{switch}")

    with pytest.raises(FAILURES):
        uvloop.run(main())


@pytest.mark.parametrize("provider", FORMATS)
def test_a_dripped_stream_is_the_same_stream(run: Run, provider: str) -> None:
    dripped = answered(run, "demo-drip", provider=provider)[2]
    assert ENDS[provider] in dripped
    if provider == "bedrock":
        reader = FrameReader()
        assert len(reader.feed(dripped)) > 5
        assert reader.failure is None


@pytest.mark.parametrize("provider", FORMATS)
@pytest.mark.parametrize("switch", ["midstream", "firsterror"])
def test_an_error_in_the_stream_has_no_end_after_it(run: Run, provider: str, switch: str) -> None:
    status, _, body = answered(run, f"demo-{switch}", provider=provider)
    assert status == 200
    assert b"rror" in body or b"throttlingException" in body
    assert ENDS[provider] not in body


@pytest.mark.parametrize("provider", FORMATS)
def test_midstream_without_a_stream_is_a_500(run: Run, provider: str) -> None:
    assert answered(run, "demo-midstream", provider=provider, stream=False)[0] == 500


def test_html_comes_with_200_or_502(run: Run) -> None:
    assert answered(run, "demo-html")[:2] == (200, "text/html")
    assert answered(run, "demo-badgateway")[:2] == (502, "text/html")


def test_an_error_may_hide_in_a_200(run: Run) -> None:
    status, kind, body = answered(run, "demo-error200", provider="xai")
    assert (status, kind) == (200, "application/json")
    assert set(json.loads(body)) == {"code", "error"}


@pytest.mark.parametrize("provider", FORMATS)
def test_a_flood_has_the_size_that_its_name_says(run: Run, provider: str) -> None:
    body = answered(run, "demo-flood-2", provider=provider)[2]
    assert 2 * 1024 * 1024 < len(body) < 3 * 1024 * 1024
    assert ENDS[provider] in body


def test_a_slow_model_streams_word_by_word(run: Run) -> None:
    slow, plain = answered(run, "demo-slow")[2], answered(run, "demo")[2]
    assert slow.count(b"data:") > plain.count(b"data:")


@pytest.mark.parametrize("model", ["demo-stall", "demo-hang"])
def test_a_client_that_goes_is_noticed(run: Run, model: str) -> None:
    async def main() -> tuple[int, int]:
        async with demo() as upstream:
            task = asyncio.ensure_future(ask(upstream, model))
            await upstream.settled(1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await upstream.settled()
            return upstream.gone, upstream.served

    assert run(main()) == (1, 1)


def test_a_script_steers_the_next_requests_only(run: Run) -> None:
    async def main() -> list[int]:
        async with demo() as upstream:
            upstream.misbehave("fail", "", "overloaded")
            return [(await ask(upstream, "demo"))[0] for _ in range(4)]

    assert run(main()) == [500, 200, 429, 200]


def test_requests_are_recorded_when_asked_for(run: Run) -> None:
    async def main() -> Any:
        async with demo(record=1) as upstream, demo(record=0) as forgetful:
            await ask(upstream, "first")
            await ask(upstream, "second", provider="bedrock")
            await ask(forgetful, "third")
            return list(upstream.requests), list(forgetful.requests)

    kept, forgotten = run(main())
    assert [each.path for each in kept] == ["/bedrock/model/second/converse-stream"]
    assert b"Hello there" in kept[0].body
    assert forgotten == []


def test_an_answer_takes_its_time_so_that_streaming_is_seen(run: Run) -> None:
    async def main() -> int:
        async with demo(pace=0.001) as upstream, aiohttp.ClientSession() as session:
            path, body, _ = request("openai", "demo", True)
            async with session.post(upstream.url("openai") + path, json=body) as response:
                return len([part async for part in response.content.iter_any()])

    assert run(main()) > 3


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[]", 400)])
def test_what_is_no_object_is_refused(run: Run, body: bytes, status: int) -> None:
    async def main() -> tuple[int, Any]:
        async with (
            demo() as upstream,
            aiohttp.ClientSession() as session,
            session.post(upstream.url("openai") + "/chat/completions", data=body) as response,
        ):
            return response.status, await response.json()

    got, error = run(main())
    assert got == status
    assert "JSON" in error["error"]["message"]


@pytest.mark.parametrize("path", ["/nothing", "/openai/v1/completions"])
def test_an_unknown_path_is_a_404(run: Run, path: str) -> None:
    async def main() -> list[int]:
        async with demo() as upstream, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{upstream.port}{path}"
            async with session.get(url) as got, session.post(url, json={}) as posted, session.put(url) as put:
                return [got.status, posted.status, put.status]

    assert run(main()) == [404, 404, 404]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/openai/v1/models", "data"),
        ("/anthropic/v1/models", "has_more"),
        ("/google/v1beta/models", "models"),
        ("/together/v1/models", None),
    ],
)
def test_each_provider_lists_models_in_its_own_way(run: Run, path: str, key: str | None) -> None:
    async def main() -> Any:
        async with (
            demo() as upstream,
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{upstream.port}{path}") as response,
        ):
            return await response.json()

    listed = run(main())
    assert isinstance(listed, list) if key is None else key in listed


def test_a_flooded_array_is_one_array(run: Run) -> None:
    async def main() -> Any:
        async with demo() as upstream, aiohttp.ClientSession() as session:
            url = upstream.url("google") + "/v1beta/models/demo-flood-1:streamGenerateContent"
            async with session.post(url, json={"contents": [{"parts": [{"text": "x"}]}]}) as response:
                return await response.json()

    assert len(run(main())) > 16
