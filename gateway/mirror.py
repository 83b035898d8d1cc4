"""Requests that are sent to a second model as well; what comes of them is written down and thrown away."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

from gateway.attempts import Tries, first_answer, settle
from gateway.config.types import Mirror
from gateway.contract import ChatRequest, Dialect, Stamp
from gateway.errors import GatewayError
from gateway.exchange import Answer, Upstreams
from gateway.limits import Ledger
from gateway.log import Log, Record
from gateway.router import Router
from gateway.strategies import Chance
from gateway.traits import BYTES_PER_TOKEN

# A mirror must not become the load that it was to measure.
MOST = 32
MOST_BYTES = 32 * 1024 * 1024


class Mirrors:
    """The copies under way. `skipped` counts those for which there was no room."""

    def __init__(self, log: Log, ledger: Ledger, chance: Chance = random.random) -> None:
        self.skipped = 0
        self._log = log
        self._ledger = ledger
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def copy(
        self, mirror: Mirror, router: Router, chat: ChatRequest, dialect: Dialect, upstreams: Upstreams, record: Record
    ) -> None:
        """Send a share of the requests to the other model, beside the client's own; returns at once."""
        if self._chance() >= mirror.share:
            return
        size = record.received
        if len(self._tasks) >= MOST or self._bytes + size > MOST_BYTES:
            self.skipped += 1
            return
        began = asyncio.get_running_loop().time()
        copy = Record(began, f"{record.id}-mirror", record.method, record.path, record.key, mirror.to, mirror=True)
        copy.stream, copy.received = chat.stream, size
        task = asyncio.ensure_future(self._run(mirror.to, router, chat, dialect, upstreams, copy))
        self._bytes += size
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Drop the copies that are under way."""
        for task in self._tasks:
            task.cancel()

    async def _run(
        self, model: str, router: Router, chat: ChatRequest, dialect: Dialect, upstreams: Upstreams, record: Record
    ) -> None:
        loop = asyncio.get_running_loop()
        tries = Tries(self._ledger, began=record.began)
        stamp = Stamp(record.id.removeprefix("req_"), 0)
        try:
            route = router.resolve(model, self._chance, chat, upstreams.health_of, record.began)
            # One attempt: a copy is not worth a second call, and no mirror is mirrored.
            route = replace(route, most=1, hedge=None)
            answer = await first_answer(route, chat, dialect, stamp, upstreams, tries)
            record.first_byte = loop.time()
            await _drained(answer, upstreams, record)
        except GatewayError as error:
            record.status, record.code = error.status, error.code or "internal_error"
        except asyncio.CancelledError:
            record.code = "shutting_down"
            raise
        except Exception as error:
            record.code = "internal_error"
            self._log.news(
                "error", "a mirrored request failed inside the gateway", id=record.id, error=type(error).__name__
            )
        finally:
            self._bytes -= record.received
            if tries.fetched is not None:
                self._ledger.give_back(tries.fetched.held)
            record.deployment, record.attempts, record.choice = tries.last, str(tries), tries.why
            record.reckon(record.received // BYTES_PER_TOKEN)
            self._log.record(record, loop.time())


async def _drained(answer: Answer, upstreams: Upstreams, record: Record) -> None:
    """Read an answer to its end."""
    record.status, record.upstream_id = 200, answer.upstream_id
    if answer.pump is None:
        settle(answer, upstreams, None)
        record.usage, record.tariff, record.sent = answer.usage, answer.attempt.tariff, len(answer.body)
        return
    pump = answer.pump
    outcome: GatewayError | None = GatewayError("The copy was dropped.", code="shutting_down")
    try:
        pump.flow(_Nowhere(), b"", chunked=False)
        outcome = await pump.finished
    finally:
        pump.stop()
        settle(answer, upstreams, outcome)
        record.usage, record.tariff, record.sent = pump.usage(), answer.attempt.tariff, pump.sent
    if outcome is not None:
        record.code = outcome.code or "internal_error"


class _Nowhere:
    """An outlet that takes everything and keeps nothing."""

    def write(self, data: bytes) -> None:
        """Take bytes."""

    def hang_up(self) -> None:
        """Take no more."""

    def abort(self) -> None:
        """Take no more."""

    def buffered(self) -> int:
        """Nothing waits here."""
        return 0
