"""How a process's upstreams stand now, as numbers: breakers, requests in flight, connections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.exchange import Upstreams
from gateway.health import Health
from gateway.metrics import Metrics, Values
from gateway.purses import Purses
from gateway.routes import Attempt
from gateway.upstream import Account

IDLE = Health()


def gauges(upstreams: Upstreams, attempts: Iterable[Attempt], now: float) -> dict[str, Values]:
    """The families that are gauges. An upstream that was never needed has nothing in flight and a closed breaker.

    Of what several processes spend together each shows its part, so that the sum over them is right.
    """
    breakers: Values = {}
    active: Values = {}
    waiting: Values = {}
    held: Values = {}
    for name in dict.fromkeys(attempt.deployment for attempt in attempts):
        health = upstreams.health.get(name, IDLE)
        labels = (name,)
        breakers[name, health.state(now)] = 1
        active[labels] = health.active
        waiting[labels] = len(health.waiting)
        held[labels] = now < health.held_until
    return {
        "breaker_state": breakers,
        "upstream_active": active,
        "upstream_waiting": waiting,
        "upstream_held": held,
        "upstream_connections": _connections(upstreams.accounts),
        **_money(upstreams.counts.purses),
    }


def collect_retries(accounts: Mapping[str, Account], metrics: Metrics) -> None:
    """Count what was sent again because a reused connection was dead."""
    for provider, account in accounts.items():
        count = 0
        for endpoint in account.endpoints():
            count += endpoint.stale_retries
            endpoint.stale_retries = 0
        if count:
            metrics.retried(provider, count)


def _money(purses: Purses) -> dict[str, Values]:
    budgets: Values = {}
    spent: Values = {}
    for owner, budget, amount in purses.standing():
        budgets[owner] = budget.amount / purses.processes
        spent[owner] = amount / purses.processes if purses.shared else amount
    return {"budget": budgets, "budget_spent": spent}


def _connections(accounts: Mapping[str, Account]) -> Values:
    found: Values = {}
    for provider, account in accounts.items():
        endpoints = account.endpoints()
        spare = sum(endpoint.spare for endpoint in endpoints)
        found[provider, "busy"] = sum(endpoint.connections for endpoint in endpoints) - spare
        found[provider, "idle"] = spare
    return found
