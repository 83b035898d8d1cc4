"""A gateway process for tests of its life, an upstream that streams as long as a model's name says, and clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web
from livegateway import Reply, clean_environment, free_port, hashed, read_reply, request_bytes
from tasks import Tasks
from upstreams import OK_BODY, chunk, event

KEY, OTHER_KEY = "sk-gw-life-1", "sk-gw-life-2"
PACE = 0.1
START = 20.0


@dataclass
class Upstream:
    """Answers model `once` with a whole answer, `wait` never, and `sN` with a stream of N events, 100 ms apart."""

    port: int = 0
    served: int = 0
    keys: list[str] = field(default_factory=list)
    peers: set[Any] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def connections(self) -> int:
        """How many connections the gateway holds open."""
        return sum(1 for peer in self.peers if not peer.is_closing())

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        self.peers.add(request.transport)
        self.served += 1
        self.keys.append(request.headers.get("Authorization", ""))
        model = (await request.json())["model"]
        if model == "once":
            return web.Response(text=OK_BODY, content_type="application/json")
        if model == "wait":
            await asyncio.Event().wait()
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(int(model[1:])):
            await answer.write(event(chunk(content=f"{number} ")).encode())
            await asyncio.sleep(PACE)
        final = chunk()
        final["choices"][0]["finish_reason"] = "stop"
        await answer.write(event(final).encode() + b"data: [DONE]\n\n")
        return answer


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """The upstream, listening."""
    made = Upstream()
    server = web.Server(made.handle, handler_cancellation=True, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, backlog=1024)
    made.port = listener.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listener.close()
        await server.shutdown(0)


def content(url: str, **server: Any) -> dict[str, Any]:
    """gateway.yaml for the upstream at `url`; models `once`, `wait`, and streams of 15, 30 and 1000 events."""
    names = ("once", "wait", "s15", "s30", "s1000")
    return {
        "version": 1,
        "server": {"drain": "10s", **server},
        "providers": {"up": {"type": "openai", "base_url": url, "api_key": "sk-up"}},
        "deployments": {name: {"provider": "up", "model": name} for name in names},
        "keys": {"tester": {"hash": hashed(KEY)}},
    }


class Process:
    """A gateway process; `config` may be changed and written again."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self.port, self.admin = free_port(), free_port()
        places = {"listen": f"127.0.0.1:{self.port}", "admin": f"127.0.0.1:{self.admin}"}
        config["server"] = {**places, **config["server"]}
        self.file = folder / "gateway.yaml"
        self.process: subprocess.Popen[bytes]

    def write(self, text: str | None = None) -> None:
        """Put the configuration, or a text, in place of the file at once."""
        fresh = self.file.with_suffix(".new")
        fresh.touch(0o600)
        fresh.write_text(json.dumps(self.config) if text is None else text)
        fresh.replace(self.file)

    def start(self, environ: Mapping[str, str] | None = None, **options: Any) -> None:
        """Start it on the file as it is."""
        given = {"stdout": (self.folder / "out").open("ab"), "stderr": (self.folder / "err").open("ab"), **options}
        line = options.pop("line", None) or [sys.executable, "-m", "gateway", "serve", "-c", str(self.file)]
        given.pop("line", None)
        env = {**clean_environment(), **(environ or {})}
        self.process = subprocess.Popen(line, env=env, cwd=Path(__file__).resolve().parents[1], **given)
        for stream in ("stdout", "stderr"):
            if stream not in options:
                given[stream].close()

    async def ready(self) -> None:
        """Wait until the admin listener says so."""
        until = time.monotonic() + START
        while await self.readiness() != 200:
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < until, self.stderr
            await asyncio.sleep(0.02)

    async def readiness(self) -> int:
        """The status of /readyz; 0 while nobody listens."""
        try:
            return (await get(self.admin, "/readyz")).status
        except OSError:
            return 0

    async def vitals(self) -> dict[str, float]:
        """The figures on /metrics."""
        lines = (await get(self.admin, "/metrics")).body.decode().splitlines()
        return {line.split()[0].removeprefix("sluiceway_"): float(line.split()[1]) for line in lines if line[0] != "#"}

    async def until(self, claim: Callable[[dict[str, float]], bool], seconds: float = 10.0) -> float:
        """Wait until the figures satisfy the claim; returns after how long they did."""
        began = time.monotonic()
        while not claim(vitals := await self.vitals()):
            assert time.monotonic() - began < seconds, vitals
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def gone(self, seconds: float) -> int:
        """The exit code of a process that ends within so many seconds."""
        return await asyncio.to_thread(self.process.wait, seconds)

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that it started."""
        return psutil.Process(self.process.pid).children()

    @property
    def stderr(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in (self.folder / "out").read_text().splitlines()]

    @property
    def news(self) -> list[dict[str, Any]]:
        """What the gateway said about itself."""
        return [line for line in self.lines if "message" in line]

    async def said(self, words: str) -> dict[str, Any]:
        """Wait until the log says something with these words."""
        await holds(lambda: any(words in line["message"] for line in self.news))
        return next(line for line in self.news if words in line["message"])

    async def chat(self, model: str = "once", key: str = KEY) -> Reply:
        """One request on a connection of its own, to its end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        return await converse(reader, writer, self.port, model, key)


