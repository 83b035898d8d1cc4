"""What the cases about a process's life have in common: streams of known length, many clients, reloads."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from faults.casefiles import call
from faults.planned import Arrival, Planned
from faults.serving import KEY, Gateway, deployment, openai, profile
from faults.wireclient import Seen, ask

EVENT = {"chunk": "{{D2}}"}
PAUSE = 0.1
STREAM = re.compile(r"s-(\d+)")
SLOW = re.compile(r"slow-(\d+)")


def provider() -> Planned:
    """`s-N` streams N events 100 ms apart, `slow-N` answers after N tenths of a second, any other at once."""
    return Planned(_answer)


def _answer(arrival: Arrival) -> list[dict[str, Any]]:
    if found := STREAM.fullmatch(arrival.model):
        events = [EVENT, {"sleep": PAUSE}] * int(found[1])
        return [{"t": "{{SSE}}"}, *events, {"chunk": "{{FIN}}"}, {"chunk": "{{DONE}}"}, {"end": True}]
    if found := SLOW.fullmatch(arrival.model):
        return [{"sleep": int(found[1]) / 10}, {"t": "{{OK}}"}]
    return [{"t": "{{OK}}"}]


def config(url: str, *models: str, **more: Any) -> dict[str, Any]:
    """The test profile with one provider and these models besides `m-r0`; a total time that no stream reaches."""
    names = ("m-r0", *models)
    made = profile({"a": openai(url)}, {name: deployment("a", name) for name in names}, **more)
    made["retry"]["timeouts"] = {**made["retry"]["timeouts"], "total": "300s"}
    return made


async def stream(gateway: Gateway, model: str, patience: float = 30.0, key: str = KEY) -> Seen:
    """A stream read to its end."""
    return await ask(gateway.port, call(model, stream=True, key=key), patience)


def whole(seen: Seen, events: int) -> bool:
    """Did every event and the end of the stream arrive?"""
    last = seen.last
    return last is not None and last.complete and last.events[-1:] == ["[DONE]"] and len(last.events) == events + 2


async def status(gateway: Gateway, model: str = "m-r0", key: str = KEY) -> int:
    """What a request is answered with; 0 where there is no answer."""
    try:
        last = (await ask(gateway.port, call(model, key=key), 5.0)).last
    except OSError:
        return 0
    return last.status if last else 0


@dataclass
class Crowd:
    """Requests at a steady rate. `failed` are those that got no 200."""

    gateway: Gateway
    rate: float = 50.0
    made: int = 0
    failed: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def around(self) -> Any:
        """The requests go on until the block ends."""
        over = asyncio.Event()
        task = asyncio.create_task(self._run(over))
        try:
            yield self
        finally:
            over.set()
            await task

    async def _run(self, over: asyncio.Event) -> None:
        began, calls = time.monotonic(), set()
        while not over.is_set():
            calls.add(asyncio.create_task(self._one()))
            await asyncio.sleep(max(0.0, began + len(calls) / self.rate - time.monotonic()))
        await asyncio.gather(*calls)

    async def _one(self) -> None:
        began = time.monotonic()
        got = await status(self.gateway)
        self.made += 1
        self.waits.append(time.monotonic() - began)
        if got != 200:
            self.failed.append(got)

    @property
    def p99_ms(self) -> float:
        return sorted(self.waits)[int(len(self.waits) * 0.99)] * 1000


async def until(claim: Callable[[], Any], seconds: float) -> float:
    """Seconds until the claim holds; it must within the limit."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        result = claim()
        if await result if asyncio.iscoroutine(result) else result:
            return time.monotonic() - began
        await asyncio.sleep(0.02)  # another process: there is nothing here to wait on
    raise AssertionError(f"it did not come about within {seconds} s")


async def metric(gateway: Gateway, part: str) -> float:
    """The sum of the series whose name has this part."""
    page = await gateway.page("/metrics")
    lines = [line for line in page.body.splitlines() if part in line and not line.startswith("#")]
    assert lines, f"no series has {part} in its name"
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def workers(gateway: Gateway) -> list[psutil.Process]:
    """The worker processes."""
    return [child for child in gateway.watched.children() if child.status() != psutil.STATUS_ZOMBIE]


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


def complaint(name: str, wanted: Any, got: Any) -> str:
    """A bound for names that set one, else the very same value."""
    bounded = "_max" in name or "_within_s" in name or name.startswith("added_latency")
    good = got != wanted if name.endswith("_not") else got <= wanted if bounded else got == wanted
    return "" if good else f"{name}: {got!r} instead of {wanted!r}"


FAULTY = """
import os
import time
from dataclasses import replace

from plugins.openai import PROVIDER as OPENAI

NATIVE = OPENAI.native["openai.chat"]


class Mender:
    def __init__(self, mender, model):
        self.mender, self.model, self.seen = mender, model, 0

    def chunk(self, payload):
        self.seen += 1
        if self.model == "raises-on-chunk" and self.seen > 1:
            raise RuntimeError("on purpose")
        return payload

    def body(self, body):
        return body

    def finish(self):
        if self.model == "raises-on-end":
            raise RuntimeError("on purpose")
        return []


def build_request(chat, target):
    if target.model == "raises-on-request":
        raise RuntimeError("on purpose")
    if target.model == "sleeps":
        time.sleep(2.5)
    return NATIVE.build_request(chat, target)


def open_mender(chat, target):
    return Mender(None, target.model)


PROVIDER = replace(
    OPENAI, name="faulty", native={"openai.chat": replace(NATIVE, build_request=build_request, open_mender=open_mender)}
)
if os.environ.get("FAULTY_WORKERS"):
    os.register_at_fork(after_in_child=lambda: os._exit(3))
"""


def faulty_plugin(folder: Path) -> dict[str, str]:
    """The environment in which the provider type `faulty` is installed."""
    site = folder / "site"
    info = site / "faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "faulty.py").write_text(FAULTY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gateway.providers]\nfaulty = faulty:PROVIDER\n")
    return {"PYTHONPATH": str(site)}
