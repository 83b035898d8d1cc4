"""The real gateway as a process of its own: started on free ports, watched, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from livegateway import free_port, hashed

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-gw-client-7d1e40c2b95f4a0a8a6f4c1d"
KEY_A_ONLY = "sk-gw-single-51c0ffee2a7b4d919f3e8a60"
PROVIDER_KEY = "sk-prov-3c9d1f7ab2e84d55a0c6"
PROVIDER_KEY_B = "sk-prov-b-81f2e6d40c7a49b3"
AWS_KEY, AWS_SECRET = "AKIDFAULTS0EXAMPLE00", "c2VjcmV0LWZvci10aGUtZmF1bHRz"
SECRETS = (KEY, KEY_A_ONLY, PROVIDER_KEY, PROVIDER_KEY_B, AWS_SECRET)
TIMEOUTS = {"connect": "1s", "first_byte": "2s", "idle": "2s", "total": "10s"}
START, STOP = 20.0, 20.0


def openai(url: str, **options: Any) -> dict[str, Any]:
    """A provider entry that speaks OpenAI's dialect."""
    return {"type": "openai", "base_url": f"{url}/v1", "api_key": PROVIDER_KEY, **options}


def deployment(provider: str, model: str, **options: Any) -> dict[str, Any]:
    """A deployment with the size limits of the test profile."""
    return {"provider": provider, "model": model, "max_event": "1MiB", "max_response": "32MiB", **options}


def profile(
    providers: Mapping[str, Any], deployments: Mapping[str, Any], forbidden: Iterable[str] = (), **more: Any
) -> dict[str, Any]:
    """gateway.yaml with the test profile's values; the one key may call everything but `forbidden`."""
    server = {"max_body": "20MiB", "drain": "10s", "write_timeout": "5s", **more.pop("server", {})}
    names = [name for name in (*deployments, *more.get("routings", {})) if name not in forbidden]
    return {
        "version": 1,
        "server": server,
        "providers": dict(providers),
        "deployments": dict(deployments),
        "retry": {"attempts": 1, "timeouts": TIMEOUTS},
        "keys": {"tester": {"hash": hashed(KEY), "models": names}},
        **more,
    }


class Page(NamedTuple):
    """What the admin listener answered."""

    status: int
    body: str


class Gateway:
    """A gateway process. `log` is its standard output, `noise` what it wrote to standard error after its greeting."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.port, self.admin = free_port(), free_port()
        self.file = folder / "gateway.yaml"
        self._out, self._err = folder / "out", folder / "err"
        self._greeting = 0
        self.write(config)
        self.process: subprocess.Popen[bytes]
        self.watched: psutil.Process

    def write(self, config: Mapping[str, Any]) -> None:
        """Put a configuration in place of the file, at once."""
        server = {**config["server"], "listen": f"127.0.0.1:{self.port}", "admin": f"127.0.0.1:{self.admin}"}
        fresh = self.file.with_suffix(".new")
        fresh.touch(0o600)
        fresh.write_text(json.dumps({**config, "server": server}, indent=1))  # JSON is YAML
        fresh.replace(self.file)

    def start(
        self, environ: Mapping[str, str] | None = None, before: Callable[[], None] | None = None, stdout: Any = None
    ) -> None:
        """Start the process, without waiting for it."""
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", "-c", str(self.file)],
                stdin=subprocess.DEVNULL,
                stdout=stdout or out,
                stderr=err,
                cwd=ROOT,
                env={**os.environ, **(environ or {})},
                preexec_fn=before,  # noqa: PLW1509 - it only sets limits
            )
        self.watched = psutil.Process(self.process.pid)

    async def ready(self) -> None:
        """Wait until it says that it serves."""
        until = time.monotonic() + START
        while b"-d '" not in self._err.read_bytes():
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the gateway did not start: {self.stderr}")
            await asyncio.sleep(0.02)  # another process: there is nothing here to wait on
        self._greeting = len(self._err.read_bytes())

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop, and wait for its exit code; it is killed when it does not go."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return await asyncio.to_thread(self.process.wait, STOP)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    @property
    def stderr(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def noise(self) -> str:
        return self._err.read_bytes()[self._greeting :].decode(errors="replace")

    @property
    def text(self) -> str:
        """Everything that it has logged."""
        return self._out.read_text(errors="replace")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log's lines; every one must be JSON."""
        return [json.loads(line) for line in self._out.read_bytes().splitlines()]

    async def logged(self) -> None:
        """Wait until what has happened stands in the log, which is written four times a second."""
        await asyncio.sleep(0.4)

    async def page(self, path: str) -> Page:
        """Ask the admin listener."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.admin}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            return Page(int(head.split()[1]), body)
        finally:
            writer.close()

    async def series(self) -> int:
        """How many time series the admin listener shows."""
        page = await self.page("/metrics")
        return sum(1 for line in page.body.splitlines() if line[:1] not in ("", "#")) if page.status == 200 else 0


@contextlib.asynccontextmanager
async def serving(folder: Path, config: Mapping[str, Any], **how: Any) -> AsyncIterator[Gateway]:
    """A gateway that is ready; at the end it must go at SIGTERM with exit code 0 and without a word on stderr."""
    gateway = Gateway(folder, config)
    gateway.start(**how)
    try:
        await gateway.ready()
        yield gateway
    except BaseException:
        await gateway.end(signal.SIGKILL)
        raise
    assert gateway.process.poll() is None, f"the gateway died: {gateway.noise}"
    code = await gateway.end()
    assert code == 0, f"exit code {code}: {gateway.noise}{gateway.text[-500:]}"
    assert gateway.noise == ""
