"""LiteLLM's settings outside `model_list`: what they come to here, and what has no equivalent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.litellm.known import GENERAL, LIBRARY, ROUTER
from gateway.cli.litellm.pieces import Entry, put
from gateway.cli.litellm.report import Fields, Report, is_reference, number, seconds, variable
from gateway.cli.litellm.verify import refused

STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "least_busy",
    "latency-based-routing": "lowest_latency",
    "usage-based-routing": "weighted",
    "usage-based-routing-v2": "weighted",
}
SHORTEST = 0.001
_EXACT = ("simple-shuffle", "least-busy")
_TIMED = "LiteLLM bounds each wait for bytes; so do the timers for the first and for the next"
_COUNTED = "counts the attempts of a request, fallbacks included"


@dataclass(slots=True)
class Settings:
    """What the settings come to. `fallbacks` are by group, `everywhere` for groups that have none of their own."""

    strategy: str = "weighted"
    fallbacks: dict[str, list[str]] = field(default_factory=dict)
    everywhere: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    defaults: Entry = field(default_factory=dict)
    retries: int | None = None
    retry: Entry = field(default_factory=dict)
    server: Entry = field(default_factory=dict)
    state: Entry = field(default_factory=dict)
    master: str = ""


Apply = Callable[[Settings, str, Fields], None]


def read(source: Fields, report: Report) -> Settings:
    """All settings; those of the router go over those of the library."""
    made = Settings()
    for section, table, known in (
        ("litellm_settings", {**_SHARED, **_LIBRARY}, LIBRARY),
        ("router_settings", {**_SHARED, **_ROUTER}, ROUTER),
        ("general_settings", _GENERAL, GENERAL),
    ):
        fields = Fields(source.open(section), section, report)
        for name, apply in table.items():
            if name in fields and name in fields.names():
                apply(made, name, fields)
        fields.leave(known)
    return made


def _strategy(made: Settings, name: str, fields: Fields) -> None:
    given = str(fields.value(name))
    if given not in STRATEGIES:
        fields.add(name, "unsupported", "routings.*.strategy", "no such strategy: the targets are drawn by weight")
        return
    made.strategy = STRATEGIES[given]
    note = "" if given in _EXACT else f"now {made.strategy}, within the limits of each deployment"
    fields.add(name, "exact" if given in _EXACT else "approximate", "routings.*.strategy", note)


def _retries(made: Settings, name: str, fields: Fields) -> None:
    value = number(fields.value(name))
    if value is not None:
        made.retries = int(value)
        fields.add(name, "approximate", "retry.attempts", _COUNTED)


def _timed(places: str, note: str) -> Apply:
    def apply(made: Settings, name: str, fields: Fields) -> None:
        value = number(given := fields.value(name))
        if value and value >= SHORTEST:
            for place in places.split():
                put(made.retry, place, seconds(value))
            fields.add(name, "approximate", f"retry.{places.replace(' ', ', retry.')}", note)
        elif given is not None:
            fields.add(name, "manual", note="not a number of seconds")

    return apply


def _fails(made: Settings, name: str, fields: Fields) -> None:
    value = number(fields.value(name))
    if value is not None:
        made.retry.setdefault("breaker", {}).update(failures=min(10_000, int(value) + 1), window="60s")
        fields.add(name, "approximate", "retry.breaker", "failures in a row, not failures in a minute")


def _no_cooldown(made: Settings, name: str, fields: Fields) -> None:
    if str(fields.value(name)).lower() == "true":
        put(made.retry, "breaker.failures", 10_000)
        fields.add(name, "approximate", "retry.breaker", "a breaker that hardly ever opens")
    else:
        fields.add(name, "exact", note="breakers are on")


def _fallbacks(made: Settings, name: str, fields: Fields) -> None:
    given = fields.take(name)
    found: dict[str, list[str]] = {}
    for each in given if isinstance(given, list) else [given]:
        for group, after in each.items() if isinstance(each, Mapping) else ():
            names = [str(one) for one in after] if isinstance(after, list) else []
            found[str(group)] = [one for one in names if not one.startswith("{")]
            if len(found[str(group)]) != len(names) or not names:
                fields.add(f"{name}.{group}", "unsupported", note="a fallback here is the name of a model")
    made.everywhere = found.pop("*", made.everywhere)
    made.fallbacks = {**made.fallbacks, **found}
    fields.add(name, "exact", "routings.*.fallback", "each below, with what differs")


def _everywhere(made: Settings, name: str, fields: Fields) -> None:
    given = fields.take(name)
    made.everywhere = [str(each) for each in given] if isinstance(given, list) else []
    fields.add(name, "exact", "routings.*.fallback", "of every model that has no fallbacks of its own")


def _aliases(made: Settings, name: str, fields: Fields) -> None:
    given = Fields(fields.take(name), fields.at(name), fields.report)
    for alias, target in given.raw.items():
        hidden = isinstance(target, Mapping)
        made.aliases[alias] = str(target.get("model") if isinstance(target, Mapping) else target)
        if hidden and target.get("hidden"):
            given.add(f"{alias}.hidden", "unsupported", note="it is listed; a key's `models` say who sees it")
    fields.add(name, "exact", "routings", "each below")


def _defaults(made: Settings, name: str, fields: Fields) -> None:
    given = fields.take(name)
    if isinstance(given, Mapping):
        made.defaults |= {str(option): value for option, value in given.items()}
    fields.add(name, "exact", note="part of every deployment")


def _default(option: str) -> Apply:
    def apply(made: Settings, name: str, fields: Fields) -> None:
        value = fields.value(name)
        if value is not None:
            made.defaults[option] = value
            fields.add(name, "exact", note="part of every deployment")

    return apply


def _redis(made: Settings, name: str, fields: Fields) -> None:
    """All of Redis at once: one address, kept in the environment because it holds the password."""
    names = [each for each in fields.names() if each.startswith("redis_")]
    url = fields.take("redis_url")
    reference = variable(url) if is_reference(url) else "REDIS_URL"
    reason = refused({"state": {"store": "redis", "url": "redis://redis.example"}})
    for each in names:
        if reason:
            fields.add(each, "unsupported", note=reason)
        elif each == "redis_url" and is_reference(url):
            fields.add(each, "exact", "state")
        else:
            fields.add(each, "manual", "state", f"put redis://:PASSWORD@HOST:PORT/DB into the environment: {reference}")
    if not reason:
        made.state = {"store": "redis", "url": fields.report.env(reference, "redis://:PASSWORD@HOST:PORT/DB")}


def _callbacks(made: Settings, name: str, fields: Fields) -> None:
    given = fields.take(name)
    names = {str(each) for each in (given if isinstance(given, list) else [given])}
    if names <= {"prometheus"}:
        fields.add(name, "approximate", note="/metrics of the admin listener, with names of its own: docs/metrics.md")
    else:
        fields.add(name, "unsupported", note="no callbacks: the access log and /metrics tell of every request")


def _said(grade: Any, note: str) -> Apply:
    def apply(made: Settings, name: str, fields: Fields) -> None:
        true = str(fields.value(name)).lower() == "true"
        fields.add(name, grade if true else "exact", note=note if true else "off, as here")

    return apply


def _master(made: Settings, name: str, fields: Fields) -> None:
    """A key is kept as its digest, so the clients' key stays the same."""
    value = fields.take(name)
    key = fields.report.environ.get(variable(value), "") if is_reference(value) else str(value)
    if not key:
        note = f"clients need no key until you add one: set {variable(str(value))} and import again"
        fields.add(name, "manual", "keys", f"{note}, or use `sluiceway keys hash`")
        return
    made.master = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    fields.add(name, "approximate", "keys.master", "the same key for the same models; it administers nothing")


