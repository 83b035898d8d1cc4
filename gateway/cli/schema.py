"""`sluiceway schema`: the JSON Schema of gateway.yaml."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gateway.cli.loaded import print_json
from gateway.cli.options import plain_parser
from gateway.config.plugins import Registry
from gateway.config.schema import schema


def parser() -> argparse.ArgumentParser:
    """No option."""
    return plain_parser("schema", __doc__ or "")


def run(arguments: Sequence[str]) -> int:
    """Print the schema (draft 2020-12) on standard output."""
    parser().parse_args(arguments)
    print_json(schema(Registry()))
    return 0
