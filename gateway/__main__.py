"""The command `sluiceway`: finds the verb and hands over; a verb's own modules are loaded only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from gateway import __version__

VERBS = {
    "serve": "run the gateway",
    "check": "report every mistake in a configuration",
    "explain": "show what a request would become",
    "models": "list the models that clients may ask for",
    "schema": "print the JSON Schema of gateway.yaml",
    "import": "turn a LiteLLM configuration into a gateway.yaml",
    "keys": "make or hash a client key",
    "demo": "run the gateway in front of embedded demo providers",
    "version": "print the version",
}
# Verbs whose module has another name.
MODULES = {"import": "importing"}
USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns 0 for good, 1 for findings, 2 for wrong usage, 78 for a file that cannot be served."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-h"], ["--help"], ["help"]) or not given:
        print(_help())
        return 0 if given else USAGE
    if given[0] in {"--version", "-V", "version"}:
        print(f"sluiceway {__version__}")
        return 0
    verb = "check" if given[0] == "-t" else given[0]
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        print(f"sluiceway: no verb '{verb}'{hint}; try 'sluiceway --help'", file=sys.stderr)
        return USAGE
    try:
        code: int = import_module(f"gateway.cli.{MODULES.get(verb, verb)}").run(given[1:])
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return code


def _help() -> str:
    verbs = "\n".join(f"  {verb:<9} {what}" for verb, what in VERBS.items())
    return f"usage: sluiceway VERB [options]\n\n{verbs}\n\n'sluiceway VERB --help' tells a verb's options."


if __name__ == "__main__":
    sys.exit(main())
