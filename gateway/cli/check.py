"""`sluiceway check`: every mistake of a configuration in one pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from gateway.cli.options import (
    FINDINGS,
    add_format,
    find_config,
    no_config,
    parser,
    print_findings,
    print_json,
    read_config,
)
from gateway.config.plugins import Registry


def run(arguments: Sequence[str]) -> int:
    """Print the findings; 0 when none of them is an error."""
    made = parser("check", __doc__)
    made.add_argument("--strict", action="store_true", help="warnings are errors")
    add_format(made)
    options = made.parse_args(arguments)
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
            print(f"{path or 'environment'}: good")
    return FINDINGS if loaded.config is None else 0
