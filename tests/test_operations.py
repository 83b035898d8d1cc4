"""The operations guide: its day in the life is run as it stands, and what comes out is what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from livegateway import free_port
from servicemanager import Manager

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "operations.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.M | re.S)
HEADING = re.compile(r"^### (.*)$", re.M)
MARK = "-- end of block"
# Where the guide puts things, and what stands there on the machine of the test.
PLACES = ("/etc/systemd/system", "/etc/sluiceway", "/opt/sluiceway", "/usr/local/bin")
PORTS = ("127.0.0.1:4000", "127.0.0.1:4001", "127.0.0.1:4002")


@dataclass(frozen=True)
class Block:
    """Some commands, under which heading they stand, and what they print; None where the guide does not say."""

    heading: str
    commands: str
    printed: str | None


def day() -> list[Block]:
    """The blocks of the day in the life, in their order."""
    text = GUIDE.read_text().partition("## A day in the life")[2]
    text = re.split(r"^## ", text, flags=re.M)[0]
    blocks = []
    for found in BLOCK.finditer(text):
        heading = HEADING.findall(text[: found.start()])[-1]
        blocks.append(Block(heading, found[1], found[2]))
    return blocks


def test_the_day_has_all_of_its_hours() -> None:
    text = "\n".join(block.commands for block in day())
    for command in (
        *("pip install", "sluiceway check", "systemctl start", "systemctl reload", "systemctl restart"),
        *("systemctl stop", "keys new", "/metrics", "/status", "/readyz", "journalctl", "chat/completions"),
    ):
        assert command in text
    assert sum(block.printed is not None for block in day()) >= 10


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with the guide's places in it, and what each of them is called there; systemd's stand-in runs."""
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    own = {place: str(tmp_path) + place for place in PLACES} | {port: f"127.0.0.1:{free_port()}" for port in PORTS}
    own["/usr/local/bin"] = str(tmp_path / "bin")
    for place in PLACES:
        Path(own[place]).mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", ".*", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignored)
    manager = Manager(tmp_path, Path(own["/etc/systemd/system"]), lambda text: translated(text, own))
    yield tmp_path, own
    manager.close()


def translated(text: str, own: dict[str, str]) -> str:
    """The text with this machine's places and ports; what is one of this machine's already stays."""
    return re.sub(rf"(?<!\w)({'|'.join(map(re.escape, own))})(?!\d)", lambda found: own[found[0]], text)


def expected(printed: str, own: dict[str, str]) -> str:
    """A pattern for what is printed: `...` is anything, a line of it any lines."""
    text = re.escape(translated(printed, own))
    return text.replace(re.escape("...\n"), r"[^\n]*\n(?:.*\n)*?").replace(re.escape("..."), r"[^\n]*")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_day_goes_as_the_guide_says(machine: tuple[Path, dict[str, str]]) -> None:
    folder, own = machine
    blocks = day()
    script = "".join(f"{translated(block.commands, own)}echo '{MARK}'\n" for block in blocks)
    environ = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder), "LANG": "C.UTF-8"}
    line = ["bash", "-euo", "pipefail", "-c", script]
    place = folder / "checkout"
    told = subprocess.run(line, cwd=place, env=environ, check=False, capture_output=True, text=True, timeout=240)
    if "Could not find a version" in told.stderr:
        pytest.skip(f"no package index: {told.stderr[-300:]}")
    outputs = told.stdout.split(f"{MARK}\n")
    journal = (folder / "journal").read_text()[-1500:]
    for block, output in zip(blocks, outputs, strict=False):
        if block.printed is not None:
            assert re.fullmatch(expected(block.printed, own), output), (
                f"{block.heading}: {output}{told.stderr}{journal}"
            )
    assert told.returncode == 0, f"{blocks[len(outputs) - 1].heading}: {outputs[-1]}{told.stderr}{journal}"
    assert len(outputs) == len(blocks) + 1
