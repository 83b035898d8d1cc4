"""Options that verbs share, and the configuration that they lead to."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson

from gateway.config.environment import from_environment
from gateway.config.findings import Finding
from gateway.config.loader import Loaded, load
from gateway.config.plugins import Registry

PLACES = ("gateway.yaml", "/etc/sluiceway/gateway.yaml")
FINDINGS, USAGE, BAD_CONFIG = 1, 2, 78


def parser(verb: str, about: str) -> argparse.ArgumentParser:
    """A parser with the option that names the configuration."""
    made = argparse.ArgumentParser(prog=f"sluiceway {verb}", description=about)
    made.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="the configuration; - is standard input (default: $SLUICEWAY_CONFIG, ./gateway.yaml, /etc/sluiceway)",
    )
    return made


def add_format(made: argparse.ArgumentParser) -> None:
    """The option that asks for JSON."""
    made.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def find_config(given: str | None) -> str | None:
    """The path to read: what was given, the environment's, or the first default that exists."""
    named = given or os.environ.get("SLUICEWAY_CONFIG")
    return named or next((place for place in PLACES if Path(place).exists()), None)


def read_config(path: str | None, providers: Registry, *, strict: bool = False) -> Loaded | None:
    """Load the file, standard input, or what the environment's provider keys give; None when there is nothing."""
    if path == "-":
        return load("<stdin>", os.environ, providers, strict, text=sys.stdin.buffer.read())
    if path is not None:
        return load(path, os.environ, providers, strict)
    text = from_environment(os.environ, providers)
    return load("<environment>", os.environ, providers, strict, text=text) if text else None


def no_config() -> str:
    """What to say when there is nothing to read."""
    return (
        "sluiceway: no configuration: no gateway.yaml here or in /etc/sluiceway, and no provider key in the environment"
        " (OPENAI_API_KEY, ANTHROPIC_API_KEY, ...); 'sluiceway demo' works without either"
    )


def print_findings(findings: Iterable[Finding]) -> None:
    """Findings on standard error, in colour on a terminal unless NO_COLOR is set."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    for finding in findings:
        text = str(finding)
        if colour:
            code = "31" if finding.level == "error" else "33"
            text = text.replace(f" {finding.level}:", f" \x1b[{code}m{finding.level}:\x1b[0m", 1)
        print(text, file=sys.stderr)


def print_json(value: object) -> None:
    """A value on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()
