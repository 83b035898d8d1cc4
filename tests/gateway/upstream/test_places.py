"""gateway.upstream: places that are no host with an IPv4 address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from upstreams import OK_BODY, answer

from gateway.egress import Proxy
from gateway.errors import Unreachable
from gateway.upstream import Account
from gateway.upstream.names import Resolver
from tests.gateway.upstream.support import BODY, Noted, head

Run = Callable[[Any], Any]


class Model:
    """A model server: `asked` are the heads of the requests."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other."""
        try:
            while True:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(len(BODY))
                writer.write(answer(OK_BODY).encode())
        except asyncio.IncompleteReadError:
            writer.close()


async def exchanged(account: Account, url: str) -> None:
    """Two exchanges on one connection."""
    place = account.endpoint(url)
    connection = await place.connect(5)
    for _ in range(2):
        noted = Noted()
        connection.send(head(place, url), BODY, noted)
        await asyncio.wait_for(noted.ended.wait(), 10)
        assert (noted.status, noted.body) == (200, OK_BODY.encode())
        assert place.idle() is connection
    connection.abort()


def test_a_model_behind_a_unix_socket_is_localhost(on_either: Run, tmp_path: Path) -> None:
    async def main() -> None:
        model = Model()
        url = f"http+unix://{quote(str(tmp_path / 'mo del.sock'), safe='')}/v1/chat/completions"
        # A proxy is for hosts: no request for a socket goes there.
        account = Account({"x-own": "1"}, Resolver(), proxy=Proxy("127.0.0.1", 9))
        async with await asyncio.start_unix_server(model.serve, tmp_path / "mo del.sock"):
            await exchanged(account, url)
        assert model.asked[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-own: 1\r\n")

    on_either(main())


@pytest.mark.parametrize("there", [True, False])
def test_a_socket_that_nobody_listens_at_is_a_refused_connection(on_either: Run, tmp_path: Path, there: bool) -> None:
    async def main() -> None:
        if there:
            (tmp_path / "x.sock").touch()
        place = Account({}, Resolver()).endpoint(f"http+unix://{quote(str(tmp_path / 'x.sock'), safe='')}/v1")
        with pytest.raises(Unreachable) as caught:
            await place.connect(5)
        assert (caught.value.code, caught.value.message) == (
            "upstream_connect_error",
            "The provider refused the connection.",
        )

    on_either(main())


def test_a_model_at_an_ipv6_address_is_named_in_brackets(on_either: Run) -> None:
    async def main() -> None:
        model = Model()
        async with await asyncio.start_server(model.serve, "::1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await exchanged(Account({}, Resolver()), f"http://[::1]:{port}/v1/chat/completions")
        assert f"\r\nhost: [::1]:{port}\r\n".encode() in model.asked[0]

    on_either(main())
