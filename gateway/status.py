"""The status page: what an operator wants to see at a glance, for a browser or as JSON."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import orjson

from gateway import __version__
from gateway.config.budgets import budgets_of
from gateway.config.types import Config
from gateway.hub import Json
from gateway.metrics import SECONDS, Figures
from gateway.purses import ends_in
from gateway.vitals import Vitals

# Rates are those of the last minute, seen in steps of five seconds.
STEP, STEPS = 5.0, 13
# How a request may end without anything being wrong with the gateway or an upstream.
FINE = frozenset(("ok", "client_disconnect"))
DAY = 86_400
# A card's value with more characters is written smaller.
LONG = 10


@dataclass(frozen=True, slots=True)
class Now:
    """What the status page shows beside the figures; Unix times."""

    config: Config
    digest: str
    at: float
    began: float
    vitals: Vitals
    figures: Figures
    ready: bool
    failed_at: float = 0.0


@dataclass(slots=True)
class Seen:
    """What one model has had so far: requests, failed ones among them, tokens."""

    requests: float = 0.0
    failed: float = 0.0
    tokens: float = 0.0
    cost: dict[str, float] = field(default_factory=dict)


class Status:
    """Makes the page, and remembers the last minute for its rates."""

    def __init__(self, look: Callable[[], Figures], now: float) -> None:
        self._look = look
        self._past: deque[tuple[float, dict[str, Seen]]] = deque([(now, {})], maxlen=STEPS)
        self._page = files("gateway").joinpath("status.html").read_text("utf-8")
        style = self._page.partition("<style>")[2].partition("</style>")[0]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self.headers: Mapping[str, str] = {
            "content-security-policy": f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'",
            "referrer-policy": "no-referrer",
            "x-frame-options": "DENY",
        }

    def sweep(self, now: float) -> None:
        """Remember how things stand, every five seconds."""
        if now - self._past[-1][0] >= STEP:
            self._past.append((now, by_model(self._look())))

    def json(self, now: Now, loop_time: float) -> bytes:
        """The page for programs."""
        return orjson.dumps(self._view(now, loop_time), option=orjson.OPT_INDENT_2) + b"\n"

    def html(self, now: Now, loop_time: float) -> bytes:
        """The page for a browser; it asks for itself again every five seconds."""
        view = self._view(now, loop_time)
        parts = {
            "version": escape(view["version"]),
            "state": "ready" if view["ready"] else "not ready",
            "tone": "good" if view["ready"] else "bad",
            "notice": _notice(view["configuration"]),
            "cards": _cards(view),
            "models": "".join(map(_model_row, view["models"])),
            "upstreams": "".join(map(_upstream_row, view["upstreams"])),
            "budgets": _budgets_table(view["budgets"]),
            "errors": "".join(map(_error_row, view["errors"])) or '<tr><td colspan="5" class="quiet">none</td></tr>',
        }
        return Template(self._page).substitute(parts).encode()

    def _view(self, now: Now, loop_time: float) -> Json:
        config, vitals = now.config, now.vitals
        models = self._models(now, loop_time)
        return {
            "version": __version__,
            "ready": now.ready,
            "at": _stamp(now.at),
            "began": _stamp(now.began),
            "uptime_seconds": round(now.at - now.began),
            "workers": int(vitals.get("workers", 1)),
            "configuration": {
                "digest": now.digest,
                "loaded": _stamp(vitals["config_loaded_timestamp_seconds"]),
                "reloads": int(vitals["config_reloads_total"]),
                "reload_failed": bool(vitals["config_reload_failed"]),
                "failed": _stamp(now.failed_at) if now.failed_at else None,
            },
            "requests_active": int(vitals.get("requests_active", 0)),
            "connections": int(vitals.get("connections", 0)),
            "body_bytes_held": int(vitals.get("body_bytes_held", 0)),
            "requests_per_minute": round(sum(model["requests_per_minute"] for model in models), 1),
            "tokens_per_minute": round(sum(model["tokens_per_minute"] for model in models), 1),
            "models": models,
            "cost": _rounded(_total(now.figures)),
            "budgets": _budgets(config, now.figures, now.at),
            "upstreams": _upstreams(config, now.figures),
            "errors": [{**failure._asdict(), "at": _stamp(failure.at)} for failure in reversed(now.figures.errors)],
        }

    def _models(self, now: Now, loop_time: float) -> list[Json]:
        seen = by_model(now.figures)
        then, before = self._past[0]
        span = max(loop_time - then, 1.0) / 60
        firsts = now.figures.histograms.get("time_to_first_event_seconds", {})
        found = []
        for name, (kind, targets) in _names(now.config).items():
            mine, old = seen.get(name, Seen()), before.get(name, Seen())
            found.append(
                {
                    "name": name,
                    "kind": kind,
                    "targets": targets,
                    "requests": int(mine.requests),
                    "failed": int(mine.failed),
                    "tokens": int(mine.tokens),
                    "cost": _rounded(mine.cost),
                    "requests_per_minute": round((mine.requests - old.requests) / span, 1),
                    "tokens_per_minute": round((mine.tokens - old.tokens) / span, 1),
                    "first_event_p95_seconds": p95(firsts.get((name,))),
                }
            )
        return found


def by_model(figures: Figures) -> dict[str, Seen]:
    """What each model has had; one that is not in the configuration stands under an empty name."""
    found: dict[str, Seen] = {}
    for (model, status, code), count in figures.counts.get("requests_total", {}).items():
        seen = found.setdefault(model, Seen())
        seen.requests += count
        if code not in FINE and status != "4xx":
            seen.failed += count
    for (model, kind), count in figures.counts.get("tokens_total", {}).items():
        if kind in {"prompt", "completion"}:
            found.setdefault(model, Seen()).tokens += count
    for (model, currency), amount in figures.counts.get("cost_total", {}).items():
        found.setdefault(model, Seen()).cost[currency] = amount
    return found


def p95(buckets: list[float] | None) -> float | None:
    """The bound under which 95 of 100 stay; None for none, and for one beyond the last bound."""
    if not buckets or not (total := sum(buckets[:-1])):
        return None
    count = 0.0
    for bound, more in zip(SECONDS, buckets, strict=False):
        count += more
        if count >= 0.95 * total:
            return bound
    return None


def _names(config: Config) -> dict[str, tuple[str, list[str]]]:
    """Every name that clients may use: what it is, and what it leads to."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name, routing in config.routings.items():
        found[name] = ("routing", [*(target.use for target in routing.targets), *routing.fallback])
    for name, adapter in config.adapters.items():
        found[name] = ("adapter", [adapter.deployment])
    for name, deployment in config.deployments.items():
        found[name] = ("deployment", [f"{deployment.provider}: {deployment.model}"])
    return found


