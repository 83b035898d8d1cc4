"""TLS in whole processes: workers, sockets of systemd, IPv6, Unix sockets, reload, drain."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from lifeprocess import KEY, Process, activated, content, end, holds, listening, running, upstream
from livegateway import read_reply
from papers import Papers, ask, chat, plain, shown, speak

# Whole processes, seconds each.
pytestmark = pytest.mark.slow


async def serials(port: int, papers: Papers, count: int) -> set[int]:
    """The certificates that so many new connections are shown."""
    found = set()
    for _ in range(count):
        talk = await speak(port, papers.client())
        found.add(shown(talk))
        talk.leave()
    return found


def test_all_workers_serve_the_new_certificate_and_a_killed_one_comes_back_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        papers = Papers(tmp_path)
        async with (
            upstream() as up,
            running(tmp_path, content(up.url, workers=2, tls=papers.tls())) as gateway,
        ):
            assert f"https://127.0.0.1:{gateway.port}/v1" in gateway.stderr
            stream = await ask(gateway.port, papers.client(), "s15", KEY, stream=True)
            await stream.until(b"data: ")
            fresh = papers.issue()
            gateway.signal(signal.SIGHUP)
            await gateway.said("configuration loaded")
            async with asyncio.timeout(10):
                while await serials(gateway.port, papers, 12) != {fresh}:  # noqa: ASYNC110 - other processes
                    await asyncio.sleep(0.05)
            reply = await stream.rest()
            assert (reply.done, reply.complete) == (True, True)
            # What is on the disk now is broken: a restarted worker has what was checked.
            (tmp_path / "cert.pem").write_text("broken")
            await gateway.said("the one before serves on")
            os.kill(gateway.workers[0].pid, signal.SIGKILL)
            await gateway.until(lambda vitals: vitals["worker_restarts_total"] == 1)
            await gateway.until(lambda vitals: vitals["workers"] == 2)
            assert await serials(gateway.port, papers, 12) == {fresh}
            assert (await chat(gateway.port, papers.client(), "once", KEY)).status == 200
            assert (await chat(gateway.port, papers.client(), "once")).status == 401
            assert "Traceback" not in gateway.stderr

    asyncio.run(main())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_socket_of_systemd_speaks_tls(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        papers = Papers(tmp_path)
        async with upstream() as up:
            opened = listening()
            port = opened.getsockname()[1]
            config = content(up.url, listen="fd:http", workers=workers, tls=papers.tls(mutual=True))
            gateway = Process(tmp_path, config)
            gateway.write()
            gateway.start(**activated(gateway, opened))
            opened.close()
            try:
                await gateway.ready()
                assert (await chat(port, papers.client(True), "once", KEY)).status == 200
                assert read_reply(await plain(port, b"GET / HTTP/1.1\r\n\r\n")).error["code"] == "tls_required"
            finally:
                end(gateway)

    asyncio.run(main())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_speaks_tls_and_has_its_owner(tmp_path: Path, workers: int) -> None:
    async def main() -> None:
        papers = Papers(tmp_path)
        path = tmp_path / "http.sock"
        group = "12345" if os.getuid() == 0 else str(os.getgid())
        rights = {"unix_mode": "0660", "unix_owner": str(os.getuid()), "unix_group": group}
        config = content("", listen=f"unix:{path}", workers=workers, tls=papers.tls(), **rights)
        async with upstream() as up:
            config["providers"]["up"]["base_url"] = up.url
            async with running(tmp_path, config) as gateway:
                await holds(path.exists)
                found = path.stat()
                assert stat.S_IMODE(found.st_mode) == 0o660
                assert (found.st_uid, found.st_gid) == (os.getuid(), int(group))
                reply = await chat(path, papers.client(), "s15", KEY, stream=True)
                assert (reply.done, reply.complete) == (True, True)
                gateway.signal()
                assert await gateway.gone(10) == 0
                assert not path.exists()

    asyncio.run(main())


def test_ipv6_speaks_tls(tmp_path: Path) -> None:
    async def main() -> None:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
                port = probe.getsockname()[1]
        except OSError:
            pytest.skip("this machine has no IPv6")
        papers = Papers(tmp_path)
        async with (
            upstream() as up,
            running(tmp_path, content(up.url, listen=f"[::1]:{port}", tls=papers.tls())),
        ):
            talk = await speak(port, papers.client(), "::1")
            talk.writer.write(f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
            await talk.until(b'"object":"list"')
            talk.leave()

    asyncio.run(main())


def test_other_machines_need_a_key_with_mutual_tls_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        papers = Papers(tmp_path)
        config: dict[str, Any] = content("http://127.0.0.1:9/v1", listen="0.0.0.0:0", tls=papers.tls(mutual=True))
        del config["keys"]
        gateway = Process(tmp_path, config)
        gateway.write(json.dumps(config))
        gateway.start()
        assert await gateway.gone(10) == 78
        assert "server.listen: not a loopback address: define keys" in gateway.stderr

    asyncio.run(main())


def test_a_drain_waits_for_a_stream_and_not_for_idle_clients(tmp_path: Path) -> None:
    async def main() -> None:
        papers = Papers(tmp_path)
        async with (
            upstream() as up,
            running(tmp_path, content(up.url, tls=papers.tls(), drain="10s")) as gateway,
        ):
            idle = [await speak(gateway.port, papers.client()) for _ in range(5)]
            for each in idle:
                transport: Any = each.writer.transport
                transport.pause_reading()
            stream = await ask(gateway.port, papers.client(), "s30", KEY, stream=True)
            await stream.until(b"data: ")
            gateway.signal()
            reply = await stream.rest()
            assert (reply.done, reply.complete) == (True, True)
            assert await gateway.gone(6) == 0
            for each in idle:
                each.leave()
            assert gateway.stderr.count("Traceback") == 0

    asyncio.run(main())
