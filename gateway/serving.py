"""The gateway itself in one process: requests come in at sockets that somebody opened, until it is told to drain."""

from __future__ import annotations

import asyncio
import math
import resource
import socket
from collections.abc import Callable, Mapping, Sequence

from gateway.assembly import Assembly
from gateway.config.budgets import budgets_of
from gateway.config.tls import ServerContext, server_context
from gateway.config.types import Config
from gateway.contract import Provider
from gateway.dialects import openai_chat
from gateway.doorstep import Doorstep
from gateway.errors import GatewayError
from gateway.fastlane import FastClient, client_kind
from gateway.front import Bounds, Client, Front
from gateway.gauges import collect_retries, gauges
from gateway.lane import Lane
from gateway.listeners import serve_on
from gateway.log import Log
from gateway.memory import calm_collector, keep_freed_memory
from gateway.metrics import Figures, Values
from gateway.proxy import CAPABILITIES, MODELS, Proxy
from gateway.statefile import StateFile
from gateway.tracing.tracer import Tracer, Tracing
from gateway.upstream import Sweep
from gateway.watchdog import Watchdog

DIALECTS = {openai_chat.DIALECT.path: openai_chat.DIALECT}
# After SIGTERM a connection that was used this recently may have a request under way: it is closed so much later.
GRACE = 0.25
# From the last word to a stream that outlived the drain until everything is cut.
CUT = 2.0
LOOK = 0.02
SUMMARY = 1.0


def shutting_down() -> GatewayError:
    """What a request is told that outlives the drain."""
    return GatewayError("The gateway is shutting down.", status=503, kind="overloaded_error", code="shutting_down")


