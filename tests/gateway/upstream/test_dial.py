"""gateway.upstream.dial: from a host name to a connection, and every failure on the way as ours."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from upstreams import ScriptedUpstream, Tls, certificates

from gateway.errors import Unreachable
from gateway.upstream.dial import DNS_KNOWN, DNS_TTL, Resolver, dial, tls_context

Run = Callable[[Any], Any]


async def connect(
    host: str, port: int, *, tls: Any = None, timeout: float = 5, resolver: Resolver | None = None
) -> Any:
    made: list[asyncio.Protocol] = []

    def protocol() -> asyncio.Protocol:
        made.append(asyncio.Protocol())
        return made[-1]

    await dial(Resolver(), protocol, host, port, tls, timeout)
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


class Names:
    """A name service that answers from a list and can be held up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.asked: list[str] = []
        self.free = threading.Event()
        self.free.set()
        self._answers = list(answers)
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        if host not in {"one.test", "two.test"}:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        self.asked.append(host)
        self.free.wait(10)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


def test_an_answer_is_kept_for_half_a_minute(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ["127.0.0.1", "127.0.0.1"], ["127.0.0.2"])

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        resolver = Resolver()
        for _ in range(3):
            assert await resolver.resolve("one.test", 1) == [(socket.AF_INET, "127.0.0.1")]
        assert len(names.asked) == 1
        loop.advance(DNS_TTL + 1)
        assert await resolver.resolve("one.test", 1) == [(socket.AF_INET, "127.0.0.2")]
        resolver.close()

    run(main())


def test_many_who_ask_at_once_ask_once_and_one_who_gives_up_spoils_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, ["127.0.0.1"])
    names.free.clear()

    async def main() -> None:
        resolver = Resolver()
        tasks = [asyncio.ensure_future(resolver.resolve("one.test", 1)) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        other = asyncio.ensure_future(resolver.resolve("two.test", 1))
        names.free.set()
        assert await asyncio.gather(*tasks[1:], other) == [[(socket.AF_INET, "127.0.0.1")]] * 5
        assert sorted(names.asked) == ["one.test", "two.test"]
        resolver.close()

    run(main())


def test_names_without_number_do_not_pile_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, ["127.0.0.1"])

    async def main() -> None:
        resolver = Resolver()
        await resolver.resolve("one.test", 1)
        for port in range(2, DNS_KNOWN + 1):
            await resolver.resolve("127.0.0.1", port)
        await resolver.resolve("one.test", 1)
        assert len(names.asked) == 1
        await resolver.resolve("127.0.0.2", 1)
        await resolver.resolve("one.test", 1)
        assert len(names.asked) == 2
        resolver.close()

    run(main())


def test_a_failure_is_not_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, socket.gaierror("no"), ["127.0.0.1"])

    async def main() -> None:
        resolver = Resolver()
        with pytest.raises(Unreachable):
            await resolver.resolve("one.test", 1)
        assert await resolver.resolve("one.test", 1)
        resolver.close()

    run(main())


def test_the_next_address_is_tried_when_one_refuses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["127.0.0.9", "127.0.0.1"], [])

    async def main() -> None:
        async with ScriptedUpstream([]) as upstream:
            assert await connect("one.test", upstream.port)
            with pytest.raises(Unreachable):
                await connect("two.test", upstream.port)

    run(main())
