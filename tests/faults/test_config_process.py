"""Configuration faults that only a process shows: a port that is taken, a parser that is missing, the check verb."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faults.casefiles import cases
from faults.serving import ROOT, Gateway, deployment, openai, profile

FILE = cases("config_cases")
DRIVEN = {"CF-033", "CF-035", "CF-036"}
pytestmark = pytest.mark.skipif(not FILE, reason="the fault cases are not beside the project")


def gateway(folder: Path) -> Gateway:
    return Gateway(folder, profile({"a": openai("http://127.0.0.1:9")}, {"m-r0": deployment("a", "m-r0")}))


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command to its end."""
    line = [sys.executable, "-m", "gateway", *arguments]
    env = {**os.environ, **environ}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=20, check=False)


def test_cf_033_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    made = gateway(tmp_path)
    with socket.socket() as rival:
        rival.bind(("127.0.0.1", made.port))
        rival.listen()
        ended = run("serve", "-c", str(made.file))
    assert ended.returncode
    assert FILE["CF-033"]["expect"]["message_has"][0] in ended.stderr
    assert str(made.port) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_cf_035_the_lax_parser_is_refused_unless_allowed(tmp_path: Path) -> None:
    made = gateway(tmp_path)
    ended = run("serve", "-c", str(made.file), AIOHTTP_NO_EXTENSIONS="1")
    assert ended.returncode
    assert "C parser" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "SLUICEWAY_ALLOW_PYTHON_PARSER" in ended.stderr


def test_cf_036_checking_binds_nothing_and_tells_by_its_code(tmp_path: Path) -> None:
    made = gateway(tmp_path)
    with socket.socket() as rival:
        # A check that bound the port would fail on it.
        rival.bind(("127.0.0.1", made.port))
        rival.listen()
        assert run("check", "-c", str(made.file)).returncode == 0
    made.file.write_text("models:\n\t- x\n")
    assert run("check", "-c", str(made.file)).returncode
