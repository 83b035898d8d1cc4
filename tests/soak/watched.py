"""`sluiceway` with one signal more: at SIGUSR1 it writes down what it holds, and how late its event loop has been.

Run as a script: `watched.py OUT serve -c FILE`. Nothing of the gateway is replaced; the collector knows its objects.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

TICK = 0.01


class Lag:
    """How much later than asked for the loop has called, in seconds, since this was last told."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._due = 0.0

    def start(self) -> None:
        """Begin to look, a hundred times a second."""
        if not self._due:
            self._again(asyncio.get_running_loop())

    def forget(self) -> None:
        """What has just held the loop up was this script's own question."""
        if self._due:
            self._due = asyncio.get_running_loop().time() + TICK

    def told(self) -> dict[str, float]:
        """The worst and the 99th percentile in milliseconds."""
        seen, self.seen = sorted(self.seen), []
        if not seen:
            return {"p99": 0.0, "max": 0.0}
        return {"p99": seen[int(len(seen) * 0.99)] * 1000, "max": seen[-1] * 1000}

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + TICK
        loop.call_later(TICK, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self.seen.append(max(0.0, loop.time() - self._due))
        self._again(loop)


def held() -> dict[str, Any]:
    """Tasks, objects of the gateway by class, and the sums of its own counters."""
    # What was put aside at the start would not be found.
    gc.unfreeze()
    gc.collect()
    objects: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)
        if not str(kind.__module__).startswith("gateway."):
            continue
        objects[kind.__name__] += 1
        if kind.__name__ == "Ledger":
            sums["ledger"] += each.held
        elif kind.__name__ == "Sweep":
            sums["sweep"] += len(each)
        elif kind.__name__ == "Health":
            sums.update(active=each.active, waiting=len(each.waiting), retries=each.retries)
    tasks = len(asyncio.all_tasks())
    return {"tasks": tasks, "objects": dict(objects), "sums": dict(sums)}


def main() -> None:
    """Serve as the command line does."""
    out, lag = Path(sys.argv[1]), Lag()

    def tell(number: int, frame: object) -> None:
        found = {**held(), "lag": lag.told()}
        lag.start()
        fresh = out.with_suffix(".new")
        fresh.write_text(json.dumps(found))
        fresh.replace(out)
        lag.forget()

    signal.signal(signal.SIGUSR1, tell)
    from gateway.__main__ import main as serve

    sys.argv = ["sluiceway", *sys.argv[2:]]
    sys.exit(serve())


if __name__ == "__main__":
    main()
