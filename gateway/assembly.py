"""Builds what requests are served with from a configuration; connections and secrets that did not change are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.access import Access
from gateway.config.models import abilities_of
from gateway.config.types import Config, ProviderEntry
from gateway.contract import Provider
from gateway.cors import cors_of
from gateway.credentials import Source, source
from gateway.egress import read_proxy
from gateway.exchange import Upstreams
from gateway.log import News
from gateway.proxy import Snapshot
from gateway.router import Router
from gateway.sharing.holds import Holds
from gateway.sharing.shared import Shared
from gateway.sharing.targets import SharedCounts
from gateway.upstream import Account, Sweep
from gateway.upstream.names import Resolver

USER_AGENT = "sluiceway"
FIXED_HEADERS = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
# A secret that has to be fetched may take so long before the configuration that names it is taken over.
FIRST_SECRET = 2.0

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """A snapshot ready to be taken over, with the accounts and secrets that it uses, by what they were made of."""

    snapshot: Snapshot
    accounts: dict[Key, Account]
    sources: dict[Key, Source]


class Assembly:
    """Makes one snapshot after the other. What a snapshot no longer names is closed once nobody uses it."""

    def __init__(self, providers: Mapping[str, Provider], sweep: Sweep, news: News) -> None:
        self._providers = providers
        self._sweep = sweep
        self._resolver = Resolver()
        self._upstreams = Upstreams(sweep, news)
        self._accounts: dict[Key, Account] = {}
        self._sources: dict[Key, Source] = {}
        self._retired: list[Account] = []
        self._closing: set[asyncio.Future[None]] = set()
        sweep.add(self)

    def share(self, config: Config) -> Shared | None:
        """Count limits together with other processes, if the configuration says so; whoever asks starts and closes it.

        Before anything is prepared.
        """
        upstreams = self._upstreams
        if config.state.store != "redis":
            return None
        shared = Shared(config.state, config.server.workers, Holds(upstreams.health), upstreams.news)
        upstreams.counts = upstreams.shared = SharedCounts(shared)
        return shared

    def prepare(self, config: Config, digest: str) -> Parts:
        """Build a snapshot, changing nothing. It may run in a thread: reading authorities' certificates takes 20 ms."""
        accounts: dict[Key, Account] = {}
        sources: dict[Key, Source] = {}
        by_name: dict[str, Account] = {}
        secrets: dict[str, Source] = {}
        for name, entry in config.providers.items():
            headers = {**FIXED_HEADERS, **{key.lower(): value.reveal() for key, value in entry.headers.items()}}
            key: Key = (name, entry.base_url, tuple(sorted(headers.items())), str(entry.ca_file or ""), entry.proxy)
            by_name[name] = accounts[key] = self._accounts.get(key) or Account(
                headers,
                self._resolver,
                str(entry.ca_file) if entry.ca_file else None,
                read_proxy(entry.proxy.reveal()) if entry.proxy else None,
            )
            kind, options = _secret(self._providers[entry.type], entry)
            key = (name, kind, repr(sorted(options.items())))
            secrets[name] = sources[key] = self._sources.get(key) or source(kind, options)
        upstreams = Upstreams(
            self._sweep,
            self._upstreams.news,
            config.server.write_timeout,
            by_name,
            secrets,
            self._upstreams.health,
            self._upstreams.images,
            self._upstreams.counts,
            self._upstreams.skew,
            self._upstreams.shared,
        )
        router = Router(config, self._providers, abilities_of)
        cors = cors_of(config.server.cors, router.headers)
        return Parts(Snapshot(config, digest, router, Access(config.keys), upstreams, cors), accounts, sources)

    async def fetch(self, parts: Parts) -> None:
        """Get the secrets that no snapshot before had; one that takes longer than two seconds comes later."""
        fresh = [each.start() for key, each in parts.sources.items() if key not in self._sources]
        if fresh:
            await asyncio.wait([asyncio.ensure_future(each) for each in fresh], timeout=FIRST_SECRET)

    def take_over(self, parts: Parts) -> Snapshot:
        """The snapshot, now in force; what only the one before had is let go."""
        for key in parts.accounts.keys() - self._accounts.keys():
            self._sweep.add(parts.accounts[key])
        for key in self._accounts.keys() - parts.accounts.keys():
            self._accounts[key].retire()
            self._retired.append(self._accounts[key])
        for key in self._sources.keys() - parts.sources.keys():
            closing = asyncio.ensure_future(self._sources[key].close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._accounts, self._sources = parts.accounts, parts.sources
        return parts.snapshot

    def sweep(self, now: float) -> None:
        """Forget accounts that are gone from the file, once their last connection has closed."""
        for account in tuple(self._retired):
            if not any(endpoint.connections for endpoint in account.endpoints()):
                self._retired.remove(account)
                self._sweep.discard(account)

    def close(self) -> None:
        """Look up no more names."""
        self._resolver.close()
        self._upstreams.images.close()


def _secret(provider: Provider, entry: ProviderEntry) -> tuple[str, dict[str, Any]]:
    """Which source keeps the entry's secret, and what the source needs to know."""
    options = entry.revealed()
    if entry.proxy:
        options["proxy"] = entry.proxy.reveal()
    return provider.credential(options), options
