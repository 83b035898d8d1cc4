"""`sluiceway serve`: run the gateway until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Sequence

import uvloop

from gateway.app import App, CannotServe, Reader, check_parser
from gateway.cli.loaded import no_config, print_findings, read_config
from gateway.cli.options import BAD_CONFIG, FINDINGS, config_parser, find_config
from gateway.config.loader import Loaded, load
from gateway.config.plugins import Registry
from gateway.config.types import Config


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = config_parser("serve", __doc__ or "")
    made.add_argument("--strict", action="store_true", help="warnings are errors")
    return made


def run(arguments: Sequence[str]) -> int:
    """Serve the configuration; 78 when it is wrong, 1 when the process cannot start, else 0 after the drain."""
    options = parser().parse_args(arguments)
    return serve(find_config(options.config), strict=options.strict)


def serve(path: str | None, *, strict: bool = False) -> int:
    """Serve the file at `path`, or what the environment gives."""
    # A reload that is asked for while the process starts must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):
        faulthandler.enable()
    providers = Registry()
    text = sys.stdin.buffer.read() if path == "-" else None

    def read() -> Loaded | None:
        if text is not None:
            return load("<stdin>", os.environ, providers, strict, text=text)
        return read_config(path, providers, strict=strict)

    loaded = read()
    if loaded is None:
        print(no_config(), file=sys.stderr)
        return BAD_CONFIG
    print_findings(loaded.findings)
    config = loaded.config
    if config is None:
        return BAD_CONFIG
    try:
        check_parser()
        if os.geteuid() == 0 and not os.environ.get("INVOCATION_ID"):
            print("sluiceway: running as root; a user of its own would do", file=sys.stderr)
        # A supervisor forks, which asyncio's own loop bears well; workers have uvloop again.
        start = asyncio.run if config.server.workers > 1 else uvloop.run
        code = start(_serve(config, loaded, lambda: read() or loaded, providers))
    except (CannotServe, OSError) as error:
        print(f"sluiceway: {error}", file=sys.stderr)
        code = FINDINGS
    return _leave(code)


async def _serve(config: Config, loaded: Loaded, read: Reader, providers: Registry) -> int:
    return await App(config, loaded, read, providers).serve(announce)


def _leave(code: int) -> int:
    """The code; or the end of the process, where a thread (a name server that does not answer) would hold it up."""
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def announce(config: Config) -> None:
    """Say where to find the gateway, with a call to paste."""
    listen = config.server.listen
    scheme = "https" if config.server.tls else "http"
    curl = (
        f"curl -N --unix-socket {listen.path} {scheme}://localhost" if listen.path else f"curl -N {scheme}://{listen}"
    )
    names = [name for name in (*config.deployments, *config.adapters, *config.routings) if "*" not in name]
    model = names[0] if names else next(iter(config.deployments), "MODEL").replace("*", "MODEL")
    key = " -H 'Authorization: Bearer YOUR_KEY'" if config.keys else ""
    body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    print(f"sluiceway: serving on {listen if listen.path else f'{scheme}://{listen}'}\n", file=sys.stderr)
    print(
        f"  {curl}/v1/chat/completions{key} -H 'Content-Type: application/json' \\\n    -d '{body}'\n",
        file=sys.stderr,
        flush=True,
    )
