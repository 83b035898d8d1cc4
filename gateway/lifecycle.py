"""The life of the process that the operator sees: signals, reload, readiness, the admin listener, systemd."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from gateway import systemd
from gateway.admin import Admin
from gateway.config.loader import Loaded
from gateway.config.types import Config
from gateway.demo.server import Demo, start_demo
from gateway.errors import GatewayError
from gateway.front import Bounds, Front
from gateway.listeners import CannotServe, Opened, Passed, Rights, open_sockets, serve_on
from gateway.log import Log
from gateway.metrics import Figures
from gateway.pages import Pages, Reloads
from gateway.upstream import Sweep

POLL = 1.0
# An editor or a copy may still be writing: a file that changed is read when it has been still for so long.
SETTLE, SETTLE_MOST = 0.1, 1.0
ADMIN_CONNECTIONS = 256
FINDINGS_SHOWN = 20
# Options of `server` that name what is opened once; a reload reports that they changed.
FIXED = ("listen", "admin", "demo", "workers", "unix_mode", "unix_owner", "unix_group")

Reader = Callable[[], Loaded]
Stamp = tuple[int, int, int] | None


class Service(Protocol):
    """What serves: this process itself, or workers of it."""

    @property
    def ready(self) -> bool: ...

    async def start(self) -> None:
        """Begin to serve; returns when requests are answered, raises CannotServe."""

    async def apply(self, config: Config, digest: str) -> None:
        """Serve the next requests by another configuration."""

    async def drain(self, limit: float, hurry: asyncio.Event) -> None:
        """Stop within `limit` seconds, or at once with `hurry`."""

    def opened(self) -> Opened:
        """Where it listens."""

    def vitals(self) -> dict[str, float]: ...
    def figures(self) -> Figures: ...


class Lifecycle:
    """Runs a service until SIGTERM or SIGINT; a second of either ends the drain at once."""

    def __init__(self, service: Service, loaded: Loaded, config: Config, read: Reader, log: Log, sweep: Sweep) -> None:
        self._service = service
        self._loaded = loaded
        self._config = config
        self._read = read
        self._log = log
        self._sweep = sweep
        self._reload_wanted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reloads = Reloads(config, loaded.digest)
        self._demo: Demo | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._admin_opened: Opened | None = None
        self._admin_servers: list[asyncio.AbstractServer] = []
        self._pages = Pages(service, self._reloads, self._stopping)
        self._admin = Front(
            Admin(self._pages.makers).handle, Bounds(max_connections=ADMIN_CONNECTIONS), sweep, _ignored
        )

    async def run(self, passed: Passed, announce: Callable[[Config], None]) -> int:
        """Serve, and drain in the end; returns the exit code. `announce` is called when requests are answered."""
        self._take_signals()
        self._log.start()
        self._sweep.add(self._log)
        self._sweep.add(self._pages.status)
        self._sweep.start()
        try:
            await self._open_admin(passed)
            if await self._started():
                self._begin(announce)
                await self._stopping.wait()
            await self._end()
        finally:
            await self._close()
        return 0

    async def _started(self) -> bool:
        """Has the service begun? False when a signal came first."""
        start = asyncio.ensure_future(self._service.start())
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not start.done():
            start.cancel()
            return False
        start.result()
        return True

    def _begin(self, announce: Callable[[Config], None]) -> None:
        self._spawn(self._watch())
        self._spawn(self._give_signs())
        announce(replace(self._config, server=replace(self._config.server, listen=self._service.opened().address)))
        self._tell("READY=1")

    async def _end(self) -> None:
        systemd.notify(os.environ, "STOPPING=1", "STATUS=draining")
        await self._service.drain(self._config.server.drain, self._hurry)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._admin_opened is not None:
            self._admin_opened.remove_path()
        for server in self._admin_servers:
            server.close()
        for client in tuple(self._admin.clients):
            client.abort()
        if self._demo is not None:
            await self._demo.stop()
        self._sweep.stop()
        self._log.close()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)

    def _terminate(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def _open_admin(self, passed: Passed) -> None:
        server = self._config.server
        if server.demo is not None:
            try:
                self._demo = await start_demo(server.demo.host, server.demo.port)
            except OSError as error:
                raise CannotServe(f"cannot listen on {server.demo}: {os.strerror(error.errno or 0).lower()}") from error
        if server.admin is None:
            return
        opened = self._admin_opened = open_sockets(server.admin, passed, rights=Rights.of(server))
        if opened.exposed and not server.insecure:
            raise CannotServe(f"server.admin would be open at {opened.exposed}, and it asks for no key")
        self._admin_servers = [await serve_on(each, self._admin.server) for each in opened.sockets]

    async def _watch(self) -> None:
        """Reload at SIGHUP, and when a file of the configuration changes; a look per second at resolved paths."""
        seen = stamps(self._loaded.files)
        while not self._stopping.is_set():
            # A poll, because inotify does not see the symlink swap of a mounted ConfigMap.
            asked = await _within(self._reload_wanted.wait(), POLL)
            self._reload_wanted.clear()
            now = stamps(self._loaded.files)
            if not asked and now == seen:
                continue
            if not asked:
                now = await self._settled(now)
            await self._reload()
            # What has changed while it was read is seen next time.
            seen = {path: now.get(path, stamp) for path, stamp in stamps(self._loaded.files).items()}

    async def _settled(self, now: dict[Path, Stamp]) -> dict[Path, Stamp]:
        until = asyncio.get_running_loop().time() + SETTLE_MOST
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(SETTLE)  # an editor may still be writing: files do not say when they are whole
            before, now = now, stamps(self._loaded.files)
            if before == now:
                break
        return now

    async def _reload(self) -> None:
        """Read the file again; a good one replaces what is in force, a bad one changes nothing."""
        systemd.notify(os.environ, *systemd.reloading())
        try:
            loaded = await asyncio.to_thread(self._read)
            if loaded.config is None:
                self._refuse(loaded)
            elif problem := self._unsafe(loaded.config):
                self._fail(problem)
            else:
                await self._take(loaded, loaded.config)
        except Exception as error:  # whatever it was, the old configuration serves on
            self._fail(f"{type(error).__name__} while the configuration was read")
        self._tell("READY=1")

    async def _take(self, loaded: Loaded, config: Config) -> None:
        fixed = {name: getattr(self._config.server, name) for name in FIXED}
        late = [f"server.{name}" for name in FIXED if getattr(config.server, name) != fixed[name]]
        if config.state.store == "redis" or self._config.state.store == "redis":
            late += ["state"] if config.state != self._config.state else []
            config = replace(config, state=self._config.state)
        config = replace(config, server=replace(config.server, **fixed))
        await self._service.apply(config, loaded.digest)
        self._loaded, self._config = loaded, config
        self._reloads.take(config, loaded.digest)
        self._log.news("info", "configuration loaded", digest=loaded.digest)
        if late:
            self._log.news("warning", "a restart is needed before this takes effect", options=late)

    def _refuse(self, loaded: Loaded) -> None:
        errors = [str(finding) for finding in loaded.findings if finding.level == "error"]
        self._fail("the configuration is wrong", findings=errors[:FINDINGS_SHOWN], count=len(errors))

    def _fail(self, why: str, **fields: Any) -> None:
        self._reloads.refuse()
        self._log.news("error", f"{why}; the one before serves on", **fields)

    def _unsafe(self, config: Config) -> str:
        """Why a configuration must not be taken over, although it is right by itself."""
        return exposure(config, self._service.opened())

    async def _give_signs(self) -> None:
        interval = systemd.watchdog_interval(os.environ, os.getpid())
        while interval is not None:
            systemd.notify(os.environ, "WATCHDOG=1")
            await asyncio.sleep(interval)  # from the event loop: a loop that hangs sends nothing

    def _tell(self, state: str) -> None:
        models = len(self._config.deployments) + len(self._config.adapters) + len(self._config.routings)
        failed = "; the file is wrong, an older one serves" if self._reloads.broken else ""
        systemd.notify(
            os.environ, state, f"STATUS=serving {models} models, configuration {self._loaded.digest}{failed}"
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))


def stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    """What shows whether a file is still the same, for each of these; None for one that is not there."""
    found: dict[Path, Stamp] = {}
    for path in files:
        try:
            stat = path.stat()
        except OSError:
            found[path] = None
        else:
            found[path] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return found


def exposure(config: Config, opened: Opened) -> str:
    """Why these sockets must not be served under this configuration; empty when they may."""
    if config.keys or config.server.insecure or not opened.exposed:
        return ""
    return f"{opened.exposed} would be open to other machines without keys"


def _ignored(error: GatewayError) -> None:
    """The admin listener's refusals are nobody's business."""


async def _within(event: Coroutine[Any, Any, object], seconds: float) -> bool:
    try:
        await asyncio.wait_for(event, seconds)
    except TimeoutError:
        return False
    return True
