"""The upstream of every contestant: the C program, told how to behave, asked what it saw."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, wires
from benchmarks.native import build

LETTING_GO = 3.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How it streams: `events` at `pause` seconds (0: as fast as it can); `delay`: seconds before any answer."""

    events: int = 300
    pause: float = 0.0
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """What it counted. `aborted_at`: when an answer last lost its reader, in ns of the monotonic clock."""

    requests: int
    active: int
    aborted: int
    aborted_at: int
    sent: int
    open: int


@dataclass(frozen=True, slots=True)
class Upstream:
    """A running one."""

    port: int
    process: subprocess.Popen[bytes]

    def behave(self, behaviour: Behaviour) -> None:
        """How requests are answered from now on."""
        micro = {"events": behaviour.events, "pause": behaviour.pause * 1e6, "delay": behaviour.delay * 1e6}
        self._get("/behave?" + "&".join(f"{name}={int(value)}" for name, value in micro.items()))

    def stats(self) -> Stats:
        """The counts so far."""
        return Stats(**json.loads(self._get("/stats")))

    def streams_left(self) -> int:
        """How many answers are still under way when their clients are gone, after time to let go of them.

        None is left when nothing is under way and no request has come for a moment.
        """
        deadline, before = time.monotonic() + LETTING_GO, -1
        while (stats := self.stats()).active or stats.requests != before:
            if time.monotonic() > deadline:
                return stats.active
            before = stats.requests
            time.sleep(0.03)
        return 0

    def _get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


def start_upstream(folder: Path, on: frozenset[int]) -> Upstream:
    """The upstream on some cores; its files are in `folder`."""
    wires.write_answers(folder / "answers")
    port = machine.free_port()
    line = [str(build("mock", folder)), str(port), str(folder / "answers")]
    process = machine.start(line, on, folder / "upstream.log")
    if not machine.answers(port, process):
        raise RuntimeError(f"the upstream did not start: {(folder / 'upstream.log').read_text()}")
    return Upstream(port, process)
