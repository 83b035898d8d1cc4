"""Signals, reloads, dying workers, full disks: each case with a gateway of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults import living
from faults.casefiles import call, cases, parameters
from faults.living import Crowd, metric, status, stream, until, whole, workers
from faults.measuring import measured
from faults.serving import KEY, Gateway, deployment, hashed, openai, serving
from faults.wireclient import Seen, ask

FILE = cases("lifecycle")
SLOW = {"LC-001", "LC-004", "LC-007", "LC-011", "LC-013", "LC-014", "LC-017", "LC-018", "LC-019", "LC-020", "LC-029"}
Facts = dict[str, Any]


@contextlib.asynccontextmanager
async def stopping(folder: Path, config: dict[str, Any], **how: Any) -> Any:
    """A gateway that the case itself brings to its end."""
    gateway = Gateway(folder, config)
    gateway.start(**how)
    try:
        await gateway.ready()
        yield gateway
    finally:
        await gateway.end(signal.SIGKILL)


async def gone(gateway: Gateway, seconds: float = 15.0) -> tuple[float, int]:
    """Seconds until the process has ended, and its exit code."""
    took = await until(lambda: gateway.process.poll() is not None, seconds)
    return took, gateway.process.returncode


def said(prose: str, holds: bool) -> str:
    """The case's own words if they are true."""
    return prose if holds else f"not {prose}"


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


async def lc_007(folder: Path) -> Facts:
    async with living.provider() as provider, serving(folder, living.config(provider.url, "s-130")) as gateway:
        calm = Crowd(gateway, 200)
        async with calm.around():
            await asyncio.sleep(2)
        busy = Crowd(gateway, 200)
        running = asyncio.create_task(stream(gateway, "s-130"))
        async with busy.around():
            for _ in range(20):
                gateway.process.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.5)
        assert busy.made > 1000
        return {
            "failed_requests": len(busy.failed),
            "dropped_streams": int(not whole(await running, 130)),
            "p99_ms_increase_max": busy.p99_ms - calm.p99_ms,
        }


async def _broken(folder: Path, damage: Callable[[str], str]) -> tuple[Facts, Gateway]:
    async with living.provider() as provider, serving(folder, living.config(provider.url)) as gateway:
        crowd = Crowd(gateway)
        before = gateway.text.count('"message"')
        async with crowd.around():
            await asyncio.sleep(0.3)
            gateway.file.write_text(damage(gateway.file.read_text()))
            gateway.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(2.5)  # the signal, and a look at the file each second
        await gateway.logged()
        lines = gateway.text.count('"message"') - before
        assert lines >= 1, "the broken file was not noticed"
        return {
            "failed_requests": len(crowd.failed),
            "old_config_active": await status(gateway) == 200,
            "reload_failure_metric": await metric(gateway, "config_reload_failed"),
            "log_lines_max": lines,
        }, gateway


async def lc_008(folder: Path) -> Facts:
    return (await _broken(folder, lambda text: "models:\n\t- x\n"))[0]


