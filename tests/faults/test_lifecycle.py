"""Signals, reloads, dying workers, full disks: each case with a gateway of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from faults import breakdowns, living, reloads, stores
from faults.casefiles import call, cases, parameters
from faults.living import Facts, complaint, gone, said, status, stopping, stream, whole
from faults.wireclient import ask

FILE = cases("lifecycle")
SLOW = {f"LC-{number:03}" for number in (1, 2, 4, 7, 8, 11, 12, 13, 14, 17, 18, 19, 20, 21, 24, 25, 26, 27, 29)}


async def _streams_finish(folder: Path, number: int) -> Facts:
    count, events = 100, 30
    async with living.provider() as provider, stopping(folder, living.config(provider.url, "s-30")) as gateway:
        streams = [asyncio.create_task(stream(gateway, "s-30")) for _ in range(count)]
        await asyncio.sleep(1)
        gateway.process.send_signal(number)
        signalled = time.monotonic()
        await asyncio.sleep(0.2)
        connections = "refused" if await status(gateway) == 0 else "accepted"
        readyz = (await gateway.page("/readyz")).status
        seen = await asyncio.gather(*streams)
        _, code = await gone(gateway)
        finished = sum(whole(each, events) for each in seen)
        return {
            "streams_complete": finished if number == signal.SIGTERM else "all" if finished == count else finished,
            "new_connections": connections,
            "readyz": said("503 from the signal on", readyz == 503),
            "exit_code": code,
            "exits_within_s": time.monotonic() - signalled,
        }


async def lc_001(folder: Path) -> Facts:
    return await _streams_finish(folder, signal.SIGTERM)


async def lc_004(folder: Path) -> Facts:
    return await _streams_finish(folder, signal.SIGINT)


async def lc_002(folder: Path) -> Facts:
    async with living.provider() as provider:
        config = living.config(provider.url, "s-1000", server={"drain": "2s"})
        async with stopping(folder, config) as gateway:
            running = asyncio.create_task(stream(gateway, "s-1000"))
            await asyncio.sleep(0.5)
            gateway.process.send_signal(signal.SIGTERM)
            took, code = await gone(gateway)
            answer = (await running).responses[0]
            return {
                "error_event": bool(answer.error),
                "code": answer.error.get("code"),
                "clean_end": answer.complete,
                "exits_within_s": took,
                "exit_code": code,
            }


async def lc_003(folder: Path) -> Facts:
    async with living.provider() as provider, stopping(folder, living.config(provider.url, "s-1000")) as gateway:
        running = asyncio.create_task(stream(gateway, "s-1000"))
        await asyncio.sleep(0.5)
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        gateway.process.send_signal(signal.SIGTERM)
        took, code = await gone(gateway)
        await running
        return {
            "exits_within_s": took,
            "exit_code_not": code,
            "traceback": "Traceback" in gateway.noise + gateway.text,
        }


async def lc_005(folder: Path) -> Facts:
    async with living.provider() as provider, stopping(folder, living.config(provider.url)) as gateway:
        fresh = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(25)]
        used = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(25)]
        for reader, writer in used:
            writer.write(call("m-r0"))
            await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)  # the gateway's side of the last answer
        gateway.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        async with asyncio.timeout(10):
            for reader, writer in (*fresh, *used):
                await reader.read()
                writer.close()
        return {"closed_within_s": time.monotonic() - began}


async def lc_006(folder: Path) -> Facts:
    async with living.provider() as provider, stopping(folder, living.config(provider.url, "slow-8")) as gateway:
        waiting = asyncio.create_task(ask(gateway.port, call("slow-8")))
        await asyncio.sleep(0.3)
        gateway.process.send_signal(signal.SIGTERM)
        answer = (await waiting).responses[0]
        assert answer.status == 200
        return {"header_has": {"connection": answer.header("connection")}}


async def lc_030(folder: Path) -> Facts:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(10)
        environ = {"NOTIFY_SOCKET": str(folder / "notify")}
        async with (
            living.provider() as provider,
            stopping(folder, living.config(provider.url), environ=environ) as gateway,
        ):
            said_ = [await asyncio.to_thread(manager.recv, 4096)]
            serves = await status(gateway) == 200
            gateway.process.terminate()
            await gone(gateway)
            manager.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    said_.append(manager.recv(4096))
        return {
            "ready_after_bind": b"READY=1" in said_[0] and serves,
            "stopping_on_term": any(b"STOPPING=1" in each for each in said_[1:]),
        }


DRIVERS: dict[str, Callable[[Path], Awaitable[Facts]]] = {
    name.upper().replace("_", "-"): function
    for names in (vars(reloads), vars(breakdowns), vars(stores), globals())
    for name, function in list(names.items())
    if name.startswith("lc_")
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", parameters([name for name in FILE if name in DRIVERS], SLOW.__contains__))
def test_a_process_lives_and_ends_in_order(case: str, tmp_path: Path) -> None:
    expect = FILE[case]["expect"]
    facts = asyncio.run(DRIVERS[case](tmp_path))
    assert not expect.keys() - facts.keys(), "unknown expectation"
    found = [complaint(name, wanted, facts[name]) for name, wanted in expect.items()]
    assert not any(found), f"{FILE[case]['title']}: {found}"
