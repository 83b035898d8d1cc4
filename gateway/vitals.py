"""A process's own figures: connections, stalls, lost lines, reloads; those of several add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Vitals = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Vital:
    """One figure: its kind and what it counts; `full` is its whole name, where that is not ours to choose."""

    kind: Literal["gauge", "counter"]
    about: str
    full: str = ""


VITALS: Mapping[str, Vital] = {
    "config_reload_failed": Vital("gauge", "1 while the file is wrong and an older configuration serves"),
    "config_reloads_total": Vital("counter", "configurations taken over since the start"),
    "config_reload_failures_total": Vital(
        "counter", "configurations refused since the start", "gateway_config_reload_failures_total"
    ),
    "config_loaded_timestamp_seconds": Vital("gauge", "when the configuration in force was taken over"),
    "start_timestamp_seconds": Vital("gauge", "when the gateway was started"),
    "connections": Vital("gauge", "open client connections"),
    "connections_refused_total": Vital("counter", "connections and requests refused before any handler saw them"),
    "requests_active": Vital("gauge", "requests in flight"),
    "body_bytes_held": Vital("gauge", "bytes of request bodies in memory"),
    "response_bytes_held": Vital("gauge", "bytes of answers in memory that clients have not taken yet"),
    "log_lines_dropped_total": Vital("counter", "log lines lost to a full disk or a reader that does not read"),
    "short_way_total": Vital("counter", "requests that took the short way: no parser, no task"),
    "loop_stalls_total": Vital("counter", "times that the event loop stood still for over two seconds"),
    "state_degraded": Vital("gauge", "processes that count limits without Redis"),
    "state_failures_total": Vital("counter", "questions about limits that Redis did not answer in time"),
    "state_lost_total": Vital("counter", "corrections of limits that never reached Redis"),
    "traces_dropped_total": Vital("counter", "requests whose spans no collector took"),
    "workers": Vital("gauge", "processes that serve"),
    "worker_restarts_total": Vital("counter", "workers started again after they had ended by themselves"),
}


def total(parts: Iterable[Vitals]) -> dict[str, float]:
    """The figures of several processes as one."""
    found: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            found[name] = found.get(name, 0) + value
    return found
