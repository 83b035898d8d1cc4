"""The process as an operator sees it: start, readiness, reload, drain, the log."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livegateway import HELLO, Live, Reply, command, document, gateway_and_demo, gateway_before, process
from upstreams import NAMES, OK_BODY, SSE_HEAD, ScriptedUpstream, answer, chunk, event

Run = Callable[[Any], Any]
FIRST = {"chunk": event(chunk(role="assistant", content="a"))}
END = {"chunk": NAMES["FIN"] + NAMES["DONE"]}


def rewrite(live: Live, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the file as an editor does: another one takes its place."""
    whole = json.loads(live.path.read_text())
    change(whole)
    other = live.path.with_suffix(".new")
    other.write_text(json.dumps(whole))
    other.rename(live.path)


async def until(claim: Callable[[], Any], seconds: float = 5) -> Any:
    """What the claim gives once it holds; a coroutine function is asked anew each time."""
    async with asyncio.timeout(seconds):
        while True:
            found = claim()
            found = await found if asyncio.iscoroutine(found) else found
            if found:
                return found
            await asyncio.sleep(0.02)


def test_a_stream_under_way_is_finished_before_the_process_goes(served: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, bool, int]:
        go_on = asyncio.Event()
        script = [{"t": SSE_HEAD}, FIRST, {"wait": go_on}, END, {"end": True}]
        async with ScriptedUpstream(script) as upstream, gateway_before(tmp_path, upstream.url) as live:
            talk = await live.open({"model": "m", "messages": HELLO, "stream": True}, Connection="keep-alive")
            await talk.until(b'"content":"a"')
            live.signal()
            await until(lambda: _refuses(live.port))
            assert (await live.get("/readyz", port=live.admin_port)).status == 503
            assert live.task is not None
            alive = not live.task.done()
            go_on.set()
            reply = await talk.rest()
            return reply, alive, await live.task

    reply, alive, code = served(main())
    assert alive
    assert (reply.done, reply.complete, code) == (True, True, 0)