async def lc_012(folder: Path) -> Facts:
    return (await _broken(folder, lambda text: text[: len(text) // 2]))[0]


async def _reloaded(gateway: Gateway, config: dict[str, Any]) -> None:
    done = await metric(gateway, "config_reloads_total")
    gateway.write(config)
    gateway.process.send_signal(signal.SIGHUP)
    await until(lambda: _more(gateway, done), 5)


async def _more(gateway: Gateway, than: float) -> bool:
    return await metric(gateway, "config_reloads_total") > than


async def lc_009(folder: Path) -> Facts:
    async with living.provider() as provider, serving(folder, living.config(provider.url, "s-15")) as gateway:
        running = asyncio.create_task(stream(gateway, "s-15"))
        await asyncio.sleep(0.3)
        await _reloaded(gateway, living.config(provider.url))
        refused = await status(gateway, "s-15")
        return {"old_streams_complete": whole(await running, 15), "new_requests": refused}


async def lc_010(folder: Path) -> Facts:
    async with living.provider() as provider:
        config = living.config(provider.url, "s-15")
        async with serving(folder, config) as gateway:
            running = asyncio.create_task(stream(gateway, "s-15"))
            await asyncio.sleep(0.3)
            config["keys"]["tester"]["hash"] = hashed("sk-gw-second")
            gateway.write(config)
            gateway.process.send_signal(signal.SIGHUP)
            took = await until(lambda: _is(gateway, KEY, 401), 5)
            assert await status(gateway, key="sk-gw-second") == 200
            return {"K1_rejected_within_s": took, "streams_of_K1": said("finish", whole(await running, 15))}


async def _is(gateway: Gateway, key: str, wanted: int) -> bool:
    return await status(gateway, key=key) == wanted


async def lc_011(folder: Path) -> Facts:
    async with living.provider() as first, living.provider() as second:
        async with serving(folder, living.config(first.url)) as gateway:
            assert await status(gateway) == 200
            before = gateway.watched.num_fds()
            await _reloaded(gateway, living.config(second.url))
            began, seen = time.monotonic(), len(first.arrivals)
            assert await status(gateway) == 200
            took = await until(lambda: all(each.closed.is_set() for each in first.connections), 21)
            await asyncio.sleep(0.2)
            return {
                "new_requests": "B" if len(first.arrivals) == seen and second.arrivals else "A",
                "old_pool_closed_within_s": took + time.monotonic() - began - took,
                "fd_leak": max(0, gateway.watched.num_fds() - before),
            }


async def lc_013(folder: Path) -> Facts:
    async with living.provider() as provider:
        config = living.config(provider.url, "s-30", server={"workers": 2})
        async with serving(folder, config) as gateway:
            streams = [asyncio.create_task(stream(gateway, "s-30")) for _ in range(20)]
            await asyncio.sleep(0.8)
            killed = workers(gateway)[0]
            held = _clients_of(killed, gateway.port)
            killed.kill()
            await asyncio.sleep(0.1)
            served = sum([await status(gateway) == 200 for _ in range(10)])
            took = await until(lambda: len(workers(gateway)) == 2, 5)
            seen = await asyncio.gather(*streams)
            lost = sum(not whole(each, 30) for each in seen)
            return {
                "other_worker_serves": served >= 1,
                "worker_restarted_within_s": took,
                "failed": said("only that worker's in-flight", lost == held),
            }


def _clients_of(process: psutil.Process, port: int) -> int:
    found = process.net_connections(kind="tcp")
    return sum(each.status == "ESTABLISHED" and each.laddr.port == port for each in found)


async def lc_014(folder: Path) -> Facts:
    environ = {**living.faulty_plugin(folder), "FAULTY_WORKERS": "1"}
    config = living.config("http://127.0.0.1:9", server={"workers": 2})
    config["providers"]["faulty"] = {"type": "faulty", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-x"}
    config["deployments"]["f"] = deployment("faulty", "f")
    gateway = Gateway(folder, config)
    gateway.start(environ)
    try:
        await asyncio.sleep(2)
        before = _cpu(gateway)
        await asyncio.sleep(10)
        used = _cpu(gateway) - before
        gateway.process.terminate()
        await gone(gateway)
    finally:
        await gateway.end(signal.SIGKILL)
    waits = [line["restart_in"] for line in gateway.lines if "restart_in" in line and line["worker"] == 0]
    growing = len(waits) >= 3 and all(later >= earlier * 2 for earlier, later in itertools.pairwise(waits))
    return {
        "restart_backoff": said("exponential", growing),
        "gives_up_or_backs_off": 3 <= len(waits) <= 8,
        "cpu_s_per_10s_max": used,
    }


def _cpu(gateway: Gateway) -> float:
    return float(sum(gateway.watched.cpu_times()[:4]))


async def lc_015(folder: Path) -> Facts:
    async with living.provider() as provider:
        async with stopping(folder, living.config(provider.url, server={"workers": 2})) as gateway:
            orphans = workers(gateway)
            assert len(orphans) == 2
            gateway.process.kill()
            gateway.process.wait()
            took = await until(lambda: not any(_alive(each) for each in orphans), 10)
            assert await status(gateway) == 0
            return {"workers_exit_within_s": took}


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


async def lc_017(folder: Path) -> Facts:
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))  # noqa: E731
    async with living.provider() as provider, serving(folder, living.config(provider.url), before=limit) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(call("m-r0"))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        lines, began, most = gateway.text.count("\n"), time.monotonic(), 0
        opened = []
        for _ in range(400):
            opened.append(await asyncio.open_connection("127.0.0.1", gateway.port))
            most = max(most, gateway.watched.num_fds())
        await asyncio.sleep(1)
        await gateway.logged()
        per_second = (gateway.text.count("\n") - lines) / (time.monotonic() - began)
        writer.write(call("m-r0"))
        await reader.readuntil(b'"usage"')
        existing = b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        for _, each in opened:
            each.close()
        took = await until(lambda: _is(gateway, KEY, 200), 5)
        writer.close()
        return {
            "existing_connections_work": existing,
            "log_lines_per_s_max": per_second,
            "recovers_within_s": took,
            "listener_stops_accepting": said("at max_connections before EMFILE", most < 120),
        }


async def lc_018(folder: Path) -> Facts:
    async with living.provider() as provider:
        config = living.config(provider.url, "slow-20", server={"max_connections": 100})
        async with serving(folder, config) as gateway:
            for _ in range(50):
                await status(gateway)

            async def crowd() -> list[Seen]:
                first = [asyncio.create_task(ask(gateway.port, call("slow-20"))) for _ in range(100)]
                await asyncio.sleep(0.7)
                rest = [asyncio.create_task(ask(gateway.port, call("m-r0"))) for _ in range(50)]
                return list(await asyncio.gather(*first, *rest))

            seen, told = await measured(gateway, crowd)
            answers = [each.responses[0] for each in seen]
            refused = all(each.status == 503 and each.header("retry-after") for each in answers[100:])
            prose = "wait in the accept queue or get 503 with Retry-After"
            return {
                "first_100_work": all(each.status == 200 for each in answers[:100]),
                "rest": said(prose, refused),
                "rss_growth_mib_max": told.growth_mib,
            }


async def _p99(gateway: Gateway) -> tuple[float, bool, float]:
    """How 150 requests a second fare for two seconds: p99, all well, longest wait of the loop."""
    crowd = Crowd(gateway, 150)

    async def act() -> None:
        async with crowd.around():
            await asyncio.sleep(2)

    _, told = await measured(gateway, act)
    return crowd.p99_ms, not crowd.failed, told.wait_ms


async def lc_019(folder: Path) -> Facts:
    async with living.provider() as provider:
        (folder / "calm").mkdir()
        async with serving(folder / "calm", living.config(provider.url)) as gateway:
            calm, _, _ = await _p99(gateway)
        config = living.config(provider.url, telemetry={"access_log": {"to": "/dev/full"}})
        async with serving(folder, config) as gateway:
            before = await metric(gateway, "log_lines_dropped_total")
            full, well, _ = await _p99(gateway)
            dropped = await metric(gateway, "log_lines_dropped_total") - before
            return {
                "requests_ok": well,
                "log_drop_metric": said("increases", dropped > 100),
                "latency_p99_ms_increase_max": full - calm,
            }


async def lc_020(folder: Path) -> Facts:
    unread, end = os.pipe()
    try:
        async with living.provider() as provider:
            async with serving(folder, living.config(provider.url), stdout=end) as gateway:
                for _ in range(200):  # 64 KiB and more of lines
                    await ask(gateway.port, call("m-r0"))
                _, well, longest = await _p99(gateway)
                return {"requests_ok": well, "loop_block_ms_max": longest}
    finally:
        os.close(unread)
        os.close(end)


async def lc_021(folder: Path) -> Facts:
    path = folder / "access.log"
    async with living.provider() as provider:
        config = living.config(provider.url, telemetry={"access_log": {"to": str(path)}})
        async with serving(folder, config) as gateway:
            crowd = Crowd(gateway, 100)
            async with crowd.around():
                for turn in range(5):
                    await asyncio.sleep(0.3)
                    path.rename(folder / f"access.{turn}")
                    gateway.process.send_signal(signal.SIGHUP)
            await gateway.logged()
            text = "".join(each.read_text() for each in folder.glob("access.*"))
            assert path.exists()
            return {"no_line_lost": text.count('"m-r0=200"') == crowd.made and not crowd.failed}


async def lc_027(folder: Path) -> Facts:
    async with living.provider() as provider:
        config = _faulty(provider.url, "sleeps")
        async with serving(folder, config, environ=living.faulty_plugin(folder)) as gateway:
            before = await metric(gateway, "loop_stalls_total")
            assert await status(gateway, "sleeps") == 200
            await gateway.logged()
            stalls = await metric(gateway, "loop_stalls_total") - before
            told = [line for line in gateway.lines if "stack" in line and "build_request" in str(line["stack"])]
            return {"watchdog_metric": said("increases", stalls >= 1), "stack_logged_once": len(told) == 1}


def _faulty(url: str, *models: str) -> dict[str, Any]:
    config = living.config(url)
    config["providers"]["faulty"] = {**openai(url), "type": "faulty"}
    config["deployments"] |= {model: deployment("faulty", model) for model in models}
    config["keys"]["tester"]["models"] += models
    return config


async def lc_028(folder: Path) -> Facts:
    models = ("raises-on-request", "raises-on-chunk", "raises-on-end")
    script = [{"t": "{{SSE}}"}, {"chunk": "{{D2}}"}, {"sleep": 0.1}, {"chunk": "{{D3}}"}, {"chunk": "{{FIN}}"}]
    script += [{"chunk": "{{DONE}}"}, {"end": True}]
    async with living.Planned(lambda each: script if each.model in models else [{"t": "{{OK}}"}]) as provider:
        environ = living.faulty_plugin(folder)
        async with serving(folder, _faulty(provider.url, *models), environ=environ) as gateway:
            first = (await ask(gateway.port, call("raises-on-request"))).responses[0]
            streams = [(await stream(gateway, model, 5.0)).responses[0] for model in models[1:]]
            told = all(each.streams and each.error and not each.complete for each in streams)
            broken = [each.connection for each in provider.arrivals]
            await gateway.logged()
            places = [line["error"] for line in gateway.lines if "failed inside" in line.get("message", "")]
            assert [place.partition(":")[0] for place in places] == ["RuntimeError at faulty.py"] * 3
            await asyncio.sleep(0.3)
            return {
                "status": [first.status],
                "in_stream": said("error_event", told),
                "other_requests_ok": await status(gateway) == 200,
                "upstream_connection_closed": all(each.closed.is_set() for each in broken),
            }


async def lc_029(folder: Path) -> Facts:
    async with living.provider() as provider:
        config = living.config(provider.url, "slow-5", server={"max_buffered": "100MiB"})
        async with serving(folder, config) as gateway:
            request = call("slow-5", user="x" * (4 << 20))
            room = asyncio.Semaphore(100)

            async def one() -> Seen:
                async with room:
                    return await ask(gateway.port, request, 30)

            async def crowd() -> list[Seen]:
                return list(await asyncio.gather(*(one() for _ in range(500))))

            seen, told = await measured(gateway, crowd)
            answers = [each.responses[0] for each in seen if each.responses]
            refused = [each for each in answers if each.status != 200]
            polite = all(each.status == 503 and each.header("retry-after") for each in refused)
            alive = await status(gateway) == 200 and told.growth_mib < 256
            return {
                "process_survives": alive,
                "excess": said("503 with Retry-After", polite and bool(refused) and len(answers) == 500),
            }


async def lc_030(folder: Path) -> Facts:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(10)
        environ = {"NOTIFY_SOCKET": str(folder / "notify")}
        async with living.provider() as provider:
            async with stopping(folder, living.config(provider.url), environ=environ) as gateway:
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
    name.upper().replace("_", "-"): function for name, function in list(globals().items()) if name.startswith("lc_")
}


def complaint(name: str, wanted: Any, got: Any) -> str:
    """A bound for names that set one, else the very same value."""
    bounded = "_max" in name or "_within_s" in name or name.startswith("added_latency")
    good = got != wanted if name.endswith("_not") else got <= wanted if bounded else got == wanted
    return "" if good else f"{name}: {got!r} instead of {wanted!r}"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", parameters([name for name in FILE if name in DRIVERS], SLOW.__contains__))
def test_a_process_lives_and_ends_in_order(case: str, tmp_path: Path) -> None:
    expect = FILE[case]["expect"]
    facts = asyncio.run(DRIVERS[case](tmp_path))
    assert not expect.keys() - facts.keys(), "unknown expectation"
    found = [complaint(name, wanted, facts[name]) for name, wanted in expect.items()]
    assert not any(found), f"{FILE[case]['title']}: {found}"
