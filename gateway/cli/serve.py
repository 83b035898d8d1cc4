"""`sluiceway serve`: run the gateway until it is told to stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial

import uvloop

from gateway.app import App, CannotServe, check_parser
from gateway.cli.options import BAD_CONFIG, FINDINGS, find_config, no_config, parser, print_findings, read_config
from gateway.config.plugins import Registry
from gateway.config.types import Config


def run(arguments: Sequence[str]) -> int:
    """Serve the configuration; 78 when it is wrong, 1 when the process cannot start, else 0 after the drain."""
    made = parser("serve", __doc__)
    made.add_argument("--strict", action="store_true", help="warnings are errors")
    options = made.parse_args(arguments)
    return serve(find_config(options.config), strict=options.strict)


def serve(path: str | None, *, strict: bool = False) -> int:
    """Serve the file at `path`, or what the environment gives."""
    providers = Registry()
    read = partial(read_config, path, providers, strict=strict)
    loaded = read()
    if loaded is None:
        print(no_config(), file=sys.stderr)
        return BAD_CONFIG
    print_findings(loaded.findings)
    config = loaded.config
    if config is None:
        return BAD_CONFIG

    async def main() -> int:
        return await App(config, loaded, lambda: read() or loaded, providers).serve(announce)

    try:
        check_parser()
        if os.geteuid() == 0 and not os.environ.get("INVOCATION_ID"):
            print("sluiceway: running as root; a user of its own would do", file=sys.stderr)
        return uvloop.run(main())
    except (CannotServe, OSError) as error:
        print(f"sluiceway: {error}", file=sys.stderr)
        return FINDINGS


def announce(config: Config) -> None:
    """Say where to find the gateway, with a call to paste."""
    address = f"http://{config.server.listen}"
    names = [name for name in (*config.deployments, *config.adapters, *config.routings) if "*" not in name]
    model = names[0] if names else next(iter(config.deployments), "MODEL").replace("*", "MODEL")
    key = " -H 'Authorization: Bearer YOUR_KEY'" if config.keys else ""
    body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    print(f"sluiceway: serving on {address}\n", file=sys.stderr)
    print(
        f"  curl -N {address}/v1/chat/completions{key} -H 'Content-Type: application/json' \\\n    -d '{body}'\n",
        file=sys.stderr,
        flush=True,
    )
