"""Other people's clients, pointed at the gateway as docs/clients.md says: its blocks are run as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from livegateway import HELLO, ROOT, SHIPPED, Process, free_port, process, shipped

GUIDE = ROOT / "docs" / "clients.md"
# Installs clients, and starts one per model: some seconds each.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ADDRESS = "127.0.0.1:4000"
SAID = r"demo\s+upstream\s+of\s+Sluiceway\s+speaking\s+for"
# One that is passed through and one of each that is translated.
MODELS = ("gpt", "claude", "gemini", "claude-aws")


def block(heading: str) -> tuple[str, str]:
    """The language and the text of the first block under a heading of the guide."""
    section = GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"^```(\w+)\n(.*?)^```", section, re.M | re.S)
    assert found, f"{GUIDE.name} has no block under '{heading}'"
    return found[1], found[2]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(tmp_path_factory.mktemp("gateway"), shipped()) as running:
        yield running


class Clients:
    """Runs blocks of the guide with what is installed in a folder."""

    def __init__(self, folder: Path, gateway: Process) -> None:
        self.folder = folder
        self._gateway = gateway
        self._bin = [str(folder / "bin")]

    def run(self, heading: str, model: str) -> str:
        """What a block prints when it asks for this model."""
        line, environ = self.prepared(heading, model)
        told = subprocess.run(
            line, cwd=self.folder, env=environ, check=False, capture_output=True, text=True, timeout=120
        )
        assert told.returncode == 0, told.stdout + told.stderr
        return told.stdout

    def prepared(self, heading: str, model: str) -> tuple[list[str], dict[str, str]]:
        """The command that runs a block, and its environment."""
        language, text = block(heading)
        assert ADDRESS in text
        text = text.replace(ADDRESS, f"127.0.0.1:{self._gateway.port}")
        text = re.sub(r"""(?<=["'/ ])gpt(?=["'\s])""", model, text)
        line = {
            "python": [self._found("python"), "-c", text],
            "js": ["node", "--input-type=module", "-e", text],
            "sh": ["bash", "-euo", "pipefail", "-c", text],
        }[language]
        environ = {
            **{name: value for name, value in os.environ.items() if "_API_" not in name and name != "PYTHONPATH"},
            "PATH": os.pathsep.join([*self._bin, os.environ["PATH"]]),
            "HOME": str(self.folder),
            "LLM_USER_PATH": str(self.folder),
        }
        return line, environ

    def _found(self, program: str) -> str:
        own = self.folder / "bin" / program
        return str(own) if own.exists() else sys.executable


def from_pypi(folder: Path, package: str) -> None:
    """An environment with a package; skips where it cannot be had."""
    venv.create(folder, with_pip=True)
    line = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", package]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"pip could not install {package}: {done.stderr[-300:]}")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, gateway: Process) -> Clients:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    line = ["npm", "install", "--no-audit", "--no-fund", "--silent", "openai@6", "ai@6", "@ai-sdk/openai-compatible@2"]
    done = subprocess.run(line, cwd=folder, check=False, capture_output=True, text=True, timeout=200)
    if done.returncode:
        pytest.skip(f"npm could not install the clients: {done.stderr[-300:]}")
    return Clients(folder, gateway)


@pytest.mark.parametrize("model", SHIPPED)
def test_curl_is_answered(tmp_path: Path, gateway: Process, model: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    said = Clients(tmp_path, gateway).run("curl", model)
    assert said.count("data: {") > 2
    assert said.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("model", MODELS)
def test_openai_for_python_is_answered(tmp_path: Path, gateway: Process, model: str) -> None:
    pytest.importorskip("openai")
    assert re.search(SAID, Clients(tmp_path, gateway).run("openai (Python)", model))


@pytest.mark.parametrize("heading", ["openai (Node)", "Vercel AI SDK"])
@pytest.mark.parametrize("model", MODELS)
def test_clients_for_node_are_answered(node: Clients, heading: str, model: str) -> None:
    assert re.search(SAID, node.run(heading, model))


def test_langchain_is_answered(tmp_path: Path, gateway: Process) -> None:
    from_pypi(tmp_path, "langchain-openai>=1.7,<2")
    for model in MODELS:
        assert re.search(SAID, Clients(tmp_path, gateway).run("LangChain", model))


def test_llm_is_answered(tmp_path: Path, gateway: Process) -> None:
    from_pypi(tmp_path, "llm>=0.36,<1")
    for model in MODELS:
        assert re.search(SAID, Clients(tmp_path, gateway).run("llm", model))


def test_aider_is_answered(tmp_path: Path, gateway: Process) -> None:
    if shutil.which("aider") is None:
        pytest.skip("aider is not installed (PyPI: aider-chat)")
    assert re.search(SAID, Clients(tmp_path, gateway).run("aider", "claude"))


def test_open_webui_is_answered(tmp_path: Path, gateway: Process) -> None:
    if shutil.which("open-webui") is None:
        pytest.skip("open-webui is not installed")
    line, environ = Clients(tmp_path, gateway).prepared("Open WebUI", "gpt")
    port = free_port()
    line[-1] = line[-1].replace("8080", str(port))
    # A first start without an account, without models of its own and without a look at the network.
    own = {"WEBUI_AUTH": "false", "RAG_EMBEDDING_ENGINE": "openai", "OFFLINE_MODE": "true", "HF_HUB_OFFLINE": "1"}
    environ |= {"DATA_DIR": str(tmp_path), "WEBUI_SECRET_KEY": "a-secret-of-the-test", **own}
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(line, cwd=tmp_path, env=environ, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}/api"
        until = time.monotonic() + 200
        while not asked(f"{address}/models", "") and time.monotonic() < until:
            assert running.poll() is None, (tmp_path / "log").read_text()[-2000:]
            time.sleep(1)
        token = json.loads(asked(f"{address}/v1/auths/signin", "", {"email": "", "password": ""}))["token"]
        listed = json.loads(asked(f"{address}/models", token))
        assert set(SHIPPED) <= {model["id"] for model in listed["data"]}
        for model in MODELS:
            body = {"model": model, "stream": True, "messages": HELLO}
            said = asked(f"{address}/chat/completions", token, body)
            assert said.rstrip().endswith("data: [DONE]")
    finally:
        running.terminate()
        running.wait(30)


def asked(url: str, token: str, body: object = None) -> str:
    """What a server answers; nothing while there is none."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


def test_every_client_of_the_guide_is_tried() -> None:
    headings = re.findall(r"^## (.*)$", GUIDE.read_text(), re.M)
    tests = Path(__file__).read_text()
    assert [heading for heading in headings if f'"{heading}"' not in tests] == []
