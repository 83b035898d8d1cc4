"""Workers that die, descriptors, disks and readers that give out, plugins that raise."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import psutil
from faults import living
from faults.casefiles import call
from faults.judging import headers_of
from faults.living import Crowd, Facts, gone, metric, said, status, stopping, stream, until, whole, workers
from faults.measuring import measured
from faults.planned import Arrival, Planned
from faults.reloads import has_status
from faults.serving import AWS_KEY, AWS_SECRET, KEY, Gateway, deployment, openai, serving
from faults.test_model_names import CONVERSE
from faults.wireclient import Seen, ask
from upstreams import answer


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
    async with (
        living.provider() as provider,
        stopping(folder, living.config(provider.url, server={"workers": 2})) as gateway,
    ):
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
        took = await until(lambda: has_status(gateway, KEY, 200), 5)
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
        async with living.provider() as provider, serving(folder, living.config(provider.url), stdout=end) as gateway:
            for _ in range(200):  # 64 KiB and more of lines
                await ask(gateway.port, call("m-r0"))
            _, well, longest = await _p99(gateway)
            return {"requests_ok": well, "loop_block_ms_max": longest}
    finally:
        os.close(unread)
        os.close(end)


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


async def lc_023(folder: Path) -> Facts:
    """The provider's clock is an hour ahead of ours; it says so in the Date of its refusal."""
    theirs = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    refused = answer(
        '{"message": "Signature expired: 20260101T000000Z is now earlier than 20260101T005500Z"}',
        "403 Forbidden",
        X_Amzn_ErrorType="InvalidSignatureException",
        Date=format_datetime(theirs, usegmt=True),
    )

    def serve(arrival: Arrival) -> list[dict[str, Any]]:
        signed = datetime.strptime(headers_of(arrival.raw)["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return [{"t": answer(CONVERSE) if abs(signed - theirs) < timedelta(minutes=5) else refused}]

    async with Planned(serve) as provider:
        config = living.config(provider.url)
        aws = {"access_key_id": AWS_KEY, "secret_access_key": AWS_SECRET, "region": "us-east-1"}
        config["providers"] = {"a": {"type": "bedrock", "base_url": provider.url, **aws}}
        config["deployments"] = {"m-r0": deployment("a", "anthropic.claude-3-5-sonnet-20241022-v2:0")}
        async with serving(folder, config) as gateway:
            served = await status(gateway) == 200
            return {"one_retry_with_corrected_clock": served and len(provider.arrivals) == 2}
