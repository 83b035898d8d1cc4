"""The real gateway between a provider and clients that are many, slow, or gone: what it holds before and after."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop
from faults.serving import KEY, ROOT, Gateway, deployment, openai, profile

HERE = Path(__file__).parent
MODES = ("quick", "silent", "headed", "half", "trickle", "tick", "flood", "big", "late", "break")
MIB = 1024 * 1024


@dataclass(frozen=True)
class Holds:
    """What the gateway process held at one moment; `lag` is since the moment before."""

    tasks: int
    objects: dict[str, int]
    sums: dict[str, int]
    lag: dict[str, float]
    descriptors: int
    rss: int
    upstream: Mapping[str, int]

    @property
    def own_descriptors(self) -> int:
        """Descriptors without those of idle connections to the provider, which are kept for the next request."""
        return self.descriptors - self.upstream["open"]

    @property
    def alive(self) -> dict[str, int]:
        """What lives as long as a request or a connection, and is to be gone with it."""
        passing = ("Call", "Pump", "FastClient", "Client", "Parsed", "Envelope", "Passthrough", "Collector", "Tries")
        return {name: self.objects.get(name, 0) for name in passing} | {
            name: self.sums.get(name, 0) for name in ("ledger", "active", "waiting", "retries")
        }


class Provider:
    """provider.py, running."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, str(HERE / "provider.py")], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    async def seen(self) -> dict[str, int]:
        """What it tells, this question's own connection left out."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        told: dict[str, int] = json.loads(await reader.readexactly(int(head.rpartition(b": ")[2])))
        writer.close()
        return {**told, "open": told["open"] - 1}

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


class Watched(Gateway):
    """A gateway process that tells what it holds."""

    def __init__(self, folder: Path, config: Mapping[str, Any], provider: Provider) -> None:
        super().__init__(folder, config)
        self.provider = provider
        self._told = folder / "held.json"

    def start(
        self, environ: Mapping[str, str] | None = None, before: Callable[[], None] | None = None, stdout: Any = None
    ) -> None:
        """Start the process, without waiting for it."""
        line = [sys.executable, str(HERE / "watched.py"), str(self._told), "serve", "-c", str(self.file)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=stdout or out, stderr=err, cwd=ROOT, env=env
            )
        self.watched = psutil.Process(self.process.pid)

    async def holds(self) -> Holds:
        """Ask now."""
        self._told.unlink(missing_ok=True)
        upstream = await self.provider.seen()
        self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(20):
            while not self._told.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # another process: there is nothing here to wait on
        told = json.loads(self._told.read_text())
        return Holds(**told, descriptors=self.watched.num_fds(), rss=self.watched.memory_info().rss, upstream=upstream)

    async def at_rest(self, seconds: float = 10.0) -> Holds:
        """What it holds when nothing is under way, asked twice: connections that were closed take a moment to be gone.

        What is not gone after so many seconds is in the answer.
        """
        await self.calm(seconds)
        until = time.monotonic() + seconds
        descriptors = -1
        while True:
            first = await self.provider.seen()
            found = await self.holds()
            still = first["open"] == (await self.provider.seen())["open"] and descriptors == found.own_descriptors
            if (still and not any(found.alive.values())) or time.monotonic() > until:
                return found
            descriptors = found.own_descriptors
            await asyncio.sleep(0.1)

    async def calm(self, seconds: float = 5.0) -> None:
        """Wait until no request is under way, here and at the provider."""
        async with asyncio.timeout(seconds):
            while (await self.provider.seen())["busy"] or await self.vital("requests_active"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def vital(self, name: str) -> float:
        """One figure of the admin listener."""
        page = await self.page("/metrics")
        return next(float(line.split()[1]) for line in page.body.splitlines() if line.startswith(f"sluiceway_{name} "))

    @property
    def access(self) -> list[dict[str, Any]]:
        """The log's lines about requests."""
        return [line for line in self.lines if "path" in line]


@contextlib.asynccontextmanager
async def soaking(folder: Path, **more: Any) -> AsyncIterator[Watched]:
    """A gateway that is ready, before a provider with every mode as a model; in the end it must go without a word."""
    provider = Provider()
    options = more.pop("deployment", {})
    deployments = {name: deployment("up", name, **options) for name in MODES}
    gateway = Watched(
        folder, profile({"up": openai(f"http://127.0.0.1:{provider.port}")}, deployments, **more), provider
    )
    gateway.start()
    try:
        await gateway.ready()
        yield gateway
        assert gateway.process.poll() is None, f"the gateway died: {gateway.noise}"
        code = await gateway.end()
        assert code == 0, f"exit code {code}: {gateway.noise}"
        assert gateway.noise == ""
    finally:
        if gateway.process.poll() is None:
            await gateway.end(signal.SIGKILL)
        provider.end()


def request(
    gateway: Gateway, model: str, *, stream: bool, events: int = 5, pad: int = 0, chunked: bool = False
) -> bytes:
    """A chat request's bytes."""
    messages = [{"role": "user", "content": "Hello!" + "x" * pad}]
    body = orjson.dumps({"model": model, "stream": stream, "max_tokens": events, "messages": messages})
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\n{length}\r\n\r\n"
    )
    return head.encode() + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body)


def many_descriptors() -> int:
    """Raise this process's limit as far as it goes, for children too; returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def run(main: Any) -> Any:
    """Run a test's coroutine; the clients' own cost would else be part of what is measured."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@contextlib.contextmanager
def took(name: str) -> Iterator[None]:
    """Print how long a part took."""
    began = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - began:.1f} s")


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0
