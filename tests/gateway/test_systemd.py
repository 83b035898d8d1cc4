"""gateway.systemd: what the service manager is told, and the sockets it passes on."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gateway.systemd import notify, reloading, sockets, watchdog_interval


@pytest.mark.parametrize("abstract", [False, True])
def test_states_reach_the_socket_that_is_named(tmp_path: Path, abstract: bool) -> None:
    name = f"@sluiceway-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        notify({"NOTIFY_SOCKET": name}, "READY=1", "STATUS=fine")
        assert manager.recv(1000) == b"READY=1\nSTATUS=fine"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    notify({}, "READY=1")
    notify({"NOTIFY_SOCKET": ""}, "READY=1")
    notify({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, "READY=1")


def test_a_reload_carries_the_monotonic_time_in_microseconds() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    state, stamp = reloading()
    assert state == "RELOADING=1"
    name, _, value = stamp.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "junk"}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
    ],
)
def test_the_watchdog_wants_a_sign_in_half_its_time(environ: dict[str, str], interval: float | None) -> None:
    assert watchdog_interval(environ, 7) == interval


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7"}, {"LISTEN_PID": "7", "LISTEN_FDS": "x"}]
)
def test_sockets_meant_for_nobody_or_another_process_are_left_alone(environ: dict[str, str]) -> None:
    assert sockets(environ, 7) == {}


# Descriptors count from 3, so only a process of its own can be passed some.
RECEIVER = """
    import os, sys
    from gateway.systemd import sockets
    os.environ["LISTEN_PID"] = str(os.getpid())
    found = sockets(os.environ, os.getpid())
    flat = [(name, each) for name, group in found.items() for each in group]
    print([(name, each.getsockname()[1], os.get_inheritable(each.fileno())) for name, each in flat])
"""


@pytest.mark.parametrize(
    ("names", "expected"),
    [("front:admin", ["front", "admin"]), ("front", ["front", "unknown"]), ("a:a", ["a", "a"]), ("", ["unknown"])],
)
def test_passed_sockets_are_known_by_name_and_not_inherited(names: str, expected: list[str]) -> None:
    count = len(expected)
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    moves = ";".join(f"os.dup2({each.fileno()}, {100 + at})" for at, each in enumerate(listeners))
    moves += ";" + ";".join(f"os.dup2({100 + at}, {3 + at})" for at in range(count))
    code = f"import os;{moves}\n" + textwrap.dedent(RECEIVER)
    environ = {**os.environ, "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}
    root = Path(__file__).resolve().parents[2]
    fds = [each.fileno() for each in listeners]
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=root, pass_fds=fds, capture_output=True, text=True, check=True
    )
    ports = [each.getsockname()[1] for each in listeners]
    for each in listeners:
        each.close()
    assert done.stdout.strip() == str([(name, port, False) for name, port in zip(expected, ports, strict=True)])
