"""Several processes, and sockets that systemd opened. LC numbers are those of the fault specification."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import time
from pathlib import Path

import psutil
import pytest
from lifeprocess import (
    Load,
    Process,
    activated,
    content,
    converse,
    end,
    free_port,
    holds,
    listening,
    plugin,
    running,
    upstream,
)
from livegateway import Reply

# Whole processes, and waits as long as an operator's: seconds each.
pytestmark = pytest.mark.slow


EXITS = """
import os, time
from dataclasses import replace
from plugins.openai import PROVIDER as BASE

STARTED = os.getpid()


def credential(options):
    if os.getpid() != STARTED or {alone}:
        with open({marks!r}, "a") as out:
            out.write(f"{{time.monotonic()}}\\n")
        os._exit(3)
    return BASE.credential(options)


PROVIDER = replace(BASE, name="exits", credential=credential)
"""


def test_lc_013_a_killed_worker_is_replaced_and_the_other_serves_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, workers=2)) as gateway:
            assert len(gateway.workers) == 2
            victim = gateway.workers[0].pid
            async with Load(gateway.chat, 100) as load:
                await asyncio.sleep(0.5)
                began = time.monotonic()
                os.kill(victim, signal.SIGKILL)
                await gateway.until(lambda vitals: vitals["worker_restarts_total"] == 1)
                await gateway.until(lambda vitals: vitals["workers"] == 2)
                assert time.monotonic() - began < 2
                await asyncio.sleep(0.5)
            # Only what the killed one had in flight; what waited in its queue was served by the next.
            assert len(load.failed) <= 5, load.failed
            assert load.done > 100
            assert victim not in [worker.pid for worker in gateway.workers]
            assert await gateway.readiness() == 200
            gateway.signal()
            assert await gateway.gone(5) == 0

    asyncio.run(main())


def test_lc_014_workers_that_end_at_their_start_are_tried_less_and_less(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up:
            marks = tmp_path / "marks"
            config = content(up.url, workers=2)
            config["providers"]["up"]["type"] = "exits"
            gateway = Process(tmp_path, config)
            gateway.write()
            gateway.start(plugin(tmp_path, "exits", EXITS.format(alone=False, marks=str(marks))))
            try:
                await holds(lambda: marks.exists() and len(marks.read_text().splitlines()) >= 6, 20)
                watched = psutil.Process(gateway.process.pid)
                before = watched.cpu_times()
                await asyncio.sleep(4)
                used = [after - first for after, first in zip(watched.cpu_times()[:4], before[:4], strict=True)]
                assert sum(used) < 0.8  # 2 s in 10 s
                assert len(marks.read_text().splitlines()) <= 10
                assert await gateway.readiness() == 503
                waits = [line["restart_in"] for line in gateway.news if line.get("worker") == 0]
                assert waits == sorted(waits)
                assert waits[0] < 1 < waits[-1]
                gateway.signal()
                assert await gateway.gone(3) == 0
            finally:
                end(gateway)

    asyncio.run(main())


def test_lc_015_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, workers=2)) as gateway:
            workers = gateway.workers
            stream = asyncio.create_task(gateway.chat("s1000"))
            await gateway.until(lambda vitals: vitals["requests_active"] == 1)
            gateway.process.kill()
            _, alive = await asyncio.to_thread(psutil.wait_procs, workers, 5)
            assert not alive
            assert (await stream).chunks[-1]["error"]["code"] == "shutting_down"

    asyncio.run(main())


def test_a_worker_whose_loop_stands_still_ends_without_its_supervisor_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, workers=2)) as gateway:
            workers = gateway.workers
            for worker in workers:
                worker.suspend()
            gateway.process.kill()
            await asyncio.to_thread(gateway.process.wait)
            for worker in workers:
                worker.resume()
            _, alive = await asyncio.to_thread(psutil.wait_procs, workers, 5)
            assert not alive

    asyncio.run(main())


def test_lc_016_a_restart_by_socket_activation_refuses_nobody(tmp_path: Path) -> None:
    async def main(workers: int) -> None:
        opened = listening()
        port = opened.getsockname()[1]
        async with upstream() as up:
            config = content(up.url, listen="fd:http", workers=workers)
            first = Process(tmp_path, config)
            first.port = port
            first.write()
            first.start(**activated(first, opened))
            second = Process(tmp_path, {**config, "server": dict(config["server"])})
            second.config["server"]["admin"] = f"127.0.0.1:{second.admin}"
            second.file, second.port = tmp_path / "second.yaml", port
            second.write()
            try:
                await first.ready()
                stream = asyncio.create_task(first.chat("s15"))
                async with Load(first.chat, 200) as load:
                    await asyncio.sleep(0.5)
                    first.signal()
                    assert await first.gone(5) == 0
                    second.start(**activated(second, opened))
                    await second.ready()
                    await asyncio.sleep(0.5)
                assert load.failed == []
                assert load.done > 200
                assert (await stream).done
            finally:
                end(first)
                end(second)
                opened.close()

    for workers in (1, 2):
        asyncio.run(main(workers))


def test_a_socket_that_was_not_passed_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        opened = listening()
        async with upstream() as up:
            gateway = Process(tmp_path, content(up.url, listen="fd:http"))
            gateway.write()
            gateway.start(**activated(gateway, opened, "other"))
            assert await gateway.gone(10) == 1
            assert "systemd passed no socket of that name (passed: other)" in gateway.stderr
        opened.close()

    asyncio.run(main())


def test_a_passed_socket_that_others_may_reach_is_not_served_without_keys(tmp_path: Path) -> None:
    async def main() -> None:
        opened = socket.socket()
        opened.bind(("0.0.0.0", 0))
        opened.listen()
        async with upstream() as up:
            config = content(up.url, listen="fd:http")
            del config["keys"]
            gateway = Process(tmp_path, config)
            gateway.write()
            gateway.start(**activated(gateway, opened))
            assert await gateway.gone(10) == 1
            assert "open to other machines without keys" in gateway.stderr
        opened.close()

    asyncio.run(main())


def test_without_keys_the_host_of_a_passed_socket_has_its_port(tmp_path: Path) -> None:
    async def main() -> None:
        opened = listening()
        async with upstream() as up:
            config = content(up.url, listen="fd:http")
            del config["keys"]
            gateway = Process(tmp_path, config)
            gateway.port = opened.getsockname()[1]
            gateway.write()
            gateway.start(**activated(gateway, opened))
            try:
                await gateway.ready()
                assert (await gateway.chat()).status == 200
                gateway.signal(signal.SIGHUP)
                await gateway.until(lambda vitals: vitals["config_reloads_total"] == 1)
                assert (await gateway.chat()).status == 200
            finally:
                end(gateway)
                opened.close()

    asyncio.run(main())


async def over(path: Path, model: str = "once") -> Reply:
    reader, writer = await asyncio.open_unix_connection(path)
    return await converse(reader, writer, 0, model)


def test_a_unix_socket_has_its_mode_and_goes_with_the_process(tmp_path: Path) -> None:
    async def main(workers: int) -> None:
        path, admin = tmp_path / "http.sock", tmp_path / "admin.sock"
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(path))
        stale.close()
        async with upstream() as up:
            config = content(
                up.url, listen=f"unix:{path}", admin=f"unix:{admin}", unix_mode="0600", workers=workers, drain="5s"
            )
            gateway = Process(tmp_path, config)
            gateway.write()
            gateway.start()
            try:
                await holds(lambda: "-d '" in gateway.stderr, 20)
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert (await over(path)).status == 200
                stream = asyncio.create_task(over(path, "s15"))
                await asyncio.sleep(0.3)
                rival = Process(tmp_path, {**config, "server": {**config["server"], "admin": "127.0.0.1:0"}})
                rival.file = tmp_path / "rival.yaml"
                rival.write()
                rival.start()
                assert await rival.gone(10) == 1
                assert f"cannot listen on unix:{path}: address already in use" in gateway.stderr
                gateway.signal()
                assert await gateway.gone(5) == 0
                assert (await stream).done
                assert not path.exists()
                assert not admin.exists()
            finally:
                end(gateway)

    for workers in (1, 2):
        (tmp_path / "err").unlink(missing_ok=True)
        asyncio.run(main(workers))


def test_a_file_in_the_socket_s_place_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "precious").write_text("mine")
        async with upstream() as up:
            gateway = Process(tmp_path, content(up.url, listen=f"unix:{tmp_path / 'precious'}"))
            gateway.write()
            gateway.start()
            assert await gateway.gone(10) == 1
        assert "no socket" in gateway.stderr
        assert (tmp_path / "precious").read_text() == "mine"

    asyncio.run(main())


def test_two_gateways_with_workers_do_not_share_an_address(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up, running(tmp_path, content(up.url, workers=2)) as gateway:
            (tmp_path / "other").mkdir()
            rival = Process(tmp_path / "other", content(up.url, workers=2))
            rival.config["server"]["listen"] = f"127.0.0.1:{gateway.port}"
            rival.write()
            rival.start()
            assert await rival.gone(10) == 1
            assert f"cannot listen on 127.0.0.1:{gateway.port}: address already in use" in rival.stderr

    asyncio.run(main())


def test_the_demo_is_started_once_for_all_workers(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        config = content(f"http://127.0.0.1:{port}/openai/v1", workers=2, demo=f"127.0.0.1:{port}")
        config["deployments"]["gpt"] = {"provider": "up", "model": "gpt-4o-mini"}
        async with running(tmp_path, config) as gateway:
            replies = await asyncio.gather(*(gateway.chat("gpt") for _ in range(20)))
            assert {reply.status for reply in replies} == {200}
            assert len({reply.json()["id"] for reply in replies}) == 20

    asyncio.run(main())


def test_a_configuration_from_standard_input_survives_reloads(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as up:
            gateway = Process(tmp_path, content(up.url))
            gateway.write()
            file = gateway.file.open("rb")
            gateway.file = Path("-")
            gateway.start(stdin=file)
            try:
                await gateway.ready()
                gateway.signal(signal.SIGHUP)
                await gateway.until(lambda vitals: vitals["config_reloads_total"] == 1)
                assert (await gateway.chat()).status == 200
            finally:
                end(gateway)
                file.close()

    asyncio.run(main())


class Manager:
    """The notify socket of a service manager."""

    def __init__(self, path: Path) -> None:
        self.heard: list[str] = []
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        self.heard.append(self._socket.recv(4096).decode())

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def told(self, state: str) -> bool:
        return any(state in message.splitlines() for message in self.heard)


@pytest.mark.parametrize("workers", [1, 2])
def test_lc_030_the_manager_is_told_what_happens(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        manager = Manager(tmp_path / "notify")
        environ = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
        async with upstream() as up, running(tmp_path, content(up.url, workers=workers), environ=environ) as gateway:
            await holds(lambda: manager.told("READY=1"))
            assert (await gateway.chat()).status == 200
            assert any("STATUS=serving 5 models" in message for message in manager.heard)
            signs = manager.heard.count("WATCHDOG=1")
            await holds(lambda: manager.heard.count("WATCHDOG=1") > signs + 2, 2)
            manager.heard.clear()
            gateway.signal(signal.SIGHUP)
            await holds(lambda: manager.told("READY=1"))
            began = next(message for message in manager.heard if "RELOADING=1" in message)
            assert "MONOTONIC_USEC=" in began
            gateway.write("nonsense")
            manager.heard.clear()
            gateway.signal(signal.SIGHUP)
            await holds(lambda: manager.told("READY=1"))
            assert any("the file is wrong" in message for message in manager.heard)
            stream = asyncio.create_task(gateway.chat("s15"))
            await gateway.until(lambda vitals: vitals["requests_active"] == 1)
            gateway.signal()
            await holds(lambda: manager.told("STOPPING=1"), 1)
            signs = manager.heard.count("WATCHDOG=1")
            await holds(lambda: manager.heard.count("WATCHDOG=1") > signs, 1)
            assert (await stream).done
            assert await gateway.gone(5) == 0
        manager.close()

    asyncio.run(main())
