"""The container's recipe: what it starts from, what it becomes, and that it holds no secret."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
CONSTRAINTS = ROOT / "deploy" / "constraints.txt"


def instructions() -> list[tuple[str, str]]:
    """The recipe's instructions, each with its whole text."""
    lines = (line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#"))
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    parts = (line.partition(" ") for line in whole.splitlines() if line)
    return [(word, rest) for word, _, rest in parts]


def of(word: str) -> list[str]:
    return [rest for each, rest in instructions() if each == word]


def test_the_recipe_is_free_of_mistakes() -> None:
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed")
    told = subprocess.run([found, str(DOCKERFILE)], check=False, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_image_has_two_stages_and_belongs_to_nobody_special() -> None:
    assert of("FROM") == ["${BASE} AS build", "${BASE}"]
    (base,) = (text for text in of("ARG") if text.startswith("BASE="))
    assert re.fullmatch(r"BASE=python:3\.\d+-slim-\w+", base), "a slim base of a named release"
    (user,) = of("USER")
    assert int(user.partition(":")[0]) >= 10_000
    assert instructions().index(("USER", user)) > instructions().index(("FROM", "${BASE}"))


def test_the_image_is_watched_and_started_by_verbs_that_exist() -> None:
    check = re.search(r"CMD (\[.*\])", of("HEALTHCHECK")[0])
    assert check
    assert json.loads(of("ENTRYPOINT")[0]) == ["sluiceway"]
    for command in (json.loads(check[1])[1:], json.loads(of("CMD")[0])):
        assert command[0] in VERBS
    assert of("STOPSIGNAL") == ["SIGTERM"]
    assert of("EXPOSE") == ["4000 4001"]


def test_what_is_built_from_is_named_file_by_file_and_no_secret_is_baked_in() -> None:
    taken = {word for text in of("COPY") if not text.startswith("--from") for word in text.split()[:-1]}
    assert taken == {
        *("deploy/constraints.txt", "pyproject.toml", "setup.cfg", "README.md", "LICENSE"),
        *("deploy", "gateway", "plugins"),
    }
    assert all((ROOT / each).exists() for each in taken)
    assert not re.search(r"(?i)(key|token|secret|password)\w*=", DOCKERFILE.read_text())
    assert not of("ADD")
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*", "what is not named stays outside"
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert {each.partition("/")[0] for each in taken} <= let_in


def test_every_package_in_the_image_has_its_version_written_down() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS.read_text(), re.M))
    setup = (ROOT / "setup.cfg").read_text()
    needed = re.search(r"install_requires =\n((?: +.+\n)+)", setup)
    assert needed
    for name, least in re.findall(r"^ +([\w.-]+)>=([\d.]+)", needed[1], re.M):
        assert name in pinned, "run `make constraints`"
        assert numbers(pinned[name]) >= numbers(least), f"{name}: run `make constraints`"
    assert "setuptools" in pinned


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_pinned_versions_can_be_installed_together() -> None:
    line = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps", "-r"]
    told = subprocess.run([*line, str(CONSTRAINTS)], check=False, capture_output=True, text=True, timeout=180)
    if re.search("NewConnectionError|Temporary failure|No module named pip", told.stderr):
        pytest.skip("no package index")
    assert told.returncode == 0, told.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_builds_and_runs() -> None:
    engine = shutil.which("docker") or shutil.which("podman")
    if engine is None or subprocess.run([engine, "info"], check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("no container engine runs here")
    line = [engine, "build", "-q", "-f", str(DOCKERFILE), "-t", "sluiceway-test", str(ROOT)]
    built = subprocess.run(line, check=False, capture_output=True, text=True, timeout=800)
    if re.search("registry|pull|no such host", built.stderr):
        pytest.skip(f"the base cannot be fetched: {built.stderr[-200:]}")
    assert built.returncode == 0, built.stderr
    line = [engine, "run", "--rm", "--read-only", "--cap-drop", "ALL", "sluiceway-test", "--version"]
    told = subprocess.run(line, check=True, capture_output=True, text=True, timeout=60)
    assert told.stdout.startswith("sluiceway ")
