"""`sluiceway schema`: the JSON Schema of gateway.yaml."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gateway.cli.options import print_json
from gateway.config.plugins import Registry
from gateway.config.schema import schema


def run(arguments: Sequence[str]) -> int:
    """Print the schema (draft 2020-12) on standard output."""
    argparse.ArgumentParser(prog="sluiceway schema", description=__doc__).parse_args(arguments)
    print_json(schema(Registry()))
    return 0
