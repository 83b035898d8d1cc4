"""The operators' pages: is it alive, is it ready, its metrics, its status."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from gateway import __version__
from gateway.admin import Maker, Page
from gateway.config.types import Config
from gateway.exposition import KIND, exposition
from gateway.metrics import Figures, Values
from gateway.status import Now, Status


class Watched(Protocol):
    """What the pages tell about."""

    @property
    def ready(self) -> bool: ...
    def vitals(self) -> dict[str, float]: ...
    def figures(self) -> Figures: ...


@dataclass(slots=True)
class Reloads:
    """The configuration in force, and how it came about; Unix times."""

    config: Config
    digest: str
    taken: int = 0
    refused: int = 0
    broken: bool = False
    began: float = field(default_factory=time.time)
    loaded_at: float = field(default_factory=time.time)
    failed_at: float = 0.0

    def take(self, config: Config, digest: str) -> None:
        """Another configuration is in force."""
        self.config, self.digest = config, digest
        self.taken += 1
        self.broken = False
        self.loaded_at = time.time()

    def refuse(self) -> None:
        """The file is wrong; the configuration in force stays."""
        self.refused += 1
        self.broken = True
        self.failed_at = time.time()

    def vitals(self) -> dict[str, float]:
        """All of it as numbers."""
        return {
            "config_reload_failed": float(self.broken),
            "config_reloads_total": self.taken,
            "config_reload_failures_total": self.refused,
            "config_loaded_timestamp_seconds": self.loaded_at,
            "start_timestamp_seconds": self.began,
        }


class Pages:
    """Makes each page when it is asked for; `leaving` is set once no further request is to come."""

    def __init__(self, watched: Watched, reloads: Reloads, leaving: asyncio.Event) -> None:
        self._watched = watched
        self._reloads = reloads
        self._leaving = leaving
        self.status = Status(watched.figures, asyncio.get_running_loop().time())
        self.makers: Mapping[str, Maker] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/status": self._status,
        }

    @property
    def _ready(self) -> bool:
        return self._watched.ready and not self._leaving.is_set()

    def _vitals(self) -> dict[str, float]:
        return {**self._watched.vitals(), **self._reloads.vitals()}

    async def _livez(self, accept: str) -> Page:
        return Page(b"alive\n")

    async def _readyz(self, accept: str) -> Page:
        return Page(b"ready\n") if self._ready else Page(b"not ready\n", status=503)

    async def _metrics(self, accept: str) -> Page:
        counted = self._watched.figures()
        about: dict[str, Values] = {
            "config_info": {(self._reloads.digest,): 1.0},
            "build_info": {(__version__, platform.python_version(), aiohttp.__version__): 1.0},
        }
        figures = Figures(counted.counts, counted.histograms, {**counted.gauges, **about})
        return Page(await exposition(figures, self._vitals()), KIND)

    async def _status(self, accept: str) -> Page:
        reloads = self._reloads
        now = Now(
            reloads.config,
            reloads.digest,
            time.time(),
            reloads.began,
            self._vitals(),
            self._watched.figures(),
            self._ready,
            reloads.failed_at,
        )
        loop_time = asyncio.get_running_loop().time()
        if "text/html" in accept:
            return Page(self.status.html(now, loop_time), "text/html; charset=utf-8", headers=self.status.headers)
        return Page(self.status.json(now, loop_time), "application/json", headers=self.status.headers)
