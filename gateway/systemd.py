"""The service manager's side of a process: readiness, reloading, the watchdog, and sockets that it opened."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

FIRST_FD = 3


def notify(environ: Mapping[str, str], *states: str) -> None:
    """Send states such as `READY=1` to the socket that `NOTIFY_SOCKET` names, if there is one (sd_notify(3))."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.connect("\0" + address[1:] if address.startswith("@") else address)
            out.send("\n".join(states).encode())
        except OSError:
            return


def reloading() -> tuple[str, str]:
    """The states that begin a reload of a `Type=notify-reload` service."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two signs of life, half of what the manager allows; None when it does not watch."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    try:
        allowed = int(environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return allowed / 2_000_000


def sockets(environ: Mapping[str, str], pid: int) -> dict[str, list[socket.socket]]:
    """The listening sockets that the manager passed, by name; unnamed ones are called `unknown` (sd_listen_fds(3))."""
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    try:
        count = int(environ.get("LISTEN_FDS", "0"))
    except ValueError:
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":") if environ.get("LISTEN_FDNAMES") else []
    found: dict[str, list[socket.socket]] = {}
    for offset in range(count):
        os.set_inheritable(FIRST_FD + offset, False)
        name = names[offset] if offset < len(names) else "unknown"
        found.setdefault(name, []).append(socket.socket(fileno=FIRST_FD + offset))
    return found
