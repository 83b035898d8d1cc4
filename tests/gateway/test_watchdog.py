"""The watchdog sees a thread that does nothing else, counts it once, and says where it was."""

from __future__ import annotations

import time
from typing import Any

from gateway.watchdog import SPEECHES, Watchdog


def hang(seconds: float) -> None:
    time.sleep(seconds)


def test_a_stall_is_counted_once_and_its_place_told() -> None:
    said: list[dict[str, Any]] = []
    watchdog = Watchdog(lambda level, message, **fields: said.append({"message": message, **fields}), limit=0.1)
    watchdog.start()
    hang(0.9)
    watchdog.sweep(1.0)
    watchdog.stop()
    assert watchdog.stalls == 1
    assert len(said) == 1
    assert said[0]["message"] == "the event loop stood still"
    assert said[0]["seconds"] >= 0.8
    assert any(place.endswith(" hang") for place in said[0]["stack"])


def test_a_loop_that_moves_is_no_stall() -> None:
    watchdog = Watchdog(lambda *told, **fields: None, limit=0.6)
    watchdog.start()
    for _ in range(10):
        time.sleep(0.1)
        watchdog.sweep(0.0)
    watchdog.stop()
    assert watchdog.stalls == 0


def test_many_stalls_are_all_counted_and_few_told() -> None:
    said: list[str] = []
    watchdog = Watchdog(lambda level, message, **fields: said.append(message), limit=0.01)
    watchdog.start()
    for count in range(1, SPEECHES + 3):
        while watchdog.stalls < count:
            time.sleep(0.02)
        watchdog.sweep(1.0)
    watchdog.stop()
    assert watchdog.stalls >= SPEECHES + 2
    assert len(said) == SPEECHES
