"""A provider that chooses its steps by the request, and remembers when each came."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from faults.judging import content_of
from upstreams import Connection, ScriptedUpstream, Step

PATH_MODEL = re.compile(rb"/models?/([^/ ]+?)(?::|/converse)")


@dataclass(frozen=True, eq=False)
class Arrival:
    """A whole request: when it came, on which connection, and the model that it names."""

    at: float
    raw: bytes
    connection: Connection
    model: str


class Planned(ScriptedUpstream):
    """`choose` gives the steps for each request; `arrivals` are all of them in order."""

    def __init__(self, choose: Callable[[Arrival], Sequence[Step]], **options: Any) -> None:
        super().__init__(**options)
        self._choose = choose
        self.arrivals: list[Arrival] = []

    def start(self, peer: Any, steps: Sequence[Step]) -> None:
        arrival = Arrival(time.monotonic(), peer.seen.requests[-1], peer.seen, model_of(peer.seen.requests[-1]))
        self.arrivals.append(arrival)
        super().start(peer, self._choose(arrival))

    def asked(self, model: str) -> list[Arrival]:
        """The requests for a model."""
        return [arrival for arrival in self.arrivals if arrival.model == model]


def model_of(request: bytes) -> str:
    """The model in the body, else in the path; empty where there is none."""
    try:
        model = orjson.loads(content_of(request)).get("model")
    except (orjson.JSONDecodeError, AttributeError):
        model = None
    if isinstance(model, str):
        return model
    found = PATH_MODEL.search(request.partition(b"\r\n")[0])
    return found[1].decode() if found else ""


class Moment(asyncio.Event):
    """An event that knows when it was set."""

    at: float | None = None

    def set(self) -> None:
        self.at = self.at or time.monotonic()
        super().set()


def when(event: asyncio.Event, wait: float) -> asyncio.Task[float | None]:
    """The moment at which an event is set, within some seconds from now."""

    async def watch() -> float | None:
        try:
            await asyncio.wait_for(event.wait(), wait)
        except TimeoutError:
            return None
        return time.monotonic()

    return asyncio.create_task(watch())
