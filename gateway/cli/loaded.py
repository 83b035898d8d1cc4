"""The configuration that a verb works with, and how it and what is wrong with it are printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from gateway.cli.options import find_config
from gateway.config.environment import from_environment
from gateway.config.findings import Finding
from gateway.config.loader import Loaded, load
from gateway.config.plugins import Registry
from gateway.config.types import Config


@dataclass(frozen=True, slots=True)
class Good:
    """A configuration without an error: where it came from and which text it is."""

    config: Config
    path: str
    digest: str


def read_config(path: str | None, providers: Registry, *, strict: bool = False) -> Loaded | None:
    """Load the file, standard input, or what the environment's provider keys give; None when there is nothing."""
    if path == "-":
        return load("<stdin>", os.environ, providers, strict, text=sys.stdin.buffer.read())
    if path is not None:
        return load(path, os.environ, providers, strict)
    text = from_environment(os.environ, providers)
    return load("<environment>", os.environ, providers, strict, text=text) if text else None


def good_config(given: str | None) -> Good | None:
    """The configuration that `--config` leads to; None, once it was said what is wrong with it."""
    path = find_config(given)
    loaded = read_config(path, Registry())
    if loaded is None:
        print(no_config(), file=sys.stderr)
    elif loaded.config is None:
        print_findings(loaded.findings)
    else:
        return Good(loaded.config, source(path), loaded.digest)
    return None


def source(path: str | None) -> str:
    """What a configuration is called."""
    return "environment" if path is None else "standard input" if path == "-" else path


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
    sys.stdout.flush()
    sys.stdout.buffer.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()
