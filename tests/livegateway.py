"""The real gateway for tests, in this process or in one of its own, and a client that shows an answer's very bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml
from upstreams import demo

from gateway.app import App
from gateway.config.loader import load
from gateway.config.plugins import Registry
from gateway.demo import Demo

ROOT = Path(__file__).resolve().parents[1]
PROVIDERS = ("openai", "azure", "together", "fireworks", "xai", "anthropic", "google", "bedrock")
TRANSLATED = ("anthropic", "google", "bedrock")
MODELS = {
    "openai": "gpt-4o-mini",
    "azure": "gpt-4o-mini-eu",
    "together": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "fireworks": "accounts/fireworks/models/deepseek-v3p1",
    "xai": "grok-4",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-flash",
    "bedrock": "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
}
# The deployments of the shipped gateway.yaml, one per provider.
SHIPPED = ("gpt", "gpt-eu", "llama", "deepseek", "grok", "claude", "gemini", "claude-aws")
HELLO = [{"role": "user", "content": "Hello!"}]
Document = dict[str, Any]


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def hashed(key: str) -> str:
    """A client key as the configuration keeps it."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `raw` is its body as it came, `body` without framing; `complete`: its framing came to its end."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    body: bytes
    complete: bool

    def json(self) -> Any:
        """The body's value."""
        return orjson.loads(self.body)

    @property
    def error(self) -> Any:
        """The error object."""
        return self.json()["error"]

    @property
    def payloads(self) -> list[bytes]:
        """The data of each event."""
        return [event[6:] for event in self.body.split(b"\n\n") if event.startswith(b"data: ")]

    @property
    def chunks(self) -> list[Any]:
        """The value of each event, the last `[DONE]` left out."""
        return [orjson.loads(payload) for payload in self.payloads if payload != b"[DONE]"]

    @property
    def done(self) -> bool:
        """Was it said that the stream is whole?"""
        return bool(self.payloads) and self.payloads[-1] == b"[DONE]"

    def text(self, index: int = 0) -> str:
        """What one choice said, streamed or not."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return str(self.json()["choices"][index]["message"]["content"])
        deltas = [
            choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", ()) if choice["index"] == index
        ]
        return "".join(delta.get("content") or "" for delta in deltas)


def read_reply(data: bytes) -> Reply:
    """Everything that a connection brought, as the answer that it is."""
    head, _, raw = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding") != "chunked":
        complete = len(raw) == int(headers.get("content-length", len(raw)))
        return Reply(int(lines[0].split()[1]), headers, raw, raw, complete)
    body, rest = b"", raw
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            return Reply(int(lines[0].split()[1]), headers, raw, body, rest == b"\r\n")
        body, rest = body + rest[:count], rest[count + 2 :]
    return Reply(int(lines[0].split()[1]), headers, raw, body, False)


def request_bytes(port: int, path: str, body: bytes | None, headers: Mapping[str, str], method: str = "") -> bytes:
    """A request whose answer ends with the connection, unless `headers` say otherwise."""
    lines = {"Host": f"127.0.0.1:{port}", "Connection": "close", **headers}
    if body is not None:
        lines = {"Content-Type": "application/json", "Content-Length": str(len(body)), **lines}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b"")


@dataclass
class Talk:
    """A connection on which an answer is read piece by piece."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seen: bytes = b""

    async def until(self, mark: bytes) -> bytes:
        """All bytes so far, once `mark` is among them."""
        while mark not in self.seen:
            piece = await self.reader.read(65536)
            if not piece:
                raise AssertionError(f"closed without {mark!r}: {self.seen[-300:]!r}")
            self.seen += piece
        return self.seen

    async def rest(self) -> Reply:
        """The whole answer, once the gateway has closed."""
        self.seen += await self.reader.read()
        self.writer.close()
        return read_reply(self.seen)

    def leave(self) -> None:
        """Go away without a word."""
        self.writer.transport.abort()


@dataclass
class Client:
    """Calls to one gateway."""

    port: int
    admin_port: int
    log_path: Path
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """What an official SDK takes as its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def open(self, body: bytes | Mapping[str, Any], **headers: str) -> Talk:
        """Send a chat request; nothing is read yet."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        talk = Talk(*await asyncio.open_connection("127.0.0.1", self.port))
        talk.writer.write(request_bytes(self.port, "/v1/chat/completions", raw, {**self.headers, **headers}))
        return talk

    async def chat(self, model: str, **body: Any) -> Reply:
        """A chat request's whole answer; `messages` default to a greeting."""
        return await self.post({"model": model, "messages": HELLO, **body})

    async def post(self, body: bytes | Mapping[str, Any], **headers: str) -> Reply:
        """A chat request with exactly this body."""
        return await (await self.open(body, **headers)).rest()

    async def get(self, path: str, method: str = "GET", port: int = 0, **headers: str) -> Reply:
        """The answer to a request without a body."""
        port = port or self.port
        talk = Talk(*await asyncio.open_connection("127.0.0.1", port))
        talk.writer.write(request_bytes(port, path, None, {**self.headers, **headers}, method))
        return await talk.rest()

    def log(self) -> list[dict[str, Any]]:
        """The lines that are written by now."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    async def logged(self, count: int, **wanted: Any) -> list[dict[str, Any]]:
        """The access lines that hold these values, as soon as there are so many."""
        async with asyncio.timeout(10):
            while True:
                lines = [line for line in self.log() if "path" in line and wanted.items() <= line.items()]
                if len(lines) >= count:
                    return lines
                await asyncio.sleep(0.02)


@dataclass
class Live(Client):
    """A gateway in this process."""

    app: Any = None
    task: asyncio.Task[int] | None = None
    path: Path = Path()

    @staticmethod
    def signal(number: int = signal.SIGTERM) -> None:
        """Send this process a signal, which the gateway's handlers take."""
        signal.raise_signal(number)


