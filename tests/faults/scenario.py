"""Providers that answer by a plan: one word for each attempt."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson
from faults.judging import content_of, headers_of
from faults.planned import Arrival, Planned
from upstreams import answer

Steps = list[dict[str, Any]]
FIRST = [{"t": "{{SSE}}"}, {"chunk": "{{D2}}"}]
ERROR_EVENT = 'data: {"error": {"message": "overloaded", "type": "server_error", "code": 503}}\n\n'
WORDS: dict[str, Steps] = {
    "ok": [{"t": "{{OK}}"}],
    "eof": [{"fin": True}],
    "rst": [{"rst": True}],
    "stall": [{"stall": True}],
    "ok_stream": [*FIRST, {"chunk": "{{FIN}}"}, {"chunk": "{{DONE}}"}, {"end": True}],
    "err_first_event": [{"t": "{{SSE}}"}, {"chunk": ERROR_EVENT}, {"end": True}],
    "cut_after_first_event": [*FIRST, {"sleep": 0.05}, {"fin": True}],
    "ok after 1.5 s": [{"sleep": 1.5}, {"t": "{{OK}}"}],
}
STATUS = re.compile(r"(\d{3})(?:\(ra=(\d+)\))?")
REASONS = {400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests"}


def steps_for(word: str) -> Steps:
    """The provider's steps for one attempt."""
    if word in WORDS:
        return WORDS[word]
    found = STATUS.fullmatch(word)
    if found is None:
        raise LookupError(f"unknown word in a plan: {word}")
    status = int(found[1])
    error = orjson.dumps({"error": {"message": "as planned", "type": "planned"}}).decode()
    headers = {"Retry_After": found[2]} if found[2] else {}
    return [{"t": answer(error, f"{status} {REASONS.get(status, 'Error')}", **headers)}]


def always(plan: Any) -> str:
    """The word that a plan in prose repeats for ever; empty for a list of words."""
    return plan.removeprefix("always ") if isinstance(plan, str) and " then " not in plan else ""


class Actor(Planned):
    """One side of a scenario. Each client call has a plan of its own if `per_call`, else all share one.

    `sound_after` is when a provider that failed until then answers well.
    """

    def __init__(self, plan: Any, delay: float = 0.0, *, per_call: bool = False) -> None:
        self._plan: Sequence[str] = [always(plan)] if always(plan) else plan
        super().__init__(self._next, refuses=self._plan[0] == "refused")
        self._delay = delay
        self._per_call = per_call
        self._made: dict[str, int] = defaultdict(int)
        self.sound_after: float | None = None

    def _next(self, arrival: Arrival) -> Steps:
        if self.sound_after is not None:
            return steps_for("ok" if arrival.at >= self.sound_after else "503")
        words = [word for word in self._plan if word not in ("refused", "blackhole")]
        call = orjson.loads(content_of(arrival.raw)).get("user", "") if self._per_call else ""
        number = self._made[call]
        self._made[call] += 1
        steps = steps_for(words[min(number, len(words) - 1)])
        return [{"sleep": self._delay}, *steps] if self._delay else steps

    def gaps(self) -> list[float]:
        """Milliseconds between the first two requests of each call."""
        calls: dict[str, list[float]] = defaultdict(list)
        for arrival in self.arrivals:
            calls[orjson.loads(content_of(arrival.raw)).get("user", "")].append(arrival.at)
        return [(times[1] - times[0]) * 1000 for times in calls.values() if len(times) > 1]

    def header(self, name: str) -> list[str]:
        """A header of every request."""
        return [headers_of(arrival.raw).get(name, "") for arrival in self.arrivals]
