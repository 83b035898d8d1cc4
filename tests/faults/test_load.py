"""Load: many slow streams, clients that stall or leave, providers that break; each bounded in time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from faults import living
from faults.casefiles import call, cases, parameters
from faults.living import complaint, metric, status, until
from faults.measuring import measured
from faults.planned import Arrival, Planned
from faults.serving import KEY, Gateway, serving
from faults.wireclient import Talk, ask

FILE = cases("load_soak")
SECONDS = 60
WARM = 200
MIB = 1 << 20
Facts = dict[str, Any]
EVENT_AT = re.compile(rb"t=(\d+)\.")


class Ticking(asyncio.Protocol):
    """A client that reads a stream of one event a second, and knows how late each was."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.late: list[float] = []
        self.whole = asyncio.get_running_loop().create_future()
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(call(self.model, stream=True))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self.late += [now * 1000 - int(found) for found in EVENT_AT.findall(data)]
        self._tail = (self._tail + data)[-64:]
        if self._tail.endswith(b"0\r\n\r\n") and not self.whole.done():
            self.whole.set_result(b"[DONE]" in self._tail)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.whole.done():
            self.whole.set_result(False)


class Clock(asyncio.Protocol):
    """A provider that sends the time of day once a second, `SECONDS` times."""

    def __init__(self) -> None:
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head and self._head.endswith(b"}"):
            self._head = b""
            self.transport.write(SSE)  # type: ignore[attr-defined]
            self._tick(SECONDS)

    def _tick(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if not left:
            end = chunked(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
            self.transport.write(end + b"0\r\n\r\n")  # type: ignore[attr-defined]
            return
        text = f"t={time.monotonic() * 1000:.0f}."
        event = f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}\n\n'.encode()
        self.transport.write(chunked(event))  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_later(1.0, self._tick, left - 1)


SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def warmed(gateway: Gateway) -> None:
    """The requests before memory is measured."""
    for _ in range(WARM):
        assert await status(gateway) == 200


async def _slow_streams(folder: Path, count: int) -> Facts:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Clock, "127.0.0.1", 0, backlog=4096)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with living.provider() as sound:
        config = living.config(sound.url, "ticking")
        config["providers"]["clock"] = {"type": "openai", "base_url": f"{url}/v1", "api_key": "sk-clock"}
        config["deployments"]["ticking"]["provider"] = "clock"
        async with serving(folder, config) as gateway:
            await warmed(gateway)
            rss = gateway.watched.memory_info().rss
            lag: list[float] = []

            async def act() -> list[Ticking]:
                clients = []
                for number in range(count):
                    _, client = await loop.create_connection(lambda: Ticking("ticking"), "127.0.0.1", gateway.port)
                    clients.append(client)
                    if number % 50 == 49:
                        await asyncio.sleep(0.05)  # connections come over some seconds, not in one burst
                await asyncio.sleep(SECONDS / 2)
                lag.append((gateway.watched.memory_info().rss - rss) / count / 1024)
                await asyncio.gather(*(client.whole for client in clients))
                return clients

            clients, told = await measured(gateway, act)
    server.close()
    late = sorted(each for client in clients for each in client.late)
    assert len(late) >= count * SECONDS * 0.99
    return {
        "errors": sum(not client.whole.result() for client in clients),
        "rss_per_stream_kib_max": lag[0],
        "event_delay_p99_ms_max": late[int(len(late) * 0.99)],
        "loop_lag_p99_ms_max": told.p99_ms,
        "loop_lag_max_ms": told.wait_ms,
    }


async def ls_001(folder: Path) -> Facts:
    return await _slow_streams(folder, 1000)


ls_015 = ls_001  # the loop's lag under the same load


TEXT = "word " * 100
FLOOD = [
    {"t": "{{SSE}}"},
    {"rep": {"chunk": f'data: {{"choices":[{{"index":0,"delta":{{"content":"{TEXT}"}}}}]}}\n\n', "n": 10**8}},
]


def flooding(arrival: Arrival) -> list[dict[str, Any]]:
    """A stream without pause and without end, or a whole answer."""
    return FLOOD if arrival.model == "flood" else [{"t": "{{OK}}"}]


