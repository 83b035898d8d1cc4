"""Notices that the event loop stands still, counts it, and says where; a thread looks, since the loop cannot."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from gateway.log import News

LIMIT = 2.0
LOOK = 0.25
# A loop that stays blocked never gets to the log: after so long the place goes to standard error.
ALOUD = 10.0
# The places of so many stalls are logged per minute; all are counted.
SPEECHES = 5
DEEPEST = 12
# A worker without its supervisor drains for three seconds; one whose loop stands still is ended by force.
ORPHAN_GRACE = 4.0


class Watchdog:
    """Counts the `stalls` of the thread that made it: times without a `sweep` for over `limit` seconds.

    `orphaned` is asked from the thread; the process ends by force four seconds after it first said yes.
    """

    def __init__(self, news: News, limit: float = LIMIT, orphaned: Callable[[], bool] = lambda: False) -> None:
        self.stalls = 0
        self._news = news
        self._limit = limit
        self._orphaned = orphaned
        self._beat = time.monotonic()
        self._watched = threading.get_ident()
        self._found: list[tuple[float, list[str]]] = []
        self._spoken: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._beat = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()

    def sweep(self, now: float) -> None:
        """A sign of life from the loop; what the thread found meanwhile is logged."""
        self._beat = time.monotonic()
        while self._found:
            began, place = self._found.pop(0)
            self._spoken = [at for at in self._spoken if now - at < 60] + [now]
            if len(self._spoken) <= SPEECHES:
                seconds = round(self._beat - began, 1)
                self._news("error", "the event loop stood still", seconds=seconds, stack=place)

    def _watch(self) -> None:
        stalled_at, aloud, alone = 0.0, False, 0.0
        while not self._stop.wait(LOOK):
            beat, now = self._beat, time.monotonic()
            if now - beat < self._limit:
                stalled_at, aloud = 0.0, False
            elif stalled_at != beat:
                stalled_at = beat
                self.stalls += 1
                self._found.append((beat, self._place()))
            elif not aloud and now - beat >= ALOUD:
                aloud = True
                where = " < ".join(reversed(self._place()))
                os.write(2, f"sluiceway: the event loop has stood still for {ALOUD:g} s: {where}\n".encode())
            if self._orphaned():
                alone = alone or now
                if now - alone >= ORPHAN_GRACE:
                    os._exit(1)

    def _place(self) -> list[str]:
        """Where the watched thread is: file, line and function, outermost first; never a value."""
        frame: FrameType | None = sys._current_frames().get(self._watched)
        place: list[str] = []
        while frame is not None and len(place) < DEEPEST:
            name = frame.f_code.co_filename.rpartition("/")[2]
            place.append(f"{name}:{frame.f_lineno} {frame.f_code.co_name}")
            frame = frame.f_back
        return place[::-1]
