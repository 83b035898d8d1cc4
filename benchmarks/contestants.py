"""Who is measured, and how each is started. Every one checks the client's key and puts the upstream's in its place."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).parent / "peers"
KEY, SECRET = "sk-benchmark-client", "sk-benchmark-upstream"
OPENAI_PATH = "/v1/chat/completions"
# Where a contestant that only passes bytes on is asked for a provider's own format.
PATHS = {
    "openai": OPENAI_PATH,
    "anthropic": "/v1/messages",
    "google": "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    "bedrock": "/model/claude/converse-stream",
}
MODELS = {"openai": "gpt-4o-mini"}


@dataclass(frozen=True, slots=True)
class Seat:
    """What a contestant gets: its port and folder, the upstream's port, `ca` when that speaks TLS, and its home."""

    port: int
    admin: int
    folder: Path
    upstream: int
    ca: Path | None = None
    home: Path | None = None

    @property
    def base(self) -> str:
        """The upstream's address."""
        return f"{'https' if self.ca else 'http'}://127.0.0.1:{self.upstream}"

    def fill(self, name: str, **more: str) -> Path:
        """A contestant's configuration, written into its folder."""
        text = (PEERS / name).read_text()
        values = {
            "port": str(self.port),
            "admin": str(self.admin),
            "folder": str(self.folder),
            "upstream": str(self.upstream),
            "scheme": "https" if self.ca else "http",
            "base": self.base,
            "key": KEY,
            "secret": SECRET,
            "digest": hashlib.sha256(KEY.encode()).hexdigest(),
            "tls": "",
            **more,
        }
        for placeholder, value in values.items():
            text = text.replace(f"<{placeholder}>", value)
        written = self.folder / name
        written.write_text(text)
        return written


Line = Callable[[Seat], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One that is measured. `needs`: programs and modules without which it is left out.

    `models`: the model that leads to each upstream format; a translator answers all of them in OpenAI's. `passes`: it
    can be asked for another format at that format's own path, and passes the bytes on as they are.
    """

    name: str
    title: str
    line: Line
    needs: Sequence[str] = ()
    models: Mapping[str, str] = field(default_factory=lambda: MODELS)
    passes: bool = True
    home: bool = False
    processes: int = 1
    environment: Callable[[Seat], Mapping[str, str]] = lambda seat: {}
    headers: Callable[[Seat, str], Mapping[str, str]] = lambda seat, wire: {}

    def missing(self, homes: Mapping[str, Path]) -> str:
        """Why it cannot be started here; empty when it can."""
        absent = [need for need in self.needs if not shutil.which(need) and not importlib.util.find_spec(need)]
        if absent:
            return f"{', '.join(absent)} not installed"
        return f"no --with {self.name}=FOLDER" if self.home and self.name not in homes else ""

    def path(self, wire: str) -> str | None:
        """Where to ask for an answer that comes in an upstream's format; None when it cannot."""
        if wire in self.models:
            return OPENAI_PATH
        return PATHS[wire] if self.passes else None

    def model(self, wire: str) -> str:
        """The model to ask for."""
        return self.models.get(wire, MODELS["openai"])


def _nginx(seat: Seat) -> list[str]:
    verify = f"proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_trusted_certificate {seat.ca};"
    return nginx(seat, "nginx.conf", tls=verify if seat.ca else "")


def nginx(seat: Seat, name: str, **more: str) -> list[str]:
    """nginx with a configuration, and without a trace outside its folder."""
    return ["nginx", "-p", str(seat.folder), "-e", "stderr", "-c", str(seat.fill(name, **more))]


def _haproxy(seat: Seat) -> list[str]:
    verify = f"ssl verify required verifyhost localhost ca-file {seat.ca}" if seat.ca else ""
    return ["haproxy", "-f", str(seat.fill("haproxy.cfg", tls=verify))]


def _sluiceway(seat: Seat, workers: int = 1) -> list[str]:
    trusted = f', ca_file: "{seat.ca}"' if seat.ca else ""
    path = seat.fill("sluiceway.yaml", tls=trusted, workers=str(workers))
    return [sys.executable, "-m", "gateway", "serve", "-c", str(path)]


def _two_workers(seat: Seat) -> list[str]:
    return _sluiceway(seat, 2)


def _plain(name: str) -> Line:
    def line(seat: Seat) -> list[str]:
        given = (str(seat.port), seat.base, KEY, SECRET, str(seat.ca or ""), str(seat.folder / "access.log"))
        return [sys.executable, str(PEERS / name), *given]

    return line


def _ferrogw(seat: Seat) -> list[str]:
    return [f"{seat.home}/bin/ferrogw"]


def _ferrogw_environment(seat: Seat) -> dict[str, str]:
    return {
        "GATEWAY_CONFIG": str(seat.fill("ferrogw.yaml")),
        "MASTER_KEY": KEY,
        "OPENAI_API_KEY": SECRET,
        "OPENAI_BASE_URL": f"{seat.base}/v1",
        "PORT": str(seat.port),
        "RATE_LIMIT_RPS": "0",
        "LOG_LEVEL": "error",
        "GOMAXPROCS": "1",
    }


def _litellm(seat: Seat) -> list[str]:
    config = str(seat.fill("litellm.yaml"))
    return [f"{seat.home}/bin/litellm", "--config", config, "--port", str(seat.port), "--host", "127.0.0.1"]


def _litellm_environment(seat: Seat) -> dict[str, str]:
    return {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}


def _portkey(seat: Seat) -> list[str]:
    server = f"{seat.home}/node_modules/@portkey-ai/gateway/build/start-server.js"
    return ["node", server, "--headless", f"--port={seat.port}"]


def _portkey_environment(seat: Seat) -> dict[str, str]:
    return {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "localhost,127.0.0.1"}


def _portkey_headers(seat: Seat, wire: str) -> dict[str, str]:
    return {"x-portkey-provider": wire, "x-portkey-custom-host": f"{seat.base}/v1"}


OURS = {"openai": "gpt-4o-mini", "anthropic": "claude", "google": "gemini", "bedrock": "nova"}
CONTESTANTS: Sequence[Contestant] = (
    Contestant(name="nginx", title="nginx", line=_nginx, needs=("nginx",)),
    Contestant(name="haproxy", title="HAProxy", line=_haproxy, needs=("haproxy",)),
    Contestant(name="sluiceway", title="Sluiceway", line=_sluiceway, models=OURS),
    Contestant(name="sluiceway-2", title="Sluiceway, 2 workers", line=_two_workers, models=OURS, processes=2),
    Contestant(name="aiohttp", title="plain aiohttp", line=_plain("plain_aiohttp.py"), needs=("aiohttp",)),
    Contestant(
        name="fastapi",
        title="FastAPI + httpx",
        line=_plain("plain_fastapi.py"),
        needs=("fastapi", "uvicorn", "httpx"),
    ),
    Contestant(
        name="ferrogw",
        title="ferrogw",
        line=_ferrogw,
        home=True,
        passes=False,
        environment=_ferrogw_environment,
    ),
    Contestant(
        name="portkey",
        title="Portkey",
        line=_portkey,
        needs=("node",),
        home=True,
        passes=False,
        models={"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5"},
        environment=_portkey_environment,
        headers=_portkey_headers,
    ),
    Contestant(
        name="litellm",
        title="LiteLLM",
        line=_litellm,
        home=True,
        passes=False,
        models={"openai": "gpt-4o-mini", "anthropic": "claude"},
        environment=_litellm_environment,
    ),
)
BY_NAME = {each.name: each for each in CONTESTANTS}