async def _stalled(gateway: Gateway) -> socket.socket:
    """A client that asks for a stream and never reads it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", gateway.port))
    await loop.sock_sendall(sock, call("flood", stream=True))
    return sock


async def ls_003(folder: Path) -> Facts:
    count = 200
    async with Planned(flooding) as provider:
        config = living.config(provider.url, "flood", server={"write_timeout": "300s"})
        async with serving(folder, config) as gateway:
            await warmed(gateway)
            before = gateway.watched.memory_info().rss
            clients = [await _stalled(gateway) for _ in range(count)]
            # Until then the kernel's own buffers fill, megabytes for each connection.
            await asyncio.sleep(20)
            early = gateway.watched.memory_info().rss
            used = sum(gateway.watched.cpu_times()[:2])
            await asyncio.sleep(10)
            late = gateway.watched.memory_info().rss
            # A gateway that still read what the provider writes without a pause would be busy all the time.
            paused = sum(gateway.watched.cpu_times()[:2]) - used < 1
            for client in clients:
                client.close()
            return {
                "rss_per_stream_kib_max": (late - before) / count / 1024,
                "rss_slope_kib_per_s_max": (late - early) / 10 / 1024,
                "upstream_paused": paused,
            }


async def ls_004(folder: Path) -> Facts:
    async with Planned(flooding) as provider, serving(folder, living.config(provider.url, "flood")) as gateway:
        client = await _stalled(gateway)
        began = time.monotonic()
        await until(lambda: provider.asked("flood"), 5)
        (arrival,) = provider.asked("flood")
        async with asyncio.timeout(10):
            await arrival.connection.closed.wait()
        took = time.monotonic() - began
        await gateway.logged()
        client.close()
        return {
            "closed_within_s": took,
            "upstream_cancelled": arrival.connection.closed.is_set(),
            "log_has": next(line["code"] for line in gateway.lines if line.get("model") == "flood"),
        }


async def _growth(gateway: Gateway, act: Callable[[], Awaitable[Any]]) -> Facts:
    """What is left behind after the requests: descriptors, requests in flight, memory."""
    await warmed(gateway)
    fds = gateway.watched.num_fds()
    _, told = await measured(gateway, act)
    await asyncio.sleep(5)
    active = await metric(gateway, "requests_active")
    # What the pool keeps is no leak: it closes what was idle for 15 s.
    with contextlib.suppress(AssertionError):
        await until(lambda: gateway.watched.num_fds() <= fds, 16)
    return {
        "fd_delta": max(0, gateway.watched.num_fds() - fds),
        "tasks_delta": active,
        "rss_growth_mib_max": told.growth_mib,
    }


async def ls_005(folder: Path) -> Facts:
    chance, room = random.Random(5), asyncio.Semaphore(50)
    async with living.provider() as provider, serving(folder, living.config(provider.url, "s-3", "slow-1")) as gateway:

        async def one(number: int) -> None:
            async with room:
                model = ("s-3", "slow-1")[number % 2]
                steps = [{"data": call(model, stream=model == "s-3")}, {"sleep": chance.random() * 0.2}]
                how = "rst" if number % 3 else "fin"
                await Talk(gateway.port, str.encode).run([*steps, {"close": how}], 1)

        async def act() -> None:
            await asyncio.gather(*(one(number) for number in range(10_000)))

        facts = await _growth(gateway, act)
        idle = gateway.watched.net_connections(kind="tcp")
        open_ = sum(each.status == "ESTABLISHED" and each.raddr and each.raddr.port == provider.port for each in idle)
        # What is open now is idle in the pool.
        well = facts["tasks_delta"] == 0 and open_ <= 60
        return {**facts, "upstream_connections_after_5s": "0 active" if well else f"{open_} open"}


async def ls_006(folder: Path) -> Facts:
    chance, room = random.Random(6), asyncio.Semaphore(50)

    def breaking(arrival: Arrival) -> list[dict[str, Any]]:
        if arrival.model == "m-r0":
            return [{"t": "{{OK}}"}]
        parts = [{"t": "{{SSE}}"}, {"chunk": "{{D2}}"}, {"sleep": 0.01}, {"chunk": "{{D3}}"}]
        return [*parts[: chance.randrange(5)], {"rst": True}]

    async with Planned(breaking) as provider, serving(folder, living.config(provider.url, "breaks")) as gateway:

        async def one() -> None:
            async with room:
                seen = await ask(gateway.port, call("breaks", stream=True))
                assert seen.responses[0].error

        async def act() -> None:
            await asyncio.gather(*(one() for _ in range(10_000)))

        facts = await _growth(gateway, act)
        return {**facts, "unclosed_warnings": gateway.noise.count("unclosed")}


async def ls_008(folder: Path) -> Facts:
    return await _many_names(folder, lambda number: call(f"unknown-{number}"))


async def ls_009(folder: Path) -> Facts:
    return await _many_names(
        folder, lambda number: call("m-r0", extra=f"X-Request-ID: id-{number}\r\n", user=f"user-{number}")
    )


async def _many_names(folder: Path, request: Callable[[int], bytes]) -> Facts:
    """100,000 requests that differ, a hundred at a time on ten connections."""
    async with living.provider() as provider, serving(folder, living.config(provider.url)) as gateway:
        await warmed(gateway)
        await ask(gateway.port, request(0))
        before, room = await gateway.series(), asyncio.Semaphore(10)

        async def batch(first: int) -> None:
            async with room:
                data = b"".join(request(number) for number in range(first, first + 100))
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(data)
                left = 100
                while left:
                    left -= (await reader.readuntil(b"HTTP/1.1 ")).count(b"HTTP/1.1 ")
                writer.close()

        async def act() -> None:
            await asyncio.gather(*(batch(first) for first in range(1, 100_000, 100)))

        _, told = await measured(gateway, act)
        return {"metric_series_delta": await gateway.series() - before, "rss_growth_mib_max": told.growth_mib}


async def ls_010(folder: Path) -> Facts:
    def answer(arrival: Arrival) -> list[dict[str, Any]]:
        return [{"stall": 30}] if arrival.model == "dead" else [{"t": "{{OK}}"}]

    names = [f"healthy-{number}" for number in range(9)]
    async with Planned(answer) as provider, serving(folder, living.config(provider.url, "dead", *names)) as gateway:
        await warmed(gateway)

        async def p99(dead: bool) -> float:
            waits, calls = [], []

            async def one(name: str) -> None:
                began = time.monotonic()
                got = await status(gateway, name)
                if name != "dead":
                    assert got == 200
                    waits.append(time.monotonic() - began)

            for number in range(1000):
                hot = dead and number % 10 == 9
                calls.append(asyncio.create_task(one("dead" if hot else names[number % 9])))
                await asyncio.sleep(0.005)
            await asyncio.gather(*calls)
            return sorted(waits)[int(len(waits) * 0.99)] * 1000

        calm = await p99(False)
        return {"healthy_models_p99_ms_increase_max": await p99(True) - calm}


async def ls_013(folder: Path) -> Facts:
    async with living.provider() as provider:
        config = living.config(provider.url, "slow-10")
        # The provider here is one Python process, which needs its time for 400 MiB.
        config["retry"]["timeouts"] |= {"connect": "20s", "first_byte": "60s"}
        return await _big_prompts(folder, config)


async def _big_prompts(folder: Path, config: dict[str, Any]) -> Facts:
    async with serving(folder, config) as gateway:
        await warmed(gateway)
        request, room = call("slow-10", user="x" * (8 * MIB)), asyncio.Semaphore(50)

        async def one() -> None:
            async with room:
                seen = await ask(gateway.port, request, 60)
                assert seen.responses[0].status == 200

        async def act() -> None:
            await asyncio.gather(*(one() for _ in range(150)))

        # Answered without a provider: the one here is busy with what is measured.
        small = f"GET /v1/models HTTP/1.1\r\nHost: gw.test\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        _, told = await measured(gateway, act, small, gateway.port)
        return {"rss_growth_mib_max": told.growth_mib, "small_request_p99_ms_max": told.p99_ms}


DRIVERS: dict[str, Callable[[Path], Awaitable[Facts]]] = {
    name.upper().replace("_", "-"): function for name, function in list(globals().items()) if name.startswith("ls_")
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", parameters([name for name in FILE if name in DRIVERS], lambda _: True))
def test_load_leaves_nothing_behind(case: str, tmp_path: Path) -> None:
    expect = FILE[case]["expect"]
    facts = asyncio.run(DRIVERS[case](tmp_path))
    assert not expect.keys() - facts.keys(), "unknown expectation"
    found = [complaint(name, wanted, facts[name]) for name, wanted in expect.items()]
    assert not any(found), f"{FILE[case]['title']}: {found}"
