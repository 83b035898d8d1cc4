"""Run as a program beside the gateway: how long its event loop keeps a caller waiting, and how its memory grows.

The measuring is done in a process of its own, because the tests' own event loop is busy being client and provider.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

import psutil

EVERY = 0.005
MIB = 1024 * 1024


def main(pid: int, port: int, request: bytes) -> None:
    """Ask again and again until standard input ends; then print what was seen as JSON."""
    process = psutil.Process(pid)
    before = peak = process.memory_info().rss
    used = sum(process.cpu_times()[:2])
    waits = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(30)
        waits.append(once(connection, request))
        print("ready", flush=True)
        waits.clear()
        while not select.select([sys.stdin], [], [], EVERY)[0]:
            waits.append(once(connection, request))
            peak = max(peak, process.memory_info().rss)
    waits.sort()
    told = {
        "wait_ms": waits[-1] * 1000 if waits else 0.0,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1000 if waits else 0.0,
        "growth_mib": (peak - before) / MIB,
        "cpu_s": sum(process.cpu_times()[:2]) - used,
        "asked": len(waits),
    }
    print(json.dumps(told))


def once(connection: socket.socket, request: bytes) -> float:
    """Seconds until the answer's head is there."""
    began = time.monotonic()
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the gateway closed the watcher's connection")
        answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(rest) < length:
        rest += connection.recv(65536)
    return time.monotonic() - began


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode())
