"""The options of one LiteLLM deployment that become options of one deployment here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.cli.litellm.pieces import Piece, put
from gateway.cli.litellm.report import Fields, Grade, number, seconds
from gateway.cli.litellm.verify import refused

Limit = Callable[[Piece, str, Fields], None]

# Budgets are per day or per month here.
_PERIODS = {"1d": "day", "24h": "day", "30d": "month", "1mo": "month", "31d": "month"}
_MODEL = {"provider": "x", "model": "m"}
_X = {"x": {"type": "openai", "api_key": {"env": "X"}}}


def _note(piece: Piece, fields: Fields, name: str, grade: Grade, note: str = "") -> None:
    piece.rows.append(fields.add(name, grade, note=note))


def _positive(fields: Fields, name: str, least: float) -> float:
    """The field's number; 0, reported, when it has none that is at least so large."""
    value = fields.value(name)
    found = number(value) or 0.0
    if found < least and value is not None:
        fields.add(name, "manual", note=f"not a number from {least:g}")
    return found if found >= least else 0.0


def _numeric(place: str, grade: Grade, note: str, write: Callable[[float], Any], least: float = 0.001) -> Limit:
    """A number above 0 that is written at one place or more (`a b`)."""

    def apply(piece: Piece, name: str, fields: Fields) -> None:
        if not (found := _positive(fields, name, least)):
            return
        for each in place.split():
            put(piece.deployment, each, write(found))
        _note(piece, fields, name, grade, note)

    return apply


def _rate(piece: Piece, name: str, fields: Fields) -> None:
    if not (given := _positive(fields, name, 1)):
        return
    piece.weight[name] = given
    put(piece.deployment, f"limits.{name}", int(given))
    _note(piece, fields, name, "approximate", "a limit that holds, and the target's weight where none is written")


def _retries(piece: Piece, name: str, fields: Fields) -> None:
    given = number(value := fields.value(name))
    if given is None:
        if value is not None:
            fields.add(name, "manual", note="not a number")
        return
    put(piece.deployment, "retry.attempts", min(10, int(given) + 1))
    _note(piece, fields, name, "approximate", "counts the attempts of a request, other upstreams included")


def _dropping(piece: Piece, name: str, fields: Fields) -> None:
    drop = str(fields.value(name)).lower() not in ("false", "0", "none")
    if not drop:
        piece.deployment["unsupported_params"] = "reject"
    _note(piece, fields, name, "exact", "what is dropped is named in a header" if drop else "")


def _family(piece: Piece, name: str, fields: Fields) -> None:
    piece.deployment["base_model"] = str(fields.value(name)).rpartition("/")[2]
    _note(piece, fields, name, "exact")


def _price(piece: Piece, name: str, fields: Fields) -> None:
    """Prices are per million tokens here; input and output go together."""
    names = {
        "input_cost_per_token": "input",
        "output_cost_per_token": "output",
        "cache_read_input_token_cost": "cached",
        "cache_creation_input_token_cost": "cache_written",
    }
    given = {option: number(fields.value(field)) for field, option in names.items() if field in fields}
    price = {option: round(cost * 1e6, 6) for option, cost in given.items() if cost is not None}
    reason = "" if {"input", "output"} <= set(price) else "a price needs both input and output"
    reason = reason or refused({"providers": _X, "deployments": {"m": {**_MODEL, "price": price}}})
    for field in names:
        if field in fields and not reason:
            _note(piece, fields, field, "exact", "per million tokens")
        elif field in fields:
            fields.add(field, "unsupported", note=reason)
    if not reason:
        piece.deployment["price"] = price


def _budget(piece: Piece, name: str, fields: Fields) -> None:
    amount, period = number(fields.value("max_budget")), str(fields.value("budget_duration"))
    per = _PERIODS.get(period)
    reason = "" if amount and per else "a budget is an amount per day or per month"
    budget = f"{amount or 0:.2f} USD/{per}"
    reason = reason or refused({"providers": _X, "deployments": {"m": {**_MODEL, "limits": {"budget": budget}}}})
    for field in ("max_budget", "budget_duration"):
        if field in fields and not reason:
            _note(piece, fields, field, "approximate", "days and months begin at midnight UTC")
        elif field in fields:
            fields.add(field, "unsupported", note=reason)
    if not reason:
        put(piece.deployment, "limits.budget", budget)


_PRICES = ("input_cost_per_token", "output_cost_per_token")
_BOUND = "LiteLLM bounds each wait for bytes; so do the timers for the first and for the next"
LIMITS: Mapping[str, Limit] = {
    "rpm": _rate,
    "tpm": _rate,
    "max_parallel_requests": _numeric("limits.parallel", "exact", "", int, 1),
    "timeout": _numeric("timeouts.first_byte timeouts.idle", "approximate", _BOUND, seconds),
    "stream_timeout": _numeric("timeouts.idle", "approximate", _BOUND, seconds),
    "max_retries": _retries,
    "num_retries": _retries,
    "cooldown_time": _numeric("breaker.open", "approximate", "grows while the upstream stays broken", seconds),
    "drop_params": _dropping,
    "base_model": _family,
    **dict.fromkeys(_PRICES, _price),
    **dict.fromkeys(("max_budget", "budget_duration"), _budget),
}
