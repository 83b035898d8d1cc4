"""The process in operators' hands: signals, drains, reloads. LC numbers are those of the fault specification."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from lifeprocess import KEY, OTHER_KEY, Load, asking, content, holds, plugin, running, upstream
from livegateway import hashed

# Whole processes, and waits as long as an operator's: seconds each.
pytestmark = pytest.mark.slow


async def refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def drains(folder: Path, number: int, workers: int) -> None:
    async with upstream() as up, running(folder, content(up.url, workers=workers)) as gateway:
        streams = [asyncio.create_task(gateway.chat("s15")) for _ in range(100)]
        await gateway.until(lambda vitals: vitals["requests_active"] == 100)
        gateway.signal(number)
        await asyncio.sleep(0.4)
        assert await gateway.readiness() == 503
        assert await refused(gateway.port)
        replies = await asyncio.gather(*streams)
        assert all(reply.done and reply.complete for reply in replies)
        assert await gateway.gone(5) == 0
        assert "Traceback" not in gateway.stderr


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_lc_001_lc_004_streams_end_before_the_process_does(tmp_path: Path, number: int, workers: int) -> None:
    asyncio.run(drains(tmp_path, number, workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_lc_002_what_outlives_the_drain_is_told_so(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, drain="1s", workers=workers)) as gateway:
            stream = asyncio.create_task(gateway.chat("s1000"))
            whole = asyncio.create_task(gateway.chat("wait"))
            await gateway.until(lambda vitals: vitals["requests_active"] == 2)
            gateway.signal()
            began = time.monotonic()
            assert await gateway.gone(3) == 0
            assert time.monotonic() - began > 0.9
            told = await stream
            assert told.chunks[-1]["error"]["code"] == "shutting_down"
            assert (told.complete, told.done) == (False, False)
            refusal = await whole
            assert (refusal.status, refusal.error["code"]) == (503, "shutting_down")

    asyncio.run(main())


@pytest.mark.parametrize("workers", [1, 2])
def test_lc_003_a_second_signal_ends_the_drain_at_once(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, workers=workers)) as gateway:
            stream = asyncio.create_task(gateway.chat("s1000"))
            await gateway.until(lambda vitals: vitals["requests_active"] == 1)
            gateway.signal()
            await asyncio.sleep(0.5)
            began = time.monotonic()
            gateway.signal()
            assert await gateway.gone(5) == 0
            assert time.monotonic() - began < 1
            assert not (await stream).complete
            assert "Traceback" not in gateway.stderr

    asyncio.run(main())


def test_lc_005_idle_connections_close_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url)) as gateway:
            idle = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(50)]
            for reader, writer in idle[:25]:
                writer.write(asking(gateway.port, "once", Connection="keep-alive"))
                await reader.readuntil(b"\r\n\r\n")
            stream = asyncio.create_task(gateway.chat("s15"))
            await gateway.until(lambda vitals: vitals["requests_active"] == 1)
            began = time.monotonic()
            gateway.signal()
            await asyncio.gather(*(reader.read() for reader, _ in idle))
            assert time.monotonic() - began < 0.5
            assert (await stream).done
            for _, writer in idle:
                writer.close()

    asyncio.run(main())


def test_lc_006_an_answer_during_the_drain_closes_its_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url)) as gateway:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            request = asking(gateway.port, "once", Connection="keep-alive")
            writer.write(request[:40])
            await gateway.until(lambda vitals: vitals["connections"] == 1)
            gateway.signal()
            await gateway.said("draining")
            writer.write(request[40:])
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nconnection: close\r\n" in answer
            assert await gateway.gone(3) == 0
            writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("workers", [1, 2])
def test_lc_007_reloads_under_load_fail_nothing(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, workers=workers)) as gateway:
            stream = asyncio.create_task(gateway.chat("s30"))
            async with Load(gateway.chat, 200) as load:
                for count in range(1, 21):
                    gateway.config["server"]["drain"] = f"{count}s"
                    gateway.write()
                    gateway.signal(signal.SIGHUP)
                    await gateway.until(lambda vitals, count=count: vitals["config_reloads_total"] >= count)
                    await asyncio.sleep(0.15)
            assert load.failed == []
            assert load.done > 400
            assert (await stream).done
            assert (await gateway.vitals())["worker_restarts_total" if workers > 1 else "config_reload_failed"] == 0

    asyncio.run(main())


@pytest.mark.parametrize("break_it", ["models:\n\t- x\n", "half"], ids=["LC-008", "LC-012"])
def test_lc_008_lc_012_a_broken_file_changes_nothing(tmp_path: Path, break_it: str) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url)) as gateway:
            text = gateway.file.read_text()
            before = len(gateway.lines)
            gateway.write(text[: len(text) // 2] if break_it == "half" else break_it)
            gateway.signal(signal.SIGHUP)
            await gateway.until(lambda vitals: vitals["config_reload_failed"] == 1)
            await gateway.said("the one before serves on")
            assert len(gateway.lines) - before <= 5
            assert (await gateway.chat()).status == 200
            gateway.write(text)
            await gateway.until(lambda vitals: vitals["config_reload_failed"] == 0)

    asyncio.run(main())


def test_a_file_is_read_again_when_it_changes_a_link_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up:
            config = content(up.url)
            for name in ("one", "two"):
                (tmp_path / name).mkdir()
            (tmp_path / "data").symlink_to("one")
            async with running(tmp_path, config) as gateway:
                text = json.loads(gateway.file.read_text())
                (tmp_path / "one" / "gateway.yaml").write_text(json.dumps(text))
                text["deployments"]["late"] = {"provider": "up", "model": "once"}
                (tmp_path / "two" / "gateway.yaml").write_text(json.dumps(text))
                gateway.file.unlink()
                gateway.file.symlink_to("data/gateway.yaml")
                await gateway.until(lambda vitals: vitals["config_reloads_total"] == 1)
                assert (await gateway.chat("late")).status == 404
                (tmp_path / "swap").symlink_to("two")
                (tmp_path / "swap").rename(tmp_path / "data")
                assert await gateway.until(lambda vitals: vitals["config_reloads_total"] == 2) < 2.5
                assert (await gateway.chat("late")).status == 200

    asyncio.run(main())


@pytest.mark.parametrize("workers", [1, 2])
def test_lc_009_lc_010_streams_outlive_their_model_and_their_key(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, workers=workers)) as gateway:
            streams = [asyncio.create_task(gateway.chat("s30")) for _ in range(10)]
            await gateway.until(lambda vitals: vitals["requests_active"] == 10)
            del gateway.config["deployments"]["s30"]
            gateway.config["keys"] = {"tester": {"hash": hashed(OTHER_KEY)}}
            gateway.write()
            gateway.signal(signal.SIGHUP)
            began = time.monotonic()
            while (await gateway.chat("once", KEY)).status != 401:
                assert time.monotonic() - began < 1
            assert (await gateway.chat("once", OTHER_KEY)).status == 200
            assert (await gateway.chat("s30", OTHER_KEY)).status == 404
            assert all(reply.done for reply in await asyncio.gather(*streams))

    asyncio.run(main())


def test_lc_011_a_new_address_closes_the_old_connections(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as old, upstream() as new, running(tmp_path, content(old.url)) as gateway:
            await asyncio.gather(*(gateway.chat() for _ in range(20)))
            stream = asyncio.create_task(gateway.chat("s15"))
            await gateway.until(lambda vitals: vitals["requests_active"] == 1)
            watched = psutil.Process(gateway.process.pid)
            served, descriptors = old.served, watched.num_fds()
            for url in (new.url, old.url, new.url):
                gateway.config["providers"]["up"]["base_url"] = url
                gateway.write()
                reloads = (await gateway.vitals())["config_reloads_total"]
                gateway.signal(signal.SIGHUP)
                await gateway.until(lambda vitals, reloads=reloads: vitals["config_reloads_total"] > reloads)
            await asyncio.gather(*(gateway.chat() for _ in range(5)))
            assert (old.served, new.served) == (served, 5)
            assert (await stream).done
            await holds(lambda: not old.connections, 20)
            assert watched.num_fds() <= descriptors

    asyncio.run(main())


def test_what_needs_a_restart_is_said_and_what_does_not_takes_effect(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url)) as gateway:
            log = tmp_path / "elsewhere.log"
            gateway.config["server"] |= {"listen": "127.0.0.1:1", "workers": 2, "max_body": "20B"}
            gateway.config["telemetry"] = {"access_log": {"to": str(log)}}
            gateway.write()
            gateway.signal(signal.SIGHUP)
            await gateway.until(lambda vitals: vitals["config_reloads_total"] == 1)
            assert (await gateway.chat("once")).status == 413
            await holds(lambda: log.exists() and "a restart is needed" in log.read_text(), 5)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            late: Any = next(line for line in lines if "options" in line)
            assert late["options"] == ["server.listen", "server.workers"]

    asyncio.run(main())


def test_lc_017_connections_beyond_the_descriptors_hurt_no_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up:
            config = content(up.url, header_timeout="60s")
            async with running(tmp_path, config, preexec_fn=_few_descriptors) as gateway:
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                request = asking(gateway.port, "once", Connection="keep-alive")
                writer.write(request)
                await reader.readuntil(b"\r\n\r\n")
                before = len(gateway.lines)
                crowd = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(400)]
                began = time.monotonic()
                for _ in range(10):
                    await asyncio.sleep(0.1)
                    writer.write(request)
                    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
                elapsed = time.monotonic() - began
                assert len([line for line in gateway.lines[before:] if "message" in line]) <= 5 * elapsed + 5
                for _, each in crowd:
                    each.close()
                began = time.monotonic()
                while (await _status(gateway)) != 200:
                    assert time.monotonic() - began < 3
                assert "Traceback" not in gateway.stderr
                writer.close()

    asyncio.run(main())


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))


async def _status(gateway: Any) -> int:
    try:
        return int((await gateway.chat()).status)
    except (OSError, IndexError):
        return 0


def test_lc_018_connections_over_the_limit_are_told_to_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, max_connections=100)) as gateway:
            memory = psutil.Process(gateway.process.pid).memory_info().rss
            crowd = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(150)]
            # The kernel opens them at once; the process must have seen all before the first leave.
            async with asyncio.timeout(10):
                while (await gateway.vitals())["connections_refused_total"] < 50:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
            for _, writer in crowd[:100]:
                writer.write(asking(gateway.port, "once"))
            answers = await asyncio.gather(*(reader.read() for reader, _ in crowd))
            assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers[:100])
            assert all(answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer for answer in answers[100:])
            assert psutil.Process(gateway.process.pid).memory_info().rss - memory < 8 * 1024 * 1024
            assert (await gateway.vitals())["connections_refused_total"] == 50
            for _, writer in crowd:
                writer.close()

    asyncio.run(main())


def test_lc_019_a_full_disk_costs_log_lines_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up:
            config = {**content(up.url), "telemetry": {"access_log": {"to": "/dev/full"}}}
            async with running(tmp_path, config) as gateway:
                async with Load(gateway.chat, 100) as load:
                    await asyncio.sleep(1)
                assert load.failed == []
                await gateway.until(lambda vitals: vitals["log_lines_dropped_total"] >= load.done > 50)

    asyncio.run(main())


def test_lc_020_a_reader_of_the_log_that_sleeps_holds_nothing_up(tmp_path: Path) -> None:
    async def main() -> None:
        read, write = os.pipe()
        async with upstream() as up, running(tmp_path, content(up.url), stdout=write) as gateway:
            async with Load(gateway.chat, 150) as load:
                await asyncio.sleep(3)  # over 64 KiB of lines, which is what a pipe holds
            assert load.failed == []
            assert load.done * 300 > 65536
            waits = sorted(load.waits)
            # A loop that waits for the pipe would wait for ever; the bound is wide for a machine that does other work.
            assert waits[len(waits) // 2] < 0.1
            gateway.signal()
            assert await gateway.gone(5) == 0
        os.close(read)
        os.close(write)

    asyncio.run(main())


def test_lc_021_a_log_file_that_is_renamed_loses_no_line(tmp_path: Path) -> None:
    async def main() -> None:
        log = tmp_path / "access.log"
        async with upstream() as up:
            config = {**content(up.url), "telemetry": {"access_log": {"to": str(log)}}}
            async with running(tmp_path, config) as gateway:
                async with Load(gateway.chat, 100) as load:
                    for number in range(5):
                        await asyncio.sleep(0.3)
                        log.rename(tmp_path / f"access.{number}")
                        gateway.signal(signal.SIGHUP)
                        await holds(log.exists, 5)
                gateway.signal()
                assert await gateway.gone(5) == 0
                files = [log, *(tmp_path / f"access.{number}" for number in range(5))]
                lines = [line for file in files for line in file.read_text().splitlines()]
                assert sum('"path"' in line for line in lines) == load.done
                assert load.failed == []

    asyncio.run(main())


FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed")
def test_lc_022_a_wall_clock_that_jumps_moves_no_timer(tmp_path: Path) -> None:
    async def main() -> None:
        clock = tmp_path / "clock"
        clock.write_text("+0")
        environ = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        async with upstream() as up:
            config = content(up.url)
            config["retry"] = {"timeouts": {"first_byte": "2s", "idle": "2s", "total": "20s"}}
            async with running(tmp_path, config, environ=environ) as gateway:
                stream = asyncio.create_task(gateway.chat("s30"))
                await gateway.until(lambda vitals: vitals["requests_active"] == 1)
                for jump in ("+3600", "-3600", "+0"):
                    clock.write_text(jump)
                    assert (await gateway.chat()).status == 200
                    await asyncio.sleep(0.6)  # two sweeps of all timers under this clock
                began = time.monotonic()
                assert (await gateway.chat("wait")).error["code"] == "upstream_timeout"
                assert 1.9 < time.monotonic() - began < 3
                assert (await stream).done
                hours = {line["time"][11:13] for line in gateway.lines}
                assert len(hours) >= 3  # the clock did jump
                assert (await gateway.vitals())["loop_stalls_total"] == 0

    asyncio.run(main())


SLEEPY = """
import time
from dataclasses import replace
from plugins.openai import PROVIDER as BASE

