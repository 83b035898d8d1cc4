"""Traces and figures of the running gateway, as a real collector takes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from collector import CLIENT, FAILED, UNSET, Collector, collector
from livegateway import (
    HELLO,
    MODELS,
    ROOT,
    Document,
    Live,
    Process,
    Talk,
    accounts,
    clean_environment,
    command,
    deployments,
    free_port,
    gateway_and_demo,
    process,
    request_bytes,
    serving,
    shipped,
)
from upstreams import ScriptedUpstream, demo

from gateway.tracing import names

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
Served = Callable[..., Any]


def traced(url: str, access_log: Document | None = None, **options: Any) -> Document:
    """The telemetry of a gateway that traces."""
    return {"telemetry": {"access_log": access_log, "otlp": {"endpoint": url, **options}}}


def context(flags: str) -> dict[str, str]:
    return {"Traceparent": f"00-{TRACE}-{PARENT}-{flags}", "Tracestate": "vendor=1"}


def switches(*wanted: str) -> Document:
    """Deployments whose upstream fails in a way, by its name."""
    entries = {name: {"provider": "openai", "model": f"demo-{name}", "retry": {"attempts": 1}} for name in wanted}
    return {**deployments(), **entries, "any/*": {"provider": "openai", "model": "*"}}


def steady() -> Document:
    routing = {"strategy": "priority", "targets": ["fail", "anthropic"]}
    return {"routings": {"steady": routing}, "adapters": {"cold": {"deployment": "openai", "set": {"temperature": 0}}}}


async def every_outcome(live: Live) -> None:
    """A request of each kind, one after the other."""
    ask = {"messages": HELLO, "max_completion_tokens": 50, "top_p": 0.5, "n": 1}
    for model in ("cold", "anthropic", "steady", "error400", "nobody", "any/thing"):
        await live.post({"model": model, **ask}, **{"X-Request-Id": f"id-{model.replace('/', '-')}"})
    for model in ("openai", "bedrock", "midstream"):
        await live.post({"model": model, "stream": True, **ask}, **{"X-Request-Id": f"stream-{model}"})
    talk = await live.open({"model": "slow", "stream": True, **ask}, **{"X-Request-Id": "left"})
    await talk.until(b"data: ")
    talk.leave()
    await live.get("/v1/models")
    await live.get("/v1/models/openai")
    await live.get("/elsewhere/secret-in-a-path")


def test_each_request_is_a_span_with_one_for_each_attempt(tmp_path: Path, served: Served) -> None:
    async def main() -> tuple[Collector, int]:
        async with collector() as taken, demo(pace=0.02) as upstream:
            content = {
                "providers": accounts(upstream),
                "deployments": switches("fail", "error400", "midstream", "slow"),
                **steady(),
                **traced(taken.url),
            }
            async with serving(tmp_path, content) as live:
                await every_outcome(live)
            return taken, upstream.port

    taken, port = served(main())
    assert {span.resource["service.name"] for span in taken.spans} == {"sluiceway"}
    assert len({span.resource["service.instance.id"] for span in taken.spans}) == 1
    assert taken.schemas == {names.SCHEMA}
    look_at_answers(taken, port)
    look_at_failures(taken)
    look_at_streams(taken)
    look_at_figures(taken)
    look_at_other_paths(taken)


def look_at_answers(taken: Collector, port: int) -> None:
    request, (attempt,) = taken.tree(sluiceway_request_id="id-cold")
    assert (request.name, request.status, request.parent) == ("POST /v1/chat/completions", UNSET, "")
    assert request.attributes["http.route"] == request.attributes["url.path"] == "/v1/chat/completions"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["sluiceway.model"] == "cold"
    assert (attempt.name, attempt.kind, attempt.status) == (f"chat {MODELS['openai']}", CLIENT, UNSET)
    assert request.began <= attempt.began < attempt.ended <= request.ended
    told = attempt.attributes
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.model"] == MODELS["openai"]
    assert told["gen_ai.response.model"].startswith("gpt-4o-mini")
    assert told["gen_ai.response.id"].startswith("chatcmpl-")
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", port)
    assert told["http.response.status_code"] == 200
    assert told["gen_ai.usage.input_tokens"] > 0
    assert told["gen_ai.usage.output_tokens"] > 0
    assert told["gen_ai.request.max_tokens"] == 50
    assert (told["gen_ai.request.top_p"], told["gen_ai.request.temperature"]) == (0.5, 0.0)
    assert told["sluiceway.upstream.request_id"]
    assert not {"error.type", "gen_ai.request.choice.count", "gen_ai.response.time_to_first_chunk"} & told.keys()
    _, (translated,) = taken.tree(sluiceway_request_id="id-anthropic")
    assert translated.attributes["gen_ai.provider.name"] == "anthropic"
    assert translated.attributes["gen_ai.response.finish_reasons"] == ["stop"]


def look_at_failures(taken: Collector) -> None:
    request, (first, second) = taken.tree(sluiceway_request_id="id-steady")
    assert request.status == UNSET
    assert request.attributes["sluiceway.attempts"] == "fail=500,anthropic=200"
    assert (first.status, first.attributes["error.type"]) == (FAILED, "upstream_error")
    assert first.attributes["http.response.status_code"] == 500
    assert "gen_ai.response.id" not in first.attributes
    assert (second.status, second.attributes["http.request.resend_count"]) == (UNSET, 1)
    assert second.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    request, (attempt,) = taken.tree(sluiceway_request_id="id-error400")
    assert (request.status, request.attributes["http.response.status_code"]) == (UNSET, 400)
    assert attempt.status == FAILED
    assert attempt.attributes["http.response.status_code"] == 400
    request, attempts = taken.tree(sluiceway_request_id="id-nobody")
    assert (request.attributes["sluiceway.code"], attempts) == ("model_not_found", [])


def look_at_streams(taken: Collector) -> None:
    for name in ("openai", "bedrock"):
        _, (attempt,) = taken.tree(sluiceway_request_id=f"stream-{name}")
        told = attempt.attributes
        assert told["gen_ai.request.stream"] is True
        assert told["gen_ai.response.finish_reasons"] == ["stop"]
        assert told["gen_ai.usage.output_tokens"] > 0
        assert told["gen_ai.response.id"]
        assert 0 < told["gen_ai.response.time_to_first_chunk"] * 1e9 < attempt.ended - attempt.began
    request, (attempt,) = taken.tree(sluiceway_request_id="stream-midstream")
    assert request.status == attempt.status == FAILED
    assert request.attributes["http.response.status_code"] == 200
    assert attempt.attributes["error.type"] == request.attributes["error.type"] == request.attributes["sluiceway.code"]
    request, (attempt,) = taken.tree(sluiceway_request_id="left")
    assert (request.status, attempt.status) == (UNSET, FAILED)
    assert request.attributes["error.type"] == attempt.attributes["error.type"] == "client_disconnect"
    assert attempt.attributes["sluiceway.usage.source"] == "partial"


def look_at_figures(taken: Collector) -> None:
    assert taken.count(names.REQUEST_DURATION, http_route="/v1/chat/completions") == 10
    assert taken.count(names.REQUEST_DURATION, http_response_status_code=404) == 2
    assert taken.count(names.OPERATION_DURATION) == 10
    assert taken.count(names.OPERATION_DURATION, error_type="upstream_error") >= 1
    assert taken.count(names.OPERATION_DURATION, error_type="client_disconnect") == 1
    assert taken.count(names.TIME_TO_FIRST_CHUNK) == 4
    # Six ended well; of the two that broke off nobody knows the cost.
    assert taken.count(names.TOKEN_USAGE, gen_ai_token_type="input") == 6
    assert taken.count(names.TOKEN_USAGE, gen_ai_token_type="output") == 6
    assert taken.count(names.TOKEN_USAGE, gen_ai_request_model="any/*") == 2


def look_at_other_paths(taken: Collector) -> None:
    assert {span.name for span in taken.spans} >= {"GET /v1/models", "GET /v1/models/{id}", "GET"}
    everything = b"".join(taken.raw)
    # Nothing of a path that is not served, nothing of what was said, and no key of anybody.
    for never in (b"secret-in-a-path", b"Hello!", b"demo-key", b"Bearer"):
        assert never not in everything


def test_the_attempt_is_the_upstreams_parent_and_the_clients_span_is_ours(tmp_path: Path, served: Served) -> None:
    async def main() -> tuple[Collector, list[dict[str, str]]]:
        async with collector() as taken:
            async with gateway_and_demo(tmp_path, **traced(taken.url, sample="0%")) as (live, upstream):
                ask = {"model": "openai", "messages": HELLO}
                for headers in (context("01"), context("00"), {}):
                    assert (await live.post(ask, **headers)).status == 200
            return taken, [{name.lower(): value for name, value in each.headers.items()} for each in upstream.requests]

    taken, sent = served(main())
    # Of the three only the one whose parent is sampled is recorded.
    request, attempt = sorted(taken.spans, key=lambda span: span.kind)
    assert (request.trace, request.parent, request.state) == (TRACE, PARENT, "vendor=1")
    assert (attempt.trace, attempt.parent) == (TRACE, request.id)
    assert [each.get("tracestate") for each in sent] == ["vendor=1", "vendor=1", None]
    parents = [each["traceparent"] for each in sent]
    assert parents[:2] == [f"00-{TRACE}-{attempt.id}-01", f"00-{TRACE}-{PARENT}-00"]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", parents[2])
    assert TRACE not in parents[2]
    # Figures are of all.
    assert taken.count(names.OPERATION_DURATION) == 3


def test_messages_are_told_only_where_content_is_asked_for(tmp_path: Path, served: Served) -> None:
    call = {"id": "call-1", "type": "function", "function": {"name": "look", "arguments": '{"at":"it"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call-1", "content": "a cat"},
    ]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]

    async def main() -> Collector:
        async with collector() as taken:
            async with gateway_and_demo(tmp_path, **traced(taken.url, content=True)) as (live, _):
                for stream in (False, True):
                    assert (await live.chat("openai", messages=said, tools=tools, stream=stream)).status == 200
            return taken

    taken = served(main())
    attempts = [span.attributes for span in taken.spans if span.kind == CLIENT]
    assert len(attempts) == 2
    for told in attempts:
        parts = [(each["role"], each["parts"]) for each in json.loads(told["gen_ai.input.messages"])]
        assert parts == [
            ("system", [{"type": "text", "content": "Be brief."}]),
            (
                "user",
                [
                    {"type": "text", "content": "What is it?"},
                    {"type": "blob", "modality": "image", "mime_type": "image/png"},
                ],
            ),
            ("assistant", [{"type": "tool_call", "id": "call-1", "name": "look", "arguments": '{"at":"it"}'}]),
            ("tool", [{"type": "tool_call_response", "id": "call-1", "response": "a cat"}]),
        ]
        (answer,) = json.loads(told["gen_ai.output.messages"])
        assert answer["role"] == "assistant"
        assert answer["finish_reason"] == "stop"
        assert answer["parts"][0]["content"]
        assert json.loads(told["gen_ai.tool.definitions"])[0]["name"] == "look"
    first, second = (json.loads(told["gen_ai.output.messages"]) for told in attempts)
    assert first == second
    assert b"QUJD" not in b"".join(taken.raw)


def test_the_slower_of_two_attempts_at_once_is_cancelled_in_the_trace_too(tmp_path: Path, served: Served) -> None:
    async def main() -> Collector:
        async with (
            collector() as taken,
            ScriptedUpstream([{"stall": True}]) as stalled,
            ScriptedUpstream([{"t": "{{OK}}"}]) as quick,
        ):
            content = {
                "providers": {
                    "a": {"type": "openai", "base_url": f"{stalled.url}/v1", "api_key": "k"},
                    "b": {"type": "openai", "base_url": f"{quick.url}/v1", "api_key": "k"},
                },
                "deployments": {"first": {"provider": "a", "model": "m"}, "second": {"provider": "b", "model": "m"}},
                "routings": {"both": {"targets": ["first", "second"], "hedge": {"after": "50ms", "budget": "100%"}}},
                **traced(taken.url),
            }
            async with serving(tmp_path, content) as live:
                assert (await live.chat("both")).status == 200
            return taken

    request, (first, second) = served(main()).tree(sluiceway_model="both")
    assert request.attributes["sluiceway.deployment"] == "second"
    assert (first.attributes["error.type"], first.status) == ("cancelled", FAILED)
    assert (second.status, second.attributes["gen_ai.response.finish_reasons"]) == (UNSET, ["stop"])


@pytest.mark.parametrize("holds", [True, False])
def test_a_collector_that_does_not_answer_slows_nothing_down(tmp_path: Path, served: Served, holds: bool) -> None:
    async def main() -> float:
        async with collector() as taken:
            taken.hold = holds
            url = taken.url if holds else f"http://127.0.0.1:{free_port()}"
            async with gateway_and_demo(tmp_path, **traced(url)) as (live, _):
                assert (await live.chat("openai")).status == 200
                if holds:
                    await taken.until(lambda: bool(taken.headers))
                # While the first export hangs, or fails again and again.
                replies = await asyncio.gather(*(live.chat("openai", stream=True) for _ in range(30)))
                assert all(reply.done for reply in replies)
                began = time.monotonic()
            return time.monotonic() - began

    # Two seconds for what is left, and what every drain takes; the exporter itself gives up after ten.
    assert served(main()) < 8


def test_a_collector_that_refuses_is_told_once_and_the_lost_are_counted(tmp_path: Path, served: Served) -> None:
    log = tmp_path / "log"

    async def main() -> list[dict[str, Any]]:
        async with collector() as taken:
            telemetry = traced(f"{taken.url}/wrong", access_log={"to": str(log)})
            async with gateway_and_demo(tmp_path, **telemetry) as (live, _):
                for lost in (1, 2):
                    await live.chat("openai")
                    await until(live, f"sluiceway_traces_dropped_total {lost}.0")
        return [json.loads(line) for line in log.read_text().splitlines()]

    told = [line for line in served(main()) if line.get("message") == "the collector refuses"]
    assert len(told) == 1
    assert set(told[0]["what"]) <= {"spans", "figures"}


async def until(live: Live, sample: str) -> None:
    """Wait until the metrics say so."""
    async with asyncio.timeout(15):
        while sample not in (await live.get("/metrics", port=live.admin_port)).body.decode():  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a scrape is a look


def test_a_reload_turns_traces_on_and_off(tmp_path: Path, served: Served) -> None:
    async def main() -> Collector:
        async with collector() as taken, gateway_and_demo(tmp_path, telemetry={"access_log": None}) as (live, _):
            quiet = json.loads(live.path.read_text())
            for number, telemetry in enumerate((traced(taken.url)["telemetry"], {"access_log": None}), 1):
                await named(live, "before", number)
                live.path.write_text(json.dumps({**quiet, "telemetry": telemetry}))
                Live.signal(signal.SIGHUP)
                await until(live, f"sluiceway_config_reloads_total {number}.0")
            await named(live, "before", 3)
        return taken

    async def named(live: Live, name: str, number: int) -> None:
        await live.post({"model": "openai", "messages": HELLO}, **{"X-Request-Id": f"{name}-{number}"})

    taken = served(main())
    assert [span.attributes["sluiceway.request.id"] for span in taken.spans if span.kind != CLIENT] == ["before-2"]


def test_each_worker_sends_for_itself(tmp_path: Path, served: Served) -> None:
    async def main() -> Collector:
        async with collector() as taken:
            content = shipped()
            content["server"]["workers"] = 2
            gateway = await asyncio.to_thread(ready, content, taken.url)
            try:
                async with asyncio.timeout(20):
                    while len({span.resource["service.instance.id"] for span in taken.spans}) < 2:
                        await gateway.chat("gpt")
            finally:
                gateway.send(signal.SIGTERM)
                await asyncio.to_thread(gateway.process.wait, 20)
        return taken

    def ready(content: Document, url: str) -> Process:
        return stack.enter_context(process(tmp_path, {**content, **traced(url)}))

    with contextlib.ExitStack() as stack:
        taken = served(main())
    # No two requests share an id, however the workers came to be.
    requests = [span for span in taken.spans if span.kind != CLIENT]
    assert len({span.trace for span in requests}) == len(requests)
    assert len({span.id for span in taken.spans}) == len(taken.spans)


def test_without_traces_nothing_of_them_is_loaded() -> None:
    look = (
        "import sys, gateway.app, gateway.worker; "
        "print([name for name in sys.modules if name.split('.')[0] in ('opentelemetry', 'requests')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], check=False, env=clean_environment(), cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]")


def test_without_the_extra_the_check_names_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps({**shipped(), **traced("http://127.0.0.1:4318")}))
    done = command("check", "-c", str(file), env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode == 1
    assert "telemetry.otlp: a package is missing: pip install 'sluiceway[otel]'" in done.stdout + done.stderr
    assert command("check", "-c", str(file)).returncode == 0


def test_every_request_of_a_connection_is_traced(tmp_path: Path, served: Served) -> None:
    async def main() -> Collector:
        async with collector() as taken:
            async with gateway_and_demo(tmp_path, **traced(taken.url)) as (live, _):
                body = json.dumps({"model": "openai", "messages": HELLO}).encode()
                kept = request_bytes(live.port, "/v1/chat/completions", body, {"Connection": "keep-alive"})
                talk = Talk(*await asyncio.open_connection("127.0.0.1", live.port))
                for number in range(1, 6):
                    talk.writer.write(kept)
                    async with asyncio.timeout(10):
                        while talk.seen.count(b"HTTP/1.1 200") < number or not talk.seen.endswith(b"}"):
                            talk.seen += await talk.reader.read(65536)
                talk.leave()
            return taken

    assert len([span for span in served(main()).spans if span.kind == CLIENT]) == 5


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_by_several_calls_are_one_attempt(tmp_path: Path, served: Served, stream: bool) -> None:
    async def main() -> tuple[Collector, set[str]]:
        async with collector() as taken:
            content = {"deployments": deployments(emulate=["n"]), **traced(taken.url)}
            async with gateway_and_demo(tmp_path, **content) as (live, upstream):
                assert (await live.chat("anthropic", n=2, stream=stream)).status == 200
            return taken, {each.headers["traceparent"] for each in upstream.requests}

    taken, parents = served(main())
    _, (attempt,) = taken.tree(sluiceway_model="anthropic")
    assert attempt.attributes["gen_ai.request.choice.count"] == 2
    assert attempt.attributes["gen_ai.response.finish_reasons"] == ["stop", "stop"]
    assert parents == {f"00-{attempt.trace}-{attempt.id}-01"}
