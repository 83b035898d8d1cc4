"""A configuration that changes under load: for the better, for the worse, half written."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import living
from faults.living import Crowd, Facts, metric, said, status, stream, until, whole
from faults.serving import KEY, Gateway, serving
from livegateway import hashed


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
            took = await until(lambda: has_status(gateway, KEY, 401), 5)
            assert await status(gateway, key="sk-gw-second") == 200
            return {"K1_rejected_within_s": took, "streams_of_K1": said("finish", whole(await running, 15))}


async def has_status(gateway: Gateway, key: str, wanted: int) -> bool:
    return await status(gateway, key=key) == wanted


async def lc_011(folder: Path) -> Facts:
    async with (
        living.provider() as first,
        living.provider() as second,
        serving(folder, living.config(first.url)) as gateway,
    ):
        assert await status(gateway) == 200
        before = gateway.watched.num_fds()
        await _reloaded(gateway, living.config(second.url))
        seen = len(first.arrivals)
        assert await status(gateway) == 200
        took = await until(lambda: all(each.closed.is_set() for each in first.connections), 21)
        await asyncio.sleep(0.2)
        return {
            "new_requests": "B" if len(first.arrivals) == seen and second.arrivals else "A",
            "old_pool_closed_within_s": took,
            "fd_leak": max(0, gateway.watched.num_fds() - before),
        }


def _texts(folder: Path) -> str:
    """What the log files have together, the one in use included."""
    assert (folder / "access.log").exists()
    return "".join(each.read_text() for each in folder.glob("access.*"))


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
            text = _texts(folder)
            return {"no_line_lost": text.count('"m-r0=200"') == crowd.made and not crowd.failed}
