"""gateway.upstream.dial: from a host name to a connection, and every failure on the way as ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from upstreams import ScriptedUpstream, Tls, certificates

from gateway.errors import Unreachable
from gateway.upstream.dial import Place, dial, tls_context
from gateway.upstream.names import Resolver

Run = Callable[[Any], Any]


async def connect(
    host: str, port: int, *, tls: Any = None, timeout: float = 5, resolver: Resolver | None = None
) -> Any:
    made: list[asyncio.Protocol] = []

    def protocol() -> asyncio.Protocol:
        made.append(asyncio.Protocol())
        return made[-1]

    await dial(resolver or Resolver(), protocol, Place(host, port, tls), timeout)
    return made


def test_a_name_is_resolved_and_connected(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([]) as upstream:
            for host in ("127.0.0.1", "localhost"):
                assert await connect(host, upstream.port)

    run(main())


def test_a_refused_connection_was_surely_not_billed(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(Unreachable, match="refused") as caught:
            await connect("127.0.0.1", port)
        assert (caught.value.status, caught.value.code, caught.value.cause, caught.value.sent) == (
            502,
            "upstream_connect_error",
            "connect",
            False,
        )

    run(main())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "256.256.256.256", ""])
def test_a_name_that_does_not_resolve_is_told_as_such(run: Run, host: str) -> None:
    async def main() -> None:
        with pytest.raises(Unreachable) as caught:
            await connect(host, 1)
        assert caught.value.code in {"upstream_dns_error", "upstream_connect_error"}
        if host:
            assert caught.value.code == "upstream_dns_error"
            assert host not in caught.value.message

    run(main())


def test_a_connection_that_never_comes_about_times_out(run: Run) -> None:
    async def main() -> None:
        # A full backlog: the kernel answers no further SYN.
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            port = server.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            with pytest.raises(Unreachable) as caught:
                await connect("127.0.0.1", port, timeout=0.05)
            assert (caught.value.status, caught.value.code) == (504, "upstream_connect_timeout")
            assert caught.value.kind == "timeout_error"
            for filler in fillers:
                filler.close()

    run(main())


def test_a_certificate_that_is_trusted_is_accepted(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([], tls="good") as upstream:
            assert await connect("127.0.0.1", upstream.port, tls=tls_context(certificates().ca_file))

    run(main())


@pytest.mark.parametrize("sort", ["wrong_name", "expired", "plain", "untrusted"])
def test_any_other_certificate_is_refused(run: Run, sort: Any) -> None:
    async def main() -> None:
        kind: Tls = "good" if sort == "untrusted" else sort
        steps = [{"t": "HTTP/1.1 400 Bad Request\r\n\r\n"}] if sort == "plain" else []
        async with ScriptedUpstream(on_accept=steps, tls=kind) as upstream:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            tls = tls_context() if sort == "untrusted" else tls_context(certificates().ca_file)
            with pytest.raises(Unreachable) as caught:
                await connect("127.0.0.1", upstream.port, tls=tls)
            assert caught.value.code == "upstream_tls_error"
            assert "certificate" not in caught.value.message.lower()

    run(main())


def test_a_handshake_that_hangs_counts_to_the_connect_timeout(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([], tls="hang") as upstream:
            with pytest.raises(Unreachable) as caught:
                await connect("127.0.0.1", upstream.port, tls=tls_context(certificates().ca_file), timeout=0.05)
            assert caught.value.code == "upstream_connect_timeout"

    run(main())
