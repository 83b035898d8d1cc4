"""What is handed out is whole: the source archive, the wheel, and what an empty environment becomes by it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from livegateway import HELLO, free_port

from gateway import __version__
from gateway.config.plugins import BUILT_IN

ROOT = Path(__file__).resolve().parents[1]
# Builds archives and fills an environment: half a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

NOT_HANDED_OUT = ("__pycache__", "node_modules", ".*", "build", "dist", "*.egg-info")
PACKAGES = ("gateway", "plugins")
BESIDE = ("README.md", "CHANGELOG.md", "LICENSE", "gateway.yaml", "gateway.schema.json", "Makefile", "MANIFEST.in")
MOST_PACKAGES = 18


def tree(*folders: str) -> set[str]:
    """The files of these folders of the project."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def done(*line: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command, run to its end outside the checkout."""
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "SLUICEWAY_CONFIG"}}
    words = [str(word) for word in line]
    return subprocess.run(words, env=environ, cwd=cwd, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("package")
    # A copy: what a build leaves behind would be taken for a part of the project.
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(*NOT_HANDED_OUT))
    built = done(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "tree")
    if built.returncode and re.search("No module named build|Could not find a version", built.stdout + built.stderr):
        pytest.skip("what builds a wheel is neither installed nor to be had: setuptools and build")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def names(archives: Path) -> set[str]:
    """What the wheel holds."""
    return set(zipfile.ZipFile(next(archives.glob("*.whl"))).namelist())


@pytest.fixture(scope="module")
def installed(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    fetched = done(folder / "bin" / "pip", "install", "--quiet", next(archives.glob("*.whl")))
    if fetched.returncode:
        pytest.skip(f"no package index: {fetched.stderr[-300:]}")
    return folder


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(names: set[str]) -> None:
    own = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    assert own == tree(*PACKAGES)
    assert {"gateway/py.typed", "plugins/py.typed", "gateway/status.html", "gateway/demo/gateway.yaml"} <= own


def test_the_wheel_brings_what_it_takes_to_deploy(names: set[str]) -> None:
    share = f"sluiceway-{__version__}.data/data/share/sluiceway/"
    assert {name.removeprefix(share) for name in names if name.startswith(share)} == {
        Path(name).name for name in tree("deploy")
    }


def test_the_wheel_names_its_command_and_its_providers(archives: Path, names: set[str]) -> None:
    (place,) = (name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(next(archives.glob("*.whl"))).read(place).decode()
    assert "sluiceway = gateway.__main__:main" in text
    assert set(re.findall(r"^(\w+) = plugins\.\1:PROVIDER$", text, re.M)) == set(BUILT_IN)


def test_the_source_archive_holds_the_project(archives: Path) -> None:
    with tarfile.open(next(archives.glob("*.tar.gz"))) as packed:
        held = {name.partition("/")[2] for name in packed.getnames()}
    assert tree(*PACKAGES, "docs", "deploy") | set(BESIDE) <= held
    assert {name for name in tree("tests") if "node_modules" not in name and "/." not in name} <= held
    assert not [name for name in held if re.search(r"__pycache__|\.pyc$|\.venv|\.git/", name)]


def test_an_installation_asks_for_few_packages(installed: Path) -> None:
    told = json.loads(done(installed / "bin" / "pip", "list", "--format", "json").stdout)
    packages = sorted(each["name"] for each in told if each["name"] not in {"pip", "setuptools"})
    assert "sluiceway" in packages
    assert len(packages) <= MOST_PACKAGES, packages


def test_what_is_installed_tells_its_version_and_explains(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "sluiceway"
    assert done(command, "--version", cwd=tmp_path).stdout == f"sluiceway {__version__}\n"
    demo = next(installed.rglob("gateway/demo/gateway.yaml"))
    assert done(command, "check", "-c", demo, cwd=tmp_path).stdout == f"{demo}: good\n"
    told = done(command, "explain", "-c", demo, "-m", "claude", "--format", "json", cwd=tmp_path)
    assert json.loads(told.stdout)["attempts"][0]["provider"] == "anthropic"


@pytest.fixture
def demo(installed: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the installed gateway in front of its own demo, on free ports."""
    text = next(installed.rglob("gateway/demo/gateway.yaml")).read_text()
    listen, admin, upstream = (f"127.0.0.1:{free_port()}" for _ in range(3))
    for shipped, own in (("127.0.0.1:4000", listen), ("127.0.0.1:4001", admin), ("127.0.0.1:4002", upstream)):
        text = text.replace(shipped, own)
    (tmp_path / "gateway.yaml").write_text(text)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with (tmp_path / "log").open("w") as log:
        line = [str(installed / "bin" / "sluiceway"), "serve"]
        running = subprocess.Popen(line, cwd=tmp_path, env=environ, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 30
        while not ready(f"http://{admin}/readyz"):
            assert running.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield f"http://{listen}"
    finally:
        running.kill()
        running.wait(10)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_what_is_installed_serves_every_provider_s_demo(demo: str) -> None:
    for model in ("gpt", "gpt-eu", "llama", "deepseek", "grok", "claude", "gemini", "claude-aws"):
        body = json.dumps({"model": model, "messages": HELLO}).encode()
        asked = urllib.request.Request(f"{demo}/v1/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=20) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"], model
