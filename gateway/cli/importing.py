"""`sluiceway import litellm FILE`: another gateway's configuration as a gateway.yaml, and what became of each field."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gateway.cli.litellm.convert import Imported, convert
from gateway.cli.litellm.report import GRADES, Row
from gateway.cli.litellm.source import Unreadable, read
from gateway.cli.litellm.verify import errors
from gateway.cli.loaded import print_findings, print_json
from gateway.cli.options import FINDINGS, USAGE, add_format, plain_parser
from gateway.cli.yamltext import document

HEADER = (
    "Made by `sluiceway import litellm`. Read the notes, set the environment, then `sluiceway check`.",
    "It listens on 127.0.0.1:4000 (LiteLLM: every address); `server.listen` says otherwise.",
)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = plain_parser("import", f"{__doc__} The file goes to standard output, the fields to standard error.")
    made.add_argument("source", choices=("litellm",), help="whose configuration it is")
    made.add_argument("file", metavar="FILE", help="the configuration; - is standard input")
    add_format(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the new file; 1 when the source cannot be read, or holds nothing that `check` would take."""
    options = parser().parse_args(arguments)
    try:
        source, repeated = read(options.file)
    except OSError as error:
        print(f"sluiceway import: {options.file}: {error.strerror}", file=sys.stderr)
        return USAGE
    except Unreadable as error:
        print(f"sluiceway import: {options.file}: {error}", file=sys.stderr)
        return FINDINGS
    made = convert(source, os.environ)
    made.rows.extend(repeated)
    text = document(made.values, _notes(made))
    wrong = errors(made.values)
    if options.format == "json":
        fields = [asdict(row) for row in made.rows]
        print_json({"gateway_yaml": text, "fields": fields, "environment": made.variables})
    else:
        print(text, end="", flush=True)
        _tell(made)
    print_findings(wrong)
    return FINDINGS if wrong or not made.values.get("deployments") else 0


def _notes(made: Imported) -> dict[str, list[str]]:
    """Comments: at each entry what is not exact about it, at the top what has no entry."""
    notes: dict[str, list[str]] = {"": list(HEADER)}
    for name, why in made.variables.items():
        notes[""].append(f"environment: {name}{f': {why}' if why else ''}")
    for row in made.rows:
        if row.grade != "exact":
            notes.setdefault(_place(row, made.values), []).append(str(row))
    return notes


def _place(row: Row, values: Mapping[str, Any]) -> str:
    """The entry that a row is about: `deployments.gpt`, `retry`; "" where there is none."""
    section, _, rest = row.to.partition(".")
    entries = values.get(section)
    if not isinstance(entries, Mapping):
        return ""
    names = [name for name in entries if rest == name or rest.startswith(f"{name}.")]
    return f"{section}.{max(names, key=len)}" if names else section


def _tell(made: Imported) -> None:
    """What became of each field, and how many there are of each kind."""
    for row in made.rows:
        print(row, file=sys.stderr)
    counts = {grade: sum(row.grade == grade for row in made.rows) for grade in GRADES}
    print("\n" + "\n".join(f"{counts[grade]:>4} {grade}: {GRADES[grade]}" for grade in GRADES), file=sys.stderr)
