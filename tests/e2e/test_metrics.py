"""/metrics and /status of the running gateway: what happened is what they say."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import Client, Live, gateway_and_demo, gateway_before, process, shipped
from prometheus_client.parser import text_string_to_metric_families
from upstreams import ScriptedUpstream, chunk


async def figures(client: Client) -> dict[str, float]:
    """The samples by name and labels, as the text shows them."""
    reply = await client.get("/metrics", port=client.admin_port)
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = reply.body.decode()
    list(text_string_to_metric_families(text))
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def total(found: dict[str, float], name: str, *labels: str) -> float:
    """The sum of the samples of this name that have these labels."""
    return sum(
        value for key, value in found.items() if key.partition("{")[0] == name and all(each in key for each in labels)
    )


async def until(client: Client, name: str, value: float, *labels: str) -> dict[str, float]:
    """The samples, once these add up to the value."""
    async with asyncio.timeout(10):
        while total(found := await figures(client), name, *labels) != value:  # noqa: ASYNC110 - a scrape is a look
            await asyncio.sleep(0.05)
    return found


def test_requests_attempts_tokens_and_times_are_counted_as_they_happened(
    tmp_path: Path, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            for model in ("openai", "openai", "anthropic"):
                await live.chat(model)
                await live.chat(model, stream=True)
            await live.chat("nobody")
            used = [line["tokens"] for line in await live.logged(6, status=200)]
            found = await figures(live)
            assert total(found, "sluiceway_requests_total", 'model="openai"', 'code="ok"') == 4
            assert total(found, "sluiceway_requests_total", 'code="model_not_found"', 'model=""') == 1
            assert total(found, "sluiceway_attempts_total", 'deployment="anthropic"', 'result="200"') == 2
            assert total(found, "sluiceway_tokens_total", 'kind="prompt"') == sum(each["prompt"] for each in used)
            assert total(found, "sluiceway_tokens_total", 'kind="completion"') == sum(
                each["completion"] for each in used
            )
            assert total(found, "sluiceway_time_to_first_event_seconds_count") == 6
            assert total(found, "sluiceway_request_duration_seconds_count") == 7
            assert total(found, "sluiceway_overhead_seconds_count") == 6
            assert 0 < total(found, "sluiceway_overhead_seconds_sum") < 6 * 0.5
            assert total(found, "sluiceway_upstream_connections", 'provider="openai"', 'state="idle"') >= 1
            assert total(found, "sluiceway_breaker_state", 'state="closed"') == 8
            assert total(found, "sluiceway_build_info") == total(found, "sluiceway_config_info") == 1

    served(main())


def test_a_stream_under_way_is_in_flight_and_one_that_is_left_is_told_as_such(
    tmp_path: Path, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        content = shipped()
        async with gateway_and_demo(tmp_path, **content) as (live, _):
            talk = await live.open({"model": "slow", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
            await talk.until(b"data: ")
            found = await figures(live)
            assert total(found, "sluiceway_requests_active") == 1
            assert total(found, "sluiceway_upstream_active", 'deployment="slow"') == 1
            assert total(found, "sluiceway_upstream_connections", 'state="busy"') == 1
            assert total(found, "sluiceway_body_bytes_held") > 0
            talk.leave()
            await until(live, "sluiceway_terminations_total", 1, 'code="client_disconnect"')
            found = await until(live, "sluiceway_upstream_active", 0)
            assert total(found, "sluiceway_requests_active") == total(found, "sluiceway_body_bytes_held") == 0

    served(main())


def test_a_request_that_was_sent_again_on_a_fresh_connection_is_counted(
    tmp_path: Path, served: Callable[..., Any]
) -> None:
    async def main() -> None:
        async with (
            ScriptedUpstream([{"t": "{{OK}}"}], [{"fin": True}], [{"t": "{{OK}}"}]) as upstream,
            gateway_before(tmp_path, f"{upstream.url}/v1") as live,
        ):
            for _ in range(2):
                assert (await live.chat("m")).status == 200
            found = await figures(live)
            assert total(found, "sluiceway_upstream_stale_retries_total", 'provider="up"') == 1
            assert total(await figures(live), "sluiceway_upstream_stale_retries_total") == 1
            assert total(found, "sluiceway_attempts_total", 'result="200"') == 2

    served(main())


def test_an_upstream_that_asks_for_a_pause_is_shown_as_held(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        body = '{"error":{"message":"slow down"}}'
        busy = f"HTTP/1.1 429 Too Many\r\nRetry-After: 90\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        async with (
            ScriptedUpstream([{"t": busy}]) as upstream,
            gateway_before(tmp_path, f"{upstream.url}/v1", retry={"attempts": 1}) as live,
        ):
            assert (await live.chat("m")).status == 429
            assert total(await figures(live), "sluiceway_upstream_held", 'deployment="m"') == 1
            status = (await live.get("/status", port=live.admin_port)).json()
            assert status["upstreams"][0]["held"] is True
            assert status["upstreams"][0]["attempts"] == {"429": 1}

    served(main())


def test_unknown_models_and_odd_paths_add_no_series(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            before = await figures(live)
            for number in range(60):
                await live.chat(f"unknown-{number}")
            after = await until(live, "sluiceway_requests_total", 60, 'code="model_not_found"')
            assert after.keys() == before.keys()

    served(main())


def test_reloads_are_counted_and_a_wrong_file_shows(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            good = live.path.read_text()
            live.path.write_text("providers: [")
            Live.signal(signal.SIGHUP)
            found = await until(live, "gateway_config_reload_failures_total", 1)
            assert total(found, "sluiceway_config_reload_failed") == 1
            assert "serves on" in (await live.get("/status", port=live.admin_port, Accept="text/html")).body.decode()
            live.path.write_text(good.replace('"version": 1', '"version": 1, "include": []'))
            Live.signal(signal.SIGHUP)
            found = await until(live, "sluiceway_config_reload_failed", 0)
            assert total(found, "sluiceway_config_reloads_total") == 1
            assert total(found, "gateway_config_reload_failures_total") == 1

    served(main())


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Client]:
    content = shipped()
    content["server"]["workers"] = 2
    with process(tmp_path, content) as gateway:
        yield gateway


def test_workers_are_counted_together(workers: Client, served: Callable[..., Any]) -> None:
    async def main() -> None:
        for _ in range(20):
            assert (await workers.chat("gpt")).status == 200
        await workers.chat("broken")
        found = await until(workers, "sluiceway_requests_total", 21)
        assert total(found, "sluiceway_workers") == 2
        assert total(found, "sluiceway_requests_total", 'model="gpt"', 'code="ok"') == 20
        assert total(found, "sluiceway_request_duration_seconds_count") == 21
        assert total(found, "sluiceway_breaker_state", 'deployment="gpt"') == 2
        status = (await workers.get("/status", port=workers.admin_port)).json()
        assert status["workers"] == 2
        assert next(model for model in status["models"] if model["name"] == "gpt")["requests"] == 20
        assert [each["code"] for each in status["errors"]] == ["upstream_error"]

    served(main())


def test_two_gateways_on_one_machine_count_each_for_itself(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main(first: Client, second: Client) -> None:
        for client, count in ((first, 3), (second, 1)):
            for _ in range(count):
                assert (await client.chat("gpt")).status == 200
        for client, count in ((first, 3), (second, 1)):
            found = await until(client, "sluiceway_requests_total", count)
            assert total(found, "sluiceway_attempts_total") == count
            assert total(found, "sluiceway_breaker_state", 'deployment="gpt"') == 1
            assert total(found, "sluiceway_build_info") == 1

    # Each with the other's environment and working directory.
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    with process(folders[0], shipped()) as first, process(folders[1], shipped()) as second:
        served(main(first, second))


def test_what_a_slow_client_has_not_taken_is_shown(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        big = {"rep": {"chunk": "data: " + orjson.dumps(chunk(content="x" * 60_000)).decode() + "\n\n", "n": 400}}
        async with (
            ScriptedUpstream([{"t": "{{SSE}}"}, big, {"chunk": "{{FIN}}{{DONE}}"}, {"end": 1}]) as upstream,
            gateway_before(tmp_path, f"{upstream.url}/v1") as live,
        ):
            talk = await live.open({"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
            # Nothing is read, until what the system buffers is full and the rest stays with the gateway.
            async with asyncio.timeout(10):
                while total(await figures(live), "sluiceway_response_bytes_held") < 10_000:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # a scrape is a look
            talk.leave()
            await until(live, "sluiceway_response_bytes_held", 0)

    served(main())


def test_the_status_page_is_for_browsers_and_for_programs(tmp_path: Path, served: Callable[..., Any]) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            await live.chat("openai")
            page = await live.get("/status", port=live.admin_port, Accept="text/html,*/*;q=0.8")
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["content-security-policy"].startswith("default-src 'none'")
            assert "<b>openai</b>" in page.body.decode()
            assert "127.0.0.1" not in page.body.decode()
            status = (await live.get("/status", port=live.admin_port)).json()
            assert status["configuration"]["digest"] in page.body.decode()
            head = await live.get("/status", method="HEAD", port=live.admin_port)
            assert head.body == b""
            assert int(head.headers["content-length"]) > 1_000
            post = await live.get("/status", method="POST", port=live.admin_port)
            assert post.status == 404
            foreign = await live.get("/status", port=live.admin_port, Host="evil.example", Origin="http://evil.example")
            assert foreign.status == 403

    served(main())


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium is installed")
def test_a_browser_shows_the_status_page_and_refuses_nothing_of_it(tmp_path: Path, workers: Client) -> None:
    shot = tmp_path / "status.png"
    said = browse(workers, tmp_path, f"--screenshot={shot}").stderr
    assert shot.stat().st_size > 20_000, said
    assert not re.search(r"CONSOLE|Content Security Policy", said), said
    assert "<b>claude-aws</b>" in browse(workers, tmp_path, "--dump-dom").stdout


def browse(client: Client, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The status page in a browser without a window."""
    line = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options]
    profile, address = f"--user-data-dir={folder}/chromium", f"http://127.0.0.1:{client.admin_port}/status"
    return subprocess.run([*line, profile, address], check=False, capture_output=True, text=True, timeout=60)