def _sized(option: str) -> Apply:
    def apply(made: Settings, name: str, fields: Fields) -> None:
        value = number(fields.value(name))
        if value and value >= SHORTEST:
            size = f"{value:.3f}".rstrip("0").rstrip(".") + "MiB"
            made.server[option] = size
            fields.add(name, "exact", f"server.{option}")

    return apply


_SHARED: Mapping[str, Apply] = {
    "num_retries": _retries,
    "timeout": _timed("timeouts.first_byte timeouts.idle", _TIMED),
    "request_timeout": _timed("timeouts.first_byte timeouts.idle", _TIMED),
    "stream_timeout": _timed("timeouts.idle", _TIMED),
    "retry_after": _timed("backoff", "the longest first wait, drawn by chance and doubled each time"),
    "allowed_fails": _fails,
    "cooldown_time": _timed("breaker.open", "grows while an upstream stays broken"),
    "fallbacks": _fallbacks,
    "default_fallbacks": _everywhere,
}
_LIBRARY: Mapping[str, Apply] = {
    "drop_params": _default("drop_params"),
    "model_alias_map": _aliases,
    **dict.fromkeys(("callbacks", "success_callback", "failure_callback", "service_callbacks"), _callbacks),
    "turn_off_message_logging": _said("exact", "prompts and answers are never logged"),
    "json_logs": _said("exact", "the access log is JSON"),
}
_ROUTER: Mapping[str, Apply] = {
    "routing_strategy": _strategy,
    "disable_cooldowns": _no_cooldown,
    "model_group_alias": _aliases,
    "default_litellm_params": _defaults,
    "default_max_parallel_requests": _default("max_parallel_requests"),
    **dict.fromkeys(("redis_url", "redis_host", "redis_port", "redis_password"), _redis),
}
_GENERAL: Mapping[str, Apply] = {
    "master_key": _master,
    "max_parallel_requests": _default("max_parallel_requests"),
    "max_request_size_mb": _sized("max_body"),
}
