"""`sluiceway check`: every mistake of a configuration in one pass."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

from gateway.cli.loaded import no_config, print_findings, print_json, read_config, source
from gateway.cli.options import FINDINGS, add_format, config_parser, find_config
from gateway.config.plugins import Registry


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = config_parser("check", __doc__ or "")
    made.add_argument("--strict", action="store_true", help="warnings are errors")
    add_format(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the findings; 0 when none of them is an error."""
    options = parser().parse_args(arguments)
    path = find_config(options.config)
    loaded = read_config(path, Registry(), strict=options.strict)
    if loaded is None:
        print(no_config(), file=sys.stderr)
        return FINDINGS
    if options.format == "json":
        print_json([asdict(finding) for finding in loaded.findings])
    else:
        print_findings(loaded.findings)
        if loaded.config is not None:
            print(f"{source(path)}: good")
    return FINDINGS if loaded.config is None else 0
