"""gateway.images: an image comes from the address that was judged, and from its name's own server."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from imageweb import ADDRESS, HOST, PNG, URL, chat, data, image, parts_of, refusal, room, served, web
from upstreams import ScriptedUpstream, certificates

from gateway.images import Dialer, Images
from gateway.upstream.dial import tls_context

Run = Callable[[Any], Any]
INSIDE = "The image cannot be fetched: the host cannot be reached."


@pytest.mark.parametrize(
    ("names", "broken"),
    [
        ({HOST: [ADDRESS, "10.0.0.1"]}, ()),
        ({HOST: ["10.0.0.1"]}, ()),
        ({HOST: ["fe80::1%eth0"]}, ()),
        ({HOST: []}, ()),
        ({}, ()),
        ({HOST: [ADDRESS]}, (ADDRESS,)),
        ({HOST: [ADDRESS] * 9}, (ADDRESS,)),
    ],
)
def test_unknown_inner_and_dead_hosts_look_the_same(run: Run, names: Any, broken: Sequence[str]) -> None:
    async def main() -> None:
        async with web(served(PNG), names=names, broken=broken) as internet:
            assert (await refusal(internet.images(), chat(image(URL)))).message == INSIDE
            assert {address for _, address, _ in internet.opened} <= set(broken)
            assert len(internet.opened) <= 4

    run(main())


def test_a_dead_address_is_followed_by_the_next_one(run: Run) -> None:
    async def main() -> None:
        async with web(
            served(PNG), names={HOST: ["2606:4700::1111", ADDRESS]}, broken=("2606:4700::1111",)
        ) as internet:
            await internet.images().inlined(chat(image(URL)), (), room())
            assert [address for _, address, _ in internet.opened] == ["2606:4700::1111", ADDRESS]

    run(main())


def test_a_name_is_looked_up_once(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG), names={HOST: [[ADDRESS], ["127.0.0.1"]]}) as internet:
            await internet.images().inlined(chat(image(URL)), (), room())
            assert internet.asked == [HOST]
            assert internet.opened == [(HOST, ADDRESS, 443)]

    run(main())


def test_the_judge_is_an_argument(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG), names={HOST: ["127.0.0.1"]}) as internet:
            images = Images(internet.resolve, internet.connect, judge=lambda address: address == "127.0.0.1")
            assert parts_of(await images.inlined(chat(image(URL)), (), room())) == [image(data(PNG))]

    run(main())


def test_by_itself_it_asks_the_system_and_reaches_nothing_on_this_machine(run: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 443))])

    async def main() -> None:
        images = Images()
        assert (await refusal(images, chat(image(URL)))).message == INSIDE
        images.close()

    run(main())


def test_a_connection_goes_to_the_address_and_the_certificate_is_the_names(run: Run) -> None:
    async def main() -> None:
        trust = tls_context(certificates().ca_file)
        for tls, host, good in (("good", "localhost", True), ("good", HOST, False), ("expired", "localhost", False)):
            async with ScriptedUpstream(served(PNG), tls=tls) as server:  # type: ignore[arg-type]
                dial = Dialer(trust)
                if not good:
                    with pytest.raises(ssl.SSLError):
                        await dial(host, (socket.AF_INET, "127.0.0.1"), server.port)
                    continue
                _, writer = await dial(host, (socket.AF_INET, "127.0.0.1"), server.port)
                assert writer.get_extra_info("peername") == ("127.0.0.1", server.port)
                writer.transport.abort()

    run(main())


def test_no_certificate_is_taken_on_trust(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(served(PNG), tls="good") as server:
            with pytest.raises(ssl.SSLError):
                await Dialer()("localhost", (socket.AF_INET, "127.0.0.1"), server.port)

    run(main())