def accounts(upstream: Demo, *names: str) -> Document:
    """Provider entries that lead to the demo."""
    extra: Document = {"bedrock": {"region": "eu-central-1"}}
    return {
        name: {"type": name, "base_url": upstream.url(name), "api_key": "demo", **extra.get(name, {})}
        for name in names or PROVIDERS
    }


def deployments(**options: Any) -> Document:
    """One deployment per provider, named like it; `options` go into each."""
    return {name: {"provider": name, "model": model, **options} for name, model in MODELS.items()}


def document(folder: Path, content: Document) -> tuple[Document, Client]:
    """The content with free ports and a log in `folder`, and who calls it."""
    port = free_port()
    client = Client(port, free_port(), folder / f"access-{port}.log")
    places = {"listen": f"127.0.0.1:{client.port}", "admin": f"127.0.0.1:{client.admin_port}"}
    server = {**content.get("server", {}), **places}
    telemetry = {"access_log": {"format": "json", "to": str(client.log_path)}}
    return {"version": 1, "telemetry": telemetry, **content, "server": server}, client


def shipped() -> Document:
    """The repository's gateway.yaml with the demo on another port, and a failing deployment per kind of error."""
    text = (ROOT / "gateway.yaml").read_text()
    content: Document = yaml.safe_load(text.replace("127.0.0.1:4002", f"127.0.0.1:{free_port()}"))
    for switch in ("error400", "auth", "missing", "overloaded", "fail", "busy", "badgateway", "midstream", "context"):
        content["deployments"][switch] = {"provider": "openai", "model": f"demo-{switch}", "retry": {"attempts": 1}}
    return content


@asynccontextmanager
async def serving(folder: Path, content: Document) -> AsyncIterator[Live]:
    """The gateway under this configuration, started and drained as `sluiceway serve` does it."""
    whole, client = document(folder, content)
    path = folder / "gateway.yaml"
    path.write_text(json.dumps(whole))
    providers = Registry()
    loaded = load(str(path), os.environ, providers)
    assert loaded.config is not None, [str(finding) for finding in loaded.findings]
    app = App(loaded.config, loaded, lambda: load(str(path), os.environ, providers), providers)
    ready = asyncio.Event()
    task = asyncio.create_task(app.serve(lambda config: ready.set()))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
    try:
        yield Live(client.port, client.admin_port, client.log_path, {}, app, task, path)
    finally:
        if not task.done():
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                await task


@asynccontextmanager
async def gateway_and_demo(folder: Path, **content: Any) -> AsyncIterator[tuple[Live, Demo]]:
    """The gateway in front of the recording demo, with a deployment per provider unless `content` says otherwise."""
    async with demo() as upstream:
        base = {"providers": accounts(upstream), "deployments": deployments()}
        async with serving(folder, {**base, **content}) as live:
            yield live, upstream


@asynccontextmanager
async def gateway_before(folder: Path, url: str, **options: Any) -> AsyncIterator[Live]:
    """The gateway before one upstream of OpenAI's dialect; its only model is `m`, `options` are the deployment's."""
    content = options.pop("content", {})
    entry = {"provider": "up", "model": "upstream-model", **options}
    base = {"providers": {"up": {"type": "openai", "base_url": url, "api_key": "sk-up"}}, "deployments": {"m": entry}}
    async with serving(folder, {**base, **content}) as live:
        yield live


@dataclass
class Process(Client):
    """A gateway in a process of its own."""

    process: subprocess.Popen[str] = field(default=None)  # type: ignore[assignment]  # given by the maker
    path: Path = Path()

    def ready(self) -> bool:
        """Does the admin listener say so?"""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line, run to its end; `env` goes over a clean environment, `input` is standard input."""
    env = {**clean_environment(), **options.pop("env", {})}
    given = {"capture_output": True, "text": True, "timeout": 60, "cwd": ROOT, **options}
    line = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(line, env=env, check=False, **given)


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that the gateway reads; modules come from the checkout."""
    names = [name for name in os.environ if not name.endswith(("_API_KEY", "_TOKEN", "SLUICEWAY_CONFIG", "NO_COLOR"))]
    return {**{name: os.environ[name] for name in names}, "PYTHONPATH": str(ROOT)}


@contextmanager
def process(folder: Path, content: Document, arguments: Sequence[str] = ()) -> Iterator[Process]:
    """`sluiceway serve` under this configuration, ready; killed in the end if it still runs."""
    whole, client = document(folder, content)
    path = folder / "gateway.yaml"
    path.write_text(json.dumps(whole))
    line = [sys.executable, "-m", "gateway", "serve", "-c", str(path), *arguments]
    with (folder / "stderr").open("w") as talk:
        running = subprocess.Popen(line, env=clean_environment(), cwd=ROOT, stdout=talk, stderr=talk, text=True)
    found = Process(client.port, client.admin_port, client.log_path, {}, running, path)
    try:
        until = time.monotonic() + 20
        while not found.ready():
            assert running.poll() is None, (folder / "stderr").read_text()
            assert time.monotonic() < until, (folder / "stderr").read_text()
            time.sleep(0.02)
        yield found
    finally:
        if running.poll() is None:
            running.kill()
        running.wait(10)