async def holds(claim: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the claim holds; what is waited for happens in another process."""
    until = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < until
        await asyncio.sleep(0.02)


async def converse(reader: Any, writer: Any, port: int, model: str, key: str = KEY, **headers: str) -> Reply:
    """A request on an open connection, and everything that comes until it is closed."""
    try:
        writer.write(asking(port, model, key, **headers))
        return read_reply(await reader.read())
    finally:
        writer.close()


def asking(port: int, model: str, key: str = KEY, **headers: str) -> bytes:
    """The bytes of a request."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "stream": model[0] == "s"}
    given = {"Authorization": f"Bearer {key}", **headers}
    return request_bytes(port, "/v1/chat/completions", json.dumps(body).encode(), given)


async def get(port: int, path: str) -> Reply:
    """The answer of a listener to a GET."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request_bytes(port, path, None, {}))
        return read_reply(await reader.read())
    finally:
        writer.close()


@asynccontextmanager
async def running(folder: Path, config: dict[str, Any], **options: Any) -> AsyncIterator[Process]:
    """A process that is ready; killed in the end, with its workers, if it still runs."""
    made = Process(folder, config)
    made.write()
    made.start(**options)
    try:
        await made.ready()
        yield made
    finally:
        end(made)


def end(made: Process) -> None:
    """Kill what still runs."""
    if made.process.poll() is None:
        for each in [*made.workers, psutil.Process(made.process.pid)]:
            each.kill()
    made.process.wait(10)


class Load:
    """Requests at a steady rate, each on a connection of its own; `failed` tells those that did not end well."""

    def __init__(self, target: Callable[[], Any], rate: float, tolerate: Sequence[type[Exception]] = ()) -> None:
        self._target = target
        self._rate = rate
        self.done = 0
        self.failed: list[object] = []
        self.waits: list[float] = []
        self._tasks = Tasks()
        self._driver: asyncio.Task[None]

    async def __aenter__(self) -> Load:
        self._driver = asyncio.create_task(self._drive())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._driver.cancel()
        await self._tasks.finish()

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while True:
            while sent < (loop.time() - began) * self._rate:
                sent += 1
                self._tasks.start(self._one())
            await asyncio.sleep(0.005)

    async def _one(self) -> None:
        began = time.monotonic()
        try:
            reply = await self._target()
        except (OSError, AssertionError, ValueError, IndexError) as error:
            self.failed.append(repr(error))
            return
        self.waits.append(time.monotonic() - began)
        if (reply.status, reply.complete) == (200, True):
            self.done += 1
        else:
            self.failed.append((reply.status, reply.body[:200]))


def listening(name: str = "http", port: int = 0) -> socket.socket:
    """A listening socket as systemd would open it."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen(4096)
    return made


# Puts a socket at descriptor 3 and this process's number into the environment, then becomes the gateway.
ACTIVATE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES=sys.argv[2]); "
    "os.execv(sys.executable, [sys.executable, '-m', 'gateway', 'serve', '-c', sys.argv[3]])"
)


def activated(made: Process, opened: socket.socket, name: str = "http") -> dict[str, Any]:
    """Options of `start` that pass a socket as systemd does."""
    fd = opened.fileno()
    return {"line": [sys.executable, "-c", ACTIVATE, str(fd), name, str(made.file)], "pass_fds": (fd,)}


def plugin(folder: Path, name: str, source: str) -> dict[str, str]:
    """The environment in which the plugin `name` with this source is known."""
    (folder / f"{name}.py").write_text(source)
    (folder / "sitecustomize.py").write_text(f"import plugins\nplugins.__path__.append({str(folder)!r})\n")
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(Path(__file__).resolve().parents[1])))}
