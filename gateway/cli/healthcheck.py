"""`sluiceway healthcheck`: ask a gateway on this machine whether it is ready, for Docker's HEALTHCHECK and the like.

Loads no more of the package than it needs: it runs every few seconds.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.cli.options import FINDINGS, config_parser, find_config
from gateway.config.files import Sources
from gateway.config.findings import Findings, Mark

DEFAULT = "127.0.0.1:4001"
# The longest head that is looked at.
MOST = 4096
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = config_parser("healthcheck", (__doc__ or "").partition("\n")[0])
    made.add_argument("--live", action="store_true", help="ask /livez (does the process answer?), not /readyz")
    made.add_argument("--address", metavar="ADDRESS", help="ask host:port or unix:/path, whatever the file says")
    made.add_argument("--timeout", metavar="SECONDS", type=float, default=2.0, help="give up after that (default: 2)")
    return made


def run(arguments: Sequence[str]) -> int:
    """Ask the admin listener; 0 when it says yes, 1 when it says no, or nothing in time."""
    options = parser().parse_args(arguments)
    address = options.address or _admin(find_config(options.config))
    if not address.startswith("unix:/") and not address.rpartition(":")[2].isdigit():
        print(f"sluiceway healthcheck: nobody can be asked at {address}: use --address", file=sys.stderr)
        return FINDINGS
    path = "/livez" if options.live else "/readyz"
    try:
        status = _ask(address, path, max(options.timeout, 0.001))
    except OSError as error:
        print(f"sluiceway healthcheck: {address}: {error.strerror or error}", file=sys.stderr)
        return FINDINGS
    if status != "200":
        print(f"sluiceway healthcheck: {address}{path} says {status or 'nothing'}", file=sys.stderr)
    return 0 if status == "200" else FINDINGS


def _admin(config: str | None) -> str:
    """`server.admin` of the file. A file that is wrong elsewhere is not asked about: an older one may be in force."""
    if config is None:
        return DEFAULT
    sources = Sources(Findings())
    if config == "-":
        sources.add_text(sys.stdin.buffer.read(), "<stdin>")
    else:
        sources.add_file(Path(config), config, Mark(config))
        sources.include(Path(config).parent)
    node = sources.tree.get("server", "admin") if sources.tree else None
    if node is None:
        return DEFAULT
    return node.value if isinstance(node.value, str) else "server.admin, which is off"


def _ask(address: str, path: str, timeout: float) -> str:
    """The status of the answer; empty when there is none that is HTTP."""
    until = time.monotonic() + timeout
    with _connected(address, timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n" not in head and len(head) < MOST:
            connection.settimeout(max(until - time.monotonic(), 0.001))
            data = connection.recv(MOST)
            if not data:
                break
            head += data
    version, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    return rest[:3] if version.startswith("HTTP/1.") else ""


def _connected(address: str, timeout: float) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return socket.create_connection((_EVERYWHERE.get(host, host), int(port)), timeout)