def _refuses(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("hurry", [False, True], ids=["the limit", "a second signal"])
def test_a_stream_that_outlives_the_drain_is_told_so(served: Run, tmp_path: Path, hurry: bool) -> None:
    async def main() -> tuple[Reply, list[dict[str, Any]], float]:
        script = [{"t": SSE_HEAD}, FIRST, {"stall": True}]
        content = {"server": {"drain": "60s" if hurry else "200ms"}}
        async with (
            ScriptedUpstream(script) as upstream,
            gateway_before(tmp_path, upstream.url, content=content) as live,
        ):
            talk = await live.open({"model": "m", "messages": HELLO, "stream": True})
            await talk.until(b'"content":"a"')
            began = time.monotonic()
            live.signal()
            if hurry:
                await until(lambda: _refuses(live.port))
                live.signal()
            reply = await talk.rest()
            assert live.task is not None
            await live.task
            return reply, live.log(), time.monotonic() - began

    reply, lines, took = served(main())
    assert reply.chunks[-1]["error"]["code"] == "shutting_down"
    assert (reply.done, reply.complete) == (False, False)
    assert took < 5
    (line,) = [line for line in lines if "path" in line]
    assert (line["code"], line["status"]) == ("shutting_down", 200)


def test_a_reload_by_signal_takes_new_requests_over_and_leaves_the_running_alone(served: Run, tmp_path: Path) -> None:
    async def main() -> tuple[Reply, Reply, Reply]:
        go_on = asyncio.Event()
        stream = [{"t": SSE_HEAD}, FIRST, {"wait": go_on}, END, {"end": True}]
        async with (
            ScriptedUpstream(stream, [{"t": answer(OK_BODY)}]) as upstream,
            gateway_before(tmp_path, upstream.url) as live,
        ):
            before = await live.get("/v1/models")
            talk = await live.open({"model": "m", "messages": HELLO, "stream": True})
            await talk.until(b'"content":"a"')
            rewrite(live, lambda whole: whole.update(deployments={"new": {"provider": "up", "model": "x"}}))
            live.signal(signal.SIGHUP)
            await until(lambda: _answers(live, "new"))
            gone = await live.chat("m")
            go_on.set()
            reply = await talk.rest()
            assert reply.headers["x-gateway-config"] != (await live.chat("new")).headers["x-gateway-config"]
            return before, gone, reply

    before, gone, reply = served(main())
    assert [entry["id"] for entry in before.json()["data"]] == ["m"]
    assert gone.error["code"] == "model_not_found"
    assert (reply.done, reply.complete) == (True, True)


async def _answers(live: Live, model: str) -> bool:
    return (await live.chat(model)).status == 200


def test_a_changed_file_is_noticed_without_a_signal(served: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            assert not await _answers(live, "new")
            rewrite(live, lambda whole: whole["deployments"].update(new={"provider": "openai", "model": "x"}))
            await until(lambda: _answers(live, "new"))

    served(main())


def test_a_swapped_symlink_is_noticed(served: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            first, second = tmp_path / "v1.yaml", tmp_path / "v2.yaml"
            whole = json.loads(live.path.read_text())
            first.write_text(json.dumps(whole))
            live.path.unlink()
            live.path.symlink_to(first)
            whole["deployments"]["new"] = {"provider": "openai", "model": "x"}
            second.write_text(json.dumps(whole))
            link = tmp_path / "link"
            link.symlink_to(second)
            os.replace(link, live.path)
            await until(lambda: _answers(live, "new"))

    served(main())


def test_a_wrong_file_changes_nothing_and_is_logged(served: Run, tmp_path: Path) -> None:
    async def main() -> tuple[str, str, list[dict[str, Any]]]:
        async with gateway_and_demo(tmp_path) as (live, _):
            before = (await live.chat("openai")).headers["x-gateway-config"]
            rewrite(live, lambda whole: whole["deployments"].update(new={"provider": "nobody", "model": "x"}))
            live.signal(signal.SIGHUP)
            await until(lambda: [line for line in live.log() if "findings" in line])
            after = (await live.chat("openai")).headers["x-gateway-config"]
            assert (await live.get("/readyz", port=live.admin_port)).status == 200
            found = [line for line in live.log() if "findings" in line]
            rewrite(live, lambda whole: whole["deployments"].update(new={"provider": "openai", "model": "x"}))
            await until(lambda: _answers(live, "new"))
            return before, after, found

    before, after, lines = served(main())
    assert before == after
    assert lines[0]["level"] == "error"
    assert any("no provider 'nobody'" in finding for finding in lines[0]["findings"])


def test_keys_are_replaced_without_a_restart(served: Run, tmp_path: Path) -> None:
    def entry(key: str) -> dict[str, str]:
        return {"hash": "sha256:" + hashlib.sha256(key.encode()).hexdigest()}

    async def main() -> None:
        async with gateway_and_demo(tmp_path, keys={"old": entry("first")}) as (live, _):
            live.headers["Authorization"] = "Bearer first"
            assert await _answers(live, "openai")
            rewrite(live, lambda whole: whole.update(keys={"new": entry("second")}))
            live.signal(signal.SIGHUP)
            live.headers["Authorization"] = "Bearer second"
            await until(lambda: _answers(live, "openai"))
            live.headers["Authorization"] = "Bearer first"
            refused = await live.chat("openai")
            assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
            assert [line["key"] for line in await live.logged(1, key="new")] == ["new"]

    served(main())


def test_the_probes_answer(served: Run, tmp_path: Path) -> None:
    async def main() -> list[Reply]:
        async with gateway_and_demo(tmp_path) as (live, _):
            asked = [
                ("/livez", "GET"),
                ("/readyz", "GET"),
                ("/readyz", "HEAD"),
                ("/nothing", "GET"),
                ("/livez", "POST"),
            ]
            replies = [await live.get(path, method, live.admin_port) for path, method in asked]
            replies.append(await live.get("/livez"))  # at the front door there are no probes
            replies.append(await live.get("/livez", port=live.admin_port, Origin="https://x.example", Host="x.example"))
            return replies

    livez, readyz, head, nothing, posted, front, foreign = served(main())
    assert [reply.status for reply in (livez, readyz, head)] == [200, 200, 200]
    assert [reply.status for reply in (nothing, posted, front, foreign)] == [404, 404, 404, 403]
    assert head.body == b""


def test_each_request_is_one_line_with_its_termination(served: Run, tmp_path: Path) -> None:
    async def main() -> list[dict[str, Any]]:
        async with gateway_and_demo(tmp_path) as (live, demo):
            await live.post({"model": "openai", "messages": HELLO}, **{"X-Request-ID": "mine-1"})
            await live.chat("anthropic", stream=True)
            await live.chat("nobody")
            await live.get("/v1/models")
            await live.get("/nowhere")
            await live.post(b"{")
            demo.misbehave("busy")
            await live.chat("google")
            return await live.logged(7)

    lines = served(main())
    assert [line["code"] for line in lines[:6]] == [
        *("ok", "ok", "model_not_found", "ok", "not_found", "invalid_json"),
    ]
    assert [line["status"] for line in lines] == [200, 200, 404, 200, 404, 400, lines[6]["status"]]
    first, second = lines[:2]
    assert first["id"] == "mine-1"
    assert first | {"model": "openai", "deployment": "openai", "attempts": "openai=200", "stream": False} == first
    assert (second["stream"], second["deployment"]) == (True, "anthropic")
    for line in lines[:2]:
        assert line["tokens"]["prompt"] > 0
        assert line["bytes_in"] > 0
        assert 0 <= line["first_byte_ms"] <= line["duration_ms"]
    assert len({line["id"] for line in lines}) == len(lines)


def test_neither_prompts_nor_secrets_are_logged(served: Run, tmp_path: Path) -> None:
    async def main() -> str:
        async with gateway_and_demo(tmp_path) as (live, demo):
            live.headers["Authorization"] = "Bearer sk-client-secret"
            secret = [{"role": "user", "content": "the-prompt-itself"}]
            for provider in ("openai", "anthropic"):
                await live.chat(provider, messages=secret)
                demo.misbehave("error400", "midstream", "auth")
                for _ in range(3):
                    await live.chat(provider, messages=secret, stream=True)
            await live.logged(8)
            return live.log_path.read_text()

    text = served(main())
    for never in ("the-prompt-itself", "sk-client-secret", "Traceback"):
        assert never not in text


def test_a_log_that_was_renamed_is_opened_anew_at_a_reload(served: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with gateway_and_demo(tmp_path) as (live, _):
            await live.chat("openai")
            await live.logged(1)
            live.log_path.rename(tmp_path / "rotated.log")
            live.signal(signal.SIGHUP)
            await until(live.log_path.exists)
            await live.chat("openai")
            await live.logged(1)

    served(main())


def test_a_busy_port_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        whole, _ = document(tmp_path, {})
        whole["server"]["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "gateway.yaml").write_text(json.dumps(whole))
        done = command("serve", "-c", str(tmp_path / "gateway.yaml"))
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_leaves_with_0_after_either_signal(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        folder = tmp_path / str(number)
        folder.mkdir()
        with process(folder, {}) as running:
            running.send(number)
            assert running.process.wait(10) == 0
        assert "Traceback" not in (folder / "stderr").read_text()


def test_a_cold_start_reaches_the_first_answer_within_a_second(served: Run, tmp_path: Path) -> None:
    # Twice what is promised, as the machine that tests is busy.
    began = time.monotonic()
    with process(tmp_path, {}):
        assert time.monotonic() - began < 2
