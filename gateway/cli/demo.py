"""`sluiceway demo`: the gateway in front of embedded demo providers; no key, no network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import as_file, files

from gateway.cli.options import plain_parser
from gateway.cli.serve import serve


def parser() -> argparse.ArgumentParser:
    """No option."""
    return plain_parser("demo", __doc__ or "")


def run(arguments: Sequence[str]) -> int:
    """Serve the configuration that comes with the package."""
    parser().parse_args(arguments)
    with as_file(files("gateway.demo") / "gateway.yaml") as path:
        return serve(str(path))