def _upstreams(config: Config, figures: Figures) -> list[Json]:
    gauges = figures.gauges
    breakers: dict[str, set[str]] = {}
    for (name, state), count in gauges.get("breaker_state", {}).items():
        if count:
            breakers.setdefault(name, set()).add(state)
    attempts: dict[str, dict[str, int]] = {}
    for (name, result), count in figures.counts.get("attempts_total", {}).items():
        adapter = config.adapters.get(name)
        results = attempts.setdefault(adapter.deployment if adapter else name, {})
        results[result] = results.get(result, 0) + int(count)
    connections: dict[str, int] = {}
    for (provider, _), count in gauges.get("upstream_connections", {}).items():
        connections[provider] = connections.get(provider, 0) + int(count)
    return [
        {
            "name": name,
            "provider": deployment.provider,
            "type": config.providers[deployment.provider].type,
            "model": deployment.model,
            "breaker": next((each for each in ("open", "half-open") if each in breakers.get(name, ())), "closed"),
            "held": bool(gauges.get("upstream_held", {}).get((name,))),
            "active": int(gauges.get("upstream_active", {}).get((name,), 0)),
            "waiting": int(gauges.get("upstream_waiting", {}).get((name,), 0)),
            "connections": connections.get(deployment.provider, 0),
            "attempts": attempts.get(name, {}),
        }
        for name, deployment in config.deployments.items()
    ]


def _total(figures: Figures) -> dict[str, float]:
    """The money of all models, by currency."""
    found: dict[str, float] = {}
    for (_, currency), amount in figures.counts.get("cost_total", {}).items():
        found[currency] = found.get(currency, 0) + amount
    return found


def _rounded(money: Mapping[str, float]) -> dict[str, float]:
    return {currency: round(amount, 6) for currency, amount in money.items()}


def _budgets(config: Config, figures: Figures, now: float) -> list[Json]:
    spent = figures.gauges.get("budget_spent", {})
    return [
        {
            "kind": owner.kind,
            "name": owner.name,
            "spent": round(spent.get(owner, 0.0), 6),
            "budget": budget.amount,
            "currency": budget.currency,
            "per": budget.per,
            "begins_anew_in_seconds": round(ends_in(now, budget.per)),
        }
        for owner, budget in budgets_of(config).items()
    ]