NATIVE = BASE.native["openai.chat"]


def build_request(chat, target):
    if target.model == "wait":
        time.sleep(2.6)
    return NATIVE.build_request(chat, target)


PROVIDER = replace(BASE, name="sleepy", native={"openai.chat": replace(NATIVE, build_request=build_request)})
"""


def test_lc_027_a_loop_that_stands_still_is_counted_and_its_place_logged_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up:
            config = content(up.url)
            config["providers"]["up"]["type"] = "sleepy"
            config["deployments"]["s15"]["model"] = "wait"
            environ = plugin(tmp_path, "sleepy", SLEEPY)
            async with running(tmp_path, config, environ=environ) as gateway:
                asleep = asyncio.create_task(gateway.chat("wait"))
                told = await gateway.said("the event loop stood still")
                assert told["seconds"] > 2
                assert any("build_request" in place for place in told["stack"])
                assert (await gateway.vitals())["loop_stalls_total"] == 1
                assert (await gateway.chat()).status == 200
                assert len([line for line in gateway.news if "stood still" in line["message"]]) == 1
                asleep.cancel()

    asyncio.run(main())


def test_a_secret_s_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up:
            config = content(up.url)
            secret = tmp_path / "key"
            secret.write_text("sk-first")
            config["providers"]["up"]["api_key"] = {"file": str(secret)}
            async with running(tmp_path, config) as gateway:
                await gateway.chat()
                secret.write_text("sk-second")
                await gateway.until(lambda vitals: vitals["config_reloads_total"] == 1)
                await gateway.chat()
            assert up.keys == ["Bearer sk-first", "Bearer sk-second"]

    asyncio.run(main())