class Serving:
    """Proxy, connections and what they need. `apply` changes the configuration between two requests."""

    def __init__(self, config: Config, digest: str, providers: Mapping[str, Provider], log: Log, sweep: Sweep) -> None:
        self._config = config
        self._log = log
        self._sweep = sweep
        self._assembly = Assembly(providers, sweep, log.news)
        self._shared = self._assembly.share(config)
        self._parts = self._assembly.prepare(config, digest)
        self._servers: list[asyncio.AbstractServer] = []
        self._refusals = Refusals(log)
        bounds = bounds_of(config)
        self.proxy = Proxy(self._parts.snapshot, DIALECTS, log, bounds)
        kind = client_kind()
        self.front = Front(self.proxy.handle, bounds, sweep, self._refusals.add, kind)
        self._lane: Lane | None = None
        if issubclass(kind, FastClient):
            self._lane = self.front.lane = Lane(self.proxy)
            self.proxy.learn, self.proxy.learn_refusal = self._lane.learn, self._lane.learn_refusal
        self.doorstep = Doorstep(self.front, context_of(config))
        self.watchdog = Watchdog(log.news)
        self._purses = self._parts.snapshot.upstreams.counts.purses
        self._purses.processes = config.server.workers
        self._state = StateFile(self._purses, log.news)
        self._tracing = Tracing(log.news, (*DIALECTS, MODELS, CAPABILITIES))
        self.ready = False

    async def start(self, sockets: Sequence[socket.socket], orphaned: Callable[[], bool] | None = None) -> None:
        """Accept connections on these sockets, which are closed by `drain`."""
        if orphaned is not None:
            self.watchdog = Watchdog(self._log.news, orphaned=orphaned)
        self._sweep.add(self._refusals)
        self._sweep.add(self.proxy.metrics)
        self._sweep.add(self.watchdog)
        self._sweep.add(self._state)
        await self._keep_money(self._config)
        if self._shared is not None:
            self._sweep.add(self._shared)
            await self._shared.start()
        self._sweep.add(self._tracing)
        self.proxy.tracer = await self._trace(self._config)
        await self._assembly.fetch(self._parts)
        self._assembly.take_over(self._parts)
        for each in sockets:
            self._servers.append(await serve_on(each, self.doorstep))
        calm_collector()
        keep_freed_memory()
        self.watchdog.start()
        self.ready = True

    async def apply(self, config: Config, digest: str) -> None:
        """Serve the next requests by this configuration; those under way keep theirs."""
        parts = await asyncio.to_thread(self._assembly.prepare, config, digest)
        if config.server.tls != self._config.server.tls:
            self.doorstep.context = await asyncio.to_thread(context_of, config)
        await self._assembly.fetch(parts)
        await self._keep_money(config)
        self.proxy.tracer = await self._trace(config)
        self._config = config
        bounds = bounds_of(config)
        self.front.bounds = bounds
        self.proxy.adopt(self._assembly.take_over(parts), bounds)
        if self._lane is not None:
            self._lane.adopt(self.proxy.snapshot)
        redirect(self._log, config)

    async def _trace(self, config: Config) -> Tracer | None:
        return await self._tracing.adopt(config.telemetry.otlp, secure=config.server.tls is not None)

    async def _keep_money(self, config: Config) -> None:
        """These are the budgets from now on; what was spent of them is known when this returns."""
        self._purses.adopt(budgets_of(config))
        if config.state.store == "memory":
            await self._state.adopt(config.state.file)

    async def drain(self, limit: float, hurry: asyncio.Event) -> None:
        """Accept nothing more, let requests finish for `limit` seconds, tell the rest, close. `hurry`: do it now."""
        self.ready = False
        self.proxy.draining = True
        for server in self._servers:
            server.close()
        self._log.news("info", "draining", active=self.proxy.active)
        now = asyncio.get_running_loop().time()
        self.front.close_idle(now - GRACE)
        await self._until(lambda: not (self.front.clients or self.doorstep.arriving), min(GRACE, limit), hurry)
        # Only now: what was accepted in the very moment of the signal is served.
        self.front.draining = True
        self.front.close_idle(math.inf)
        await self._until(lambda: not self.front.working, limit - GRACE, hurry)
        cut = len(self.front.working)
        for client in self.front.working:
            dismiss(client)
        # Whoever is told takes it and is gone in no time; in a hurry, none other is waited for.
        await self._until(lambda: not self.front.clients, GRACE if hurry.is_set() else CUT, asyncio.Event())
        self.doorstep.cut()
        for client in tuple(self.front.clients):
            client.abort()
        # Their requests end by it, and each is written down.
        await self._until(lambda: not self.proxy.active, GRACE, asyncio.Event())
        self.proxy.mirrors.close()
        self.watchdog.stop()
        await self._hand_over()
        self._assembly.close()
        self._log.news("info", "stopped", cut=cut)

    async def _hand_over(self) -> None:
        """Write down and send what is left. All at once, as each may take seconds, and nobody waits for ever."""
        last = [self._state.close(), self._tracing.close()]
        if self._shared is not None:
            last.append(self._shared.close())
        for failed in await asyncio.gather(*last, return_exceptions=True):
            if failed is not None:
                self._log.news("error", "not everything could be handed over", why=f"{type(failed).__name__}: {failed}")

    def vitals(self) -> dict[str, float]:
        """What the process has to say about itself."""
        shared = self._shared.vitals() if self._shared is not None else {}
        return {
            **shared,
            "connections": len(self.front.clients) + len(self.doorstep.arriving),
            "connections_refused_total": self._refusals.count,
            "requests_active": self.proxy.active,
            "body_bytes_held": self.proxy.held,
            "response_bytes_held": sum([client.buffered() for client in self.front.clients]),
            "log_lines_dropped_total": self._log.dropped,
            "short_way_total": self._lane.rides if self._lane is not None else 0,
            "loop_stalls_total": self.watchdog.stalls,
            "traces_dropped_total": self._tracing.dropped,
            "workers": 1,
        }

    def figures(self) -> Figures:
        """What was counted since the start, and how its upstreams stand."""
        self.proxy.metrics.fold()
        counted = self.proxy.metrics.figures
        return Figures(counted.counts, counted.histograms, self._gauges(), counted.errors)

    def report(self) -> Figures:
        """The same, counted since the last report."""
        gauges = self._gauges()
        counted = self.proxy.metrics.take()
        return Figures(counted.counts, counted.histograms, gauges, counted.errors)

    def _gauges(self) -> dict[str, Values]:
        snapshot = self.proxy.snapshot
        collect_retries(snapshot.upstreams.accounts, self.proxy.metrics)
        return gauges(snapshot.upstreams, snapshot.router.attempts(), asyncio.get_running_loop().time())

    async def _until(self, claim: Callable[[], bool], seconds: float, hurry: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        # Looks at counters, so that nothing on the request path has to know of the drain.
        while not claim() and loop.time() < until and not hurry.is_set():  # noqa: ASYNC110
            await asyncio.sleep(LOOK)  # only while draining


class Refusals:
    """Counts what was refused before any handler saw it; the first of a second is logged, the others as a number."""

    def __init__(self, log: Log) -> None:
        self.count = 0
        self._log = log
        self._said = 0
        # 0.0: the next one is logged. Infinity: one has just been, and the second of silence is not measured yet.
        self._quiet_until = 0.0

    def add(self, error: GatewayError) -> None:
        """One more."""
        self.count += 1
        if not self._quiet_until:
            self._said, self._quiet_until = self.count, math.inf
            self._log.news("info", "a connection was refused", status=error.status, code=error.code, why=error.message)

    def sweep(self, now: float) -> None:
        """Once a second, say how many more there were."""
        if self._quiet_until == math.inf:
            self._quiet_until = now + SUMMARY
        elif now >= self._quiet_until:
            more, self._said = self.count - self._said, self.count
            self._quiet_until = now + SUMMARY if more else 0.0
            if more:
                self._log.news("info", "connections were refused", count=more)


def dismiss(client: Client) -> None:
    """Tell a request that it will not be finished, and close its connection."""
    if client.pump is not None:
        client.pump.fail(shutting_down())
    else:
        client.refuse(shutting_down())


def bounds_of(config: Config) -> Bounds:
    """What the listener bears; connections stay below half of the descriptors, since each may need one upstream."""
    server = config.server
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = max(16, descriptors // 2 - 64)
    return Bounds(
        max_body=server.max_body,
        max_connections=min(server.max_connections or most, most),
        header_timeout=server.header_timeout,
        body_timeout=server.body_timeout,
        write_timeout=server.write_timeout,
        keepalive=server.keepalive,
    )


def context_of(config: Config) -> ServerContext | None:
    """The certificates to serve with; None where TLS is not asked for."""
    return server_context(config.server.tls) if config.server.tls else None


def log_of(config: Config) -> Log:
    """The log that the configuration asks for; with no access log, only the gateway's own news."""
    chosen = config.telemetry.access_log
    if chosen is None:
        return Log(access=False)
    return Log(chosen.to, text=chosen.format == "text")


def redirect(log: Log, config: Config) -> None:
    """Write on where the configuration says; a file is opened anew, since it may have been rotated."""
    chosen = config.telemetry.access_log
    if chosen is None:
        log.redirect("stdout", access=False, text=False)
    else:
        log.redirect(chosen.to, access=True, text=chosen.format == "text")