def _notice(configuration: Mapping[str, Any]) -> str:
    if not configuration["reload_failed"]:
        return ""
    since = escape(configuration["failed"] or "")
    return f'<p class="notice">The configuration file is wrong since {since}; the one before serves on.</p>'


def _cards(view: Mapping[str, Any]) -> str:
    configuration = view["configuration"]
    cards = {
        "in flight": f"{view['requests_active']:,}",
        "requests / min": f"{view['requests_per_minute']:,g}",
        "tokens / min": f"{view['tokens_per_minute']:,.0f}",
        **{f"cost, {currency}": _money(amount) for currency, amount in view["cost"].items()},
        "connections": f"{view['connections']:,}",
        "workers": str(view["workers"]),
        "up for": _span(view["uptime_seconds"]),
        "configuration": configuration["digest"],
        "loaded": configuration["loaded"],
    }
    return "".join(_card(name, value) for name, value in cards.items())


def _card(name: str, value: str) -> str:
    size = "long" if len(value) > LONG else "short"
    return f'<div><dt>{escape(name)}</dt><dd class="{size}">{escape(value)}</dd></div>'


def _model_row(model: Mapping[str, Any]) -> str:
    first = model["first_event_p95_seconds"]
    return _row(
        f"<b>{escape(model['name'])}</b>",
        escape(model["kind"]),
        _quiet(", ".join(model["targets"])),
        _number(f"{model['requests']:,}"),
        _number(f"{model['failed']:,}", "bad" if model["failed"] else ""),
        _number(f"{model['requests_per_minute']:,g}"),
        _number(f"{model['tokens']:,}"),
        _number(f"{model['tokens_per_minute']:,.0f}"),
        _number(", ".join(f"{_money(amount)} {currency}" for currency, amount in model["cost"].items()) or "–"),
        _number(f"≤ {first:g} s" if first else "–"),
    )


def _upstream_row(upstream: Mapping[str, Any]) -> str:
    tone = {"closed": "good", "half-open": "fair", "open": "bad"}[upstream["breaker"]]
    held = ' <span class="tag fair">held</span>' if upstream["held"] else ""
    results = ", ".join(f"{count:,} × {result}" for result, count in sorted(upstream["attempts"].items()))
    return _row(
        f"<b>{escape(upstream['name'])}</b>",
        escape(upstream["provider"]),
        _quiet(upstream["model"]),
        f'<span class="tag {tone}">{upstream["breaker"]}</span>{held}',
        _number(f"{upstream['active']:,}"),
        _number(f"{upstream['waiting']:,}"),
        _number(f"{upstream['connections']:,}"),
        _quiet(results or "–"),
    )


def _budgets_table(budgets: list[Json]) -> str:
    """The budgets under a heading of their own; nothing where there are none."""
    if not budgets:
        return ""
    heads = '<th>of</th><th>name</th><th class="n">spent</th><th class="n">budget</th><th class="n">begins anew in</th>'
    rows = "".join(map(_budget_row, budgets))
    table = f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>{rows}</tbody>\n</table>"
    return f'<h2>Budgets</h2>\n<div class="scroll">{table}</div>'


def _budget_row(budget: Mapping[str, Any]) -> str:
    tone = "bad" if budget["spent"] >= budget["budget"] else ""
    return _row(
        escape(budget["kind"]),
        f"<b>{escape(budget['name'])}</b>",
        _number(_money(budget["spent"]), tone),
        _number(f"{budget['budget']:,g} {budget['currency']} per {budget['per']}"),
        _number(_span(budget["begins_anew_in_seconds"])),
    )


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.4g}"


def _error_row(failure: Mapping[str, Any]) -> str:
    names = (escape(failure[name]) or "–" for name in ("model", "deployment"))
    return _row(escape(failure["at"]), escape(failure["code"]), _number(str(failure["status"] or "–")), *names)


def _row(*cells: str) -> str:
    """A row of markup; a cell that begins with `<td` is whole already."""
    return f"<tr>{''.join(cell if cell.startswith('<td') else f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def _number(text: str, tone: str = "") -> str:
    return f'<td class="n {tone}">{text}</td>' if tone else f'<td class="n">{text}</td>'


def _quiet(text: str) -> str:
    return f'<td class="quiet">{escape(text)}</td>'


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _span(seconds: int) -> str:
    days, rest = divmod(seconds, DAY)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
