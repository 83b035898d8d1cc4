"""Which tariff a deployment goes by: its own `price`, or what the package's table says of its model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import orjson

from gateway.config.types import Deployment, Price
from gateway.prices import Tariff, find

# Models that clients ask for through a wildcard; each is looked up once.
KEPT = 4096


def tariff_of(kind: str, deployment: Deployment, model: str = "") -> Tariff | None:
    """The tariff of a deployment at a provider of this type, or of `model` in its place; None when nobody knows it.

    A variation whose own model the table does not have, such as a LoRA, costs what its deployment costs.
    """
    if deployment.price is not None:
        return tariff(deployment.price)
    ids = (model, deployment.base_model, deployment.model)
    return next((found for each in ids if each and (found := listed(kind, each))), None)


def tariff(price: Price) -> Tariff:
    """The tariff that a price in the file stands for; cached tokens without a price of their own cost as others."""
    cached = price.input if price.cached is None else price.cached
    written = price.input if price.cache_written is None else price.cache_written
    return Tariff(price.input, price.output, cached, written, price.currency)


@lru_cache(maxsize=KEPT)
def listed(kind: str, model: str) -> Tariff | None:
    """What the table says of a model at providers of a type."""
    own = _table().get(kind)
    if own is None:
        return None
    return find(own, model)


def has_table(kind: str) -> bool:
    """Does the table know models of this type of provider?"""
    return kind in _table()


@cache
def _table() -> Mapping[str, Mapping[str, Tariff]]:
    content: Any = orjson.loads(files("gateway").joinpath("prices.json").read_bytes())
    entries = content["providers"]
    models = {
        kind: {name: _tariff(row, content["currency"]) for name, row in entry["models"].items()}
        for kind, entry in entries.items()
    }
    return {
        kind: {name: found for each in (*reversed(entry["also"]), kind) for name, found in models[each].items()}
        for kind, entry in entries.items()
    }


def _tariff(row: Mapping[str, Any], currency: str) -> Tariff:
    beyond: Tariff | None = None
    above = 0
    for start, prices in reversed(row.get("above", ())):
        beyond, above = _flat(prices, currency, above, beyond), start
    return _flat(row, currency, above, beyond)


def _flat(row: Mapping[str, float], currency: str, above: int, beyond: Tariff | None) -> Tariff:
    plain = row["input"]
    return Tariff(
        plain, row["output"], row.get("cached", plain), row.get("cache_written", plain), currency, above, beyond
    )
