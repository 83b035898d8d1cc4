"""systemd: states on the notify socket, the watchdog's interval, sockets that were passed, and the unit files."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import systemd

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# Debian 12's systemd does not know the type yet; the unit says Type=notify on the line before.
TOO_OLD = "Failed to parse service type, ignoring: notify-reload"


def test_states_arrive_in_one_message(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        systemd.notify({"NOTIFY_SOCKET": str(tmp_path / "notify")}, "READY=1", "STATUS=fine")
        assert manager.recv(4096) == b"READY=1\nSTATUS=fine"


def test_an_abstract_socket_is_written_with_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0sluiceway-test-notify")
        systemd.notify({"NOTIFY_SOCKET": "@sluiceway-test-notify"}, "READY=1")
        assert manager.recv(4096) == b"READY=1"


def test_without_a_manager_nothing_is_sent_and_nothing_raised(tmp_path: Path) -> None:
    systemd.notify({}, "READY=1")
    systemd.notify({"NOTIFY_SOCKET": str(tmp_path / "none")}, "READY=1")


def test_a_reload_begins_with_the_monotonic_time() -> None:
    state, at = systemd.reloading()
    assert state == "RELOADING=1"
    assert re.fullmatch(r"MONOTONIC_USEC=\d{7,}", at)


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_signs_of_life_come_twice_per_time_allowed(environ: dict[str, str], interval: float | None) -> None:
    assert systemd.watchdog_interval(environ, 7) == interval


PASSES = """
import os, socket, sys
from gateway import systemd
for offset in range(3):
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    os.dup2(made.fileno(), 3 + offset)
    made.detach()
found = systemd.sockets({"LISTEN_PID": sys.argv[1].replace("me", str(os.getpid())), **eval(sys.argv[2])}, os.getpid())
print({name: [each.fileno() for each in sockets] for name, sockets in found.items()})
"""


@pytest.mark.parametrize(
    ("pid", "environ", "found"),
    [
        ("me", {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "http:admin:http"}, {"http": [3, 5], "admin": [4]}),
        ("me", {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "http"}, {"http": [3], "unknown": [4]}),
        ("me", {"LISTEN_FDS": "1"}, {"unknown": [3]}),
        ("me", {"LISTEN_FDS": "many"}, {}),
        ("me", {}, {}),
        ("1", {"LISTEN_FDS": "3"}, {}),
    ],
)
def test_passed_sockets_are_found_by_name(pid: str, environ: dict[str, str], found: dict[str, list[int]]) -> None:
    line = [sys.executable, "-c", PASSES, pid, repr(environ)]
    told = subprocess.run(
        line, check=True, capture_output=True, text=True, cwd=DEPLOY.parent, env={**os.environ, "PYTHONPATH": "."}
    )
    assert eval(told.stdout) == found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(["systemd-analyze", *arguments], check=False, capture_output=True, text=True, timeout=60)


def test_the_unit_exposes_little() -> None:
    told = analyze("security", "--offline=true", str(DEPLOY / "sluiceway.service"))
    level = re.search(r"Overall exposure level for sluiceway.service: ([\d.]+)", told.stdout)
    assert level, told.stderr
    assert float(level[1]) <= 2.0


@pytest.mark.parametrize("unit", ["sluiceway.service", "sluiceway.socket"])
def test_the_units_are_free_of_mistakes(unit: str) -> None:
    told = analyze("verify", str(DEPLOY / unit))
    assert told.returncode == 0
    complaints = [line for line in (told.stdout + told.stderr).splitlines() if TOO_OLD not in line]
    assert complaints == []


def test_the_unit_waits_longer_than_the_drain() -> None:
    unit = (DEPLOY / "sluiceway.service").read_text()
    stop = re.search(r"TimeoutStopSec=(\d+)s", unit)
    assert stop
    assert int(stop[1]) > 300 + 4
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "DynamicUser=yes", "LimitCORE=0"):
        assert line in unit.splitlines()
    assert "LimitNOFILE=65536" in unit
    assert "MemoryMax=" in unit
    assert "LoadCredential=" in unit
