"""`python -m gateway.cli.prices > gateway/prices.json`: the price table, made from what `genai-prices` knows today."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gateway.prices import find

# Which of the package's providers each type of ours is; a model that the first does not have is looked up in the rest.
SOURCES: Mapping[str, tuple[str, ...]] = {
    "openai": ("openai",),
    "azure": ("azure", "openai", "anthropic", "xai"),
    "together": ("together",),
    "fireworks": ("fireworks",),
    "xai": ("x-ai",),
    "anthropic": ("anthropic",),
    "google": ("google", "anthropic"),
    "bedrock": ("aws",),
}
PRICES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_written": "cache_write_mtok",
}
# No chat goes through these, and what they charge for is not tokens alone.
NO_CHAT = re.compile(
    r"embed|moderation|audio|realtime|transcribe|tts|whisper|image|voice|sonic|live|omni|:free$|:extended$|robotics"
)
# In the ids of models that the package recognises by a part of their name.
REVISION = re.compile(r"-v\d+(:\d+)?$|(?<=-\d{3}b):\d$|:\d$")


def main() -> int:
    """Write the table to stdout."""
    try:
        import genai_prices
        from genai_prices.data import providers
    except ImportError:
        print("this needs the extra `prices`: pip install 'sluiceway[prices]'", file=sys.stderr)
        return 2
    source = f"genai-prices {genai_prices.__version__}"
    print(written(table({each.id: each for each in providers}, datetime.now(UTC)), source, datetime.now(UTC)))
    return 0


def written(prices: Mapping[str, Mapping[str, Any]], source: str, now: datetime) -> str:
    """The file: a line per model."""
    head = {"source": source, "date": now.strftime("%Y-%m-%d"), "currency": "USD", "per": "a million tokens"}
    parts = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    kinds = ",\n".join(f'    "{kind}": {_entry(**entry)}' for kind, entry in prices.items())
    return "{\n" + ",\n".join((*parts, f'  "providers": {{\n{kinds}\n  }}')) + "\n}"


def _entry(also: Sequence[str], models: Mapping[str, Any]) -> str:
    lines = ",\n".join(f"        {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(models.items()))
    return f'{{\n      "also": {json.dumps(also)},\n      "models": {{\n{lines}\n      }}\n    }}'


def table(providers: Mapping[str, Any], now: datetime) -> dict[str, dict[str, Any]]:
    """By type: the prices of each model's names, and the types whose models it has as well."""
    found: dict[str, dict[str, Any]] = {}
    for kind, (own, *others) in SOURCES.items():
        models: dict[str, Any] = {}
        for model in providers[own].models:
            if row := _row(model.get_prices(now)):
                for name in names(model):
                    models.setdefault(name, row)
        found[kind] = {"also": others, "models": _thinned(models)}
    return found


def names(model: Any) -> Iterator[str]:
    """What a model is called: the names that the package compares with, or its id where it looks for a part of one."""
    for name in dict.fromkeys(_clauses(model.match)) or (REVISION.sub("", model.id),):
        cleaned = re.sub(r"-20\d\d$", "", name.lower().removeprefix("regional.").rstrip("-"))
        if not NO_CHAT.search(cleaned):
            yield cleaned


def _thinned(models: Mapping[str, Any]) -> dict[str, Any]:
    """Without the revisions that cost what their model costs."""
    kept = dict(models)
    for name, row in models.items():
        del kept[name]
        if find(kept, name) != row:
            kept[name] = row
    return kept


def _clauses(match: Any) -> Iterator[str]:
    """The texts that a model's name is, or begins with."""
    for option in ("equals", "starts_with"):
        if text := getattr(match, option, ""):
            yield text
    for option in ("or_", "and_"):
        for clause in getattr(match, option, ()):
            yield from _clauses(clause)


def _row(prices: Any) -> dict[str, Any]:
    """The prices of a model as numbers; nothing when it has none for text both ways."""
    given = {name: getattr(prices, option, None) for name, option in PRICES.items()}
    if not given["input"] or not given["output"]:
        return {}
    row: dict[str, Any] = _numbers({name: _at(price, 0) for name, price in given.items()})
    starts = sorted({tier.start for price in given.values() for tier in getattr(price, "tiers", ())})
    if starts:
        row["above"] = [
            [start, _numbers({name: _at(price, start + 1) for name, price in given.items()})] for start in starts
        ]
    return row


def _at(price: Any, tokens: int) -> Decimal | None:
    """A price for requests of so many tokens."""
    if not hasattr(price, "tiers"):
        found: Decimal | None = price
        return found
    base: Decimal = price.base
    for tier in sorted(price.tiers, key=lambda tier: tier.start):
        if tokens > tier.start:
            base = tier.price
    return base


def _numbers(prices: Mapping[str, Decimal | None]) -> dict[str, Any]:
    return {name: float(price) for name, price in prices.items() if price is not None}


if __name__ == "__main__":
    sys.exit(main())
