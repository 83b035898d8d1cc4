"""Options that verbs share, and where the configuration is; nothing here loads more than argparse."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

PLACES = ("gateway.yaml", "/etc/sluiceway/gateway.yaml")
VARIABLE = "SLUICEWAY_CONFIG"
FINDINGS, USAGE, BAD_CONFIG = 1, 2, 78


def plain_parser(verb: str, about: str) -> argparse.ArgumentParser:
    """A parser; `about` is the module's docstring, which begins with the command itself."""
    what = about.partition("`: ")[2] or about
    return argparse.ArgumentParser(prog=f"sluiceway {verb}", description=what[:1].upper() + what[1:])


def config_parser(verb: str, about: str) -> argparse.ArgumentParser:
    """A parser with the option that names the configuration."""
    made = plain_parser(verb, about)
    made.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help=f"the configuration; - is standard input (default: ${VARIABLE}, ./gateway.yaml, /etc/sluiceway)",
    )
    return made


def add_format(made: argparse.ArgumentParser) -> None:
    """The option that asks for JSON."""
    made.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def find_config(given: str | None) -> str | None:
    """The path to read: what was given, the environment's, or the first default that exists."""
    named = given or os.environ.get(VARIABLE)
    return named or next((place for place in PLACES if Path(place).exists()), None)
