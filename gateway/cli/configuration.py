"""`sluiceway config show`: what a file comes to: defaults filled in, units written out, secrets masked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gateway.cli.loaded import good_config, print_json
from gateway.cli.options import FINDINGS, add_format, config_parser
from gateway.cli.yamltext import document
from gateway.config.writer import MASK, values


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = config_parser("config", __doc__ or "")
    made.add_argument("what", choices=("show",), help="print the resolved configuration")
    add_format(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the resolved configuration; 1 when the file is wrong."""
    options = parser().parse_args(arguments)
    good = good_config(options.config)
    if good is None:
        return FINDINGS
    shown = values(good.config)
    if options.format == "json":
        print_json(shown)
    else:
        head = f"{good.path} as it is served, configuration {good.digest}; {MASK} stands for a secret"
        print(document(shown, {"": [head]}), end="")
    return 0
