"""`sluiceway models`: the names that clients may ask for, and what stands behind them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gateway.cli.loaded import good_config, print_json
from gateway.cli.options import FINDINGS, add_format, config_parser
from gateway.config.types import Config


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = config_parser("models", __doc__ or "")
    add_format(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the models of a configuration."""
    options = parser().parse_args(arguments)
    good = good_config(options.config)
    if good is None:
        return FINDINGS
    rows = _rows(good.config)
    if options.format == "json":
        print_json([{"name": name, "kind": kind, "leads_to": to} for name, kind, to in rows])
        return 0
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, kind, to in rows:
        print(f"{name:<{width}}  {kind:<10}  {to}")
    return 0


def _rows(config: Config) -> list[tuple[str, str, str]]:
    rows = [(name, "deployment", f"{each.provider}: {each.model}") for name, each in config.deployments.items()]
    rows += [(name, "adapter", each.deployment) for name, each in config.adapters.items()]
    for name, routing in config.routings.items():
        targets = ", ".join(target.use for target in routing.targets)
        rows.append((name, "routing", f"{routing.strategy}: {', '.join((targets, *routing.fallback))}"))
    return rows
