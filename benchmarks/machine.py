"""Processes and what they cost: start on chosen cores, CPU time and memory of a whole tree, end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STARTING = 60.0
ENDING = 5.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores do what. With one core all share it, and only CPU time means anything."""

    proxy: frozenset[int]
    load: frozenset[int]

    @property
    def both(self) -> frozenset[int]:
        """Where a proxy with more than one process runs."""
        return self.proxy | self.load


def cores() -> Cores:
    """The first core for the proxy, the last one for its clients and its upstream."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(usable[:1]), frozenset(usable[-1:]))


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def pinned(line: Sequence[str], on: frozenset[int]) -> list[str]:
    """A command that runs on some cores only."""
    return ["taskset", "-c", ",".join(map(str, sorted(on))), *line]


def start(
    line: Sequence[str], on: frozenset[int], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """A process on some cores; what it says goes to a file."""
    with log.open("wb") as out:
        return subprocess.Popen(
            pinned(line, on),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **(environment or {})},
        )


def answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until something listens; false when the process ended, or takes too long."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, by force when they take long."""
    members = tree(process.pid)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for member in members:
            _signal(member, sign)
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            continue
        return


def _signal(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, open_ = [], [pid]
    while open_:
        found.append(member := open_.pop())
        for task in _tasks(member):
            open_ += map(int, _read(f"/proc/{member}/task/{task}/children").split())
    return found


def move(pid: int, to: frozenset[int]) -> None:
    """Put every thread of a tree on some cores."""
    for member in tree(pid):
        for task in _tasks(member):
            os.sched_setaffinity(int(task), to)


def cpu_ns(pid: int) -> int:
    """The CPU time of a tree's living threads, by the scheduler's own clock."""
    times = (_read(f"/proc/{member}/task/{task}/schedstat") for member in tree(pid) for task in _tasks(member))
    return sum(int(each.split()[0]) for each in times if each)


def memory(pid: int) -> int:
    """The resident bytes of a tree; pages that its processes share count for each."""
    pages = (_read(f"/proc/{member}/statm").split() for member in tree(pid))
    return sum(int(each[1]) for each in pages if each) * os.sysconf("SC_PAGE_SIZE")


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _read(path: str) -> str:
    """A file of /proc; empty when its process is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
