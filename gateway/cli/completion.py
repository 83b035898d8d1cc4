"""`sluiceway completion bash`: the script that completes verbs, options and model names in bash, zsh or fish."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from gateway.cli.options import find_config, plain_parser
from gateway.cli.shells import SHELLS, Option, Verb
from gateway.cli.verbs import VERBS, module_of
from gateway.config.files import Sources
from gateway.config.findings import Findings, Mark

SECTIONS = ("deployments", "adapters", "routings")


def parser() -> argparse.ArgumentParser:
    """The options. `names` is what the scripts themselves call, with the words that were typed so far."""
    made = plain_parser("completion", __doc__ or "")
    made.add_argument("shell", choices=(*SHELLS, "names"), help='for whom; load it with: eval "$(sluiceway ...)"')
    made.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the script, or the names of the models that the configuration has."""
    options = parser().parse_args(arguments)
    if options.shell == "names":
        for name in _names(find_config(_config_in(options.words))):
            print(name)
    else:
        print(SHELLS[options.shell](list(_verbs())), end="")
    return 0


def _verbs() -> Iterator[Verb]:
    """Every verb as its own parser describes it."""
    for name, what in VERBS.items():
        module = module_of(name)
        options = list(_options(import_module(module).parser())) if module else []
        yield Verb(name, what, tuple(options))


def _options(made: argparse.ArgumentParser) -> Iterator[Option]:
    # argparse has no public way to list what was added; this attribute is as old as the module.
    for action in made._actions:
        if action.help == argparse.SUPPRESS:
            continue
        kind = "flag" if action.nargs == 0 else {"FILE": "file"}.get(str(action.metavar), "value")
        choices = tuple(str(each) for each in action.choices or ())
        yield Option(tuple(action.option_strings), action.help or "", _kind(action.dest, kind), choices)


def _kind(dest: str, kind: str) -> str:
    return "model" if dest == "model" else kind


def _config_in(words: Sequence[str]) -> str | None:
    """The file that the words name with `-c`."""
    for word, after in pairwise([*words, ""]):
        if word in ("-c", "--config") and after:
            return after
        if word.startswith("--config="):
            return word.removeprefix("--config=")
    return None


def _names(path: str | None) -> Iterator[str]:
    """The models of a file, without a look at anything else in it."""
    if path is None or path == "-":
        return
    sources = Sources(Findings())
    sources.add_file(Path(path), path, Mark(path))
    sources.include(Path(path).parent)
    for section in SECTIONS:
        node = sources.tree.get(section) if sources.tree else None
        yield from (name for name, _ in (node.items() if node else ()) if name.isprintable())
