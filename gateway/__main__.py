"""The command `sluiceway`: finds the verb and hands over; a verb's own modules are loaded only when it runs."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from gateway import __version__
from gateway.cli.verbs import VERBS, module_of

USAGE, FAILED, INTERRUPTED = 2, 1, 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns 0 for good, 1 for findings, 2 for wrong usage, 78 for a file that cannot be served."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _mend_streams()
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough, and nothing more is to be flushed into the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        print(f"sluiceway: cannot write: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(given: list[str]) -> int:
    if given[:1] == ["help"] and len(given) > 1:
        given = [given[1], "--help"]
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
    code: int = import_module(module_of(verb)).run(given[1:])
    return code


def _mend_streams() -> None:
    """Make the standard streams bear what they are given: closed ones swallow it, others escape what they lack."""
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BytesIO())
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.BytesIO())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}} {what}" for verb, what in VERBS.items())
    return (
        f"usage: sluiceway VERB [options]\n\n{verbs}\n\n'sluiceway VERB --help' tells a verb's options.\n"
        "Exit codes: 0 good, 1 findings, 2 wrong usage, 78 a configuration that cannot be served."
    )


if __name__ == "__main__":
    sys.exit(main())
