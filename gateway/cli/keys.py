"""`sluiceway keys`: client keys and their hashes. The gateway keeps only the hash."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import secrets
import sys
from collections.abc import Sequence

from gateway.cli.loaded import print_json
from gateway.cli.options import USAGE, add_format, plain_parser

PREFIX = "sk-sluice-"


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = plain_parser("keys", __doc__ or "")
    made.add_argument(
        "what", choices=("new", "hash"), help="make a key, or read one from standard input and print its hash"
    )
    add_format(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """`new` prints a fresh key and its hash; `hash` reads a key from standard input and prints its hash."""
    options = parser().parse_args(arguments)
    if options.what == "new":
        key = PREFIX + secrets.token_urlsafe(32)
        shown = {"key": key, "hash": hashed(key)}
    else:
        key = getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
        if not key:
            print("sluiceway keys hash: no key on standard input", file=sys.stderr)
            return USAGE
        shown = {"hash": hashed(key)}
    if options.format == "json":
        print_json(shown)
    else:
        print("\n".join(f"{name}: {value}" for name, value in shown.items()))
    return 0


def hashed(key: str) -> str:
    """A key as gateway.yaml keeps it."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
