"""gateway.images: web URLs become data, from the address that was judged, within bounds, or the request is refused."""

from __future__ import annotations

import asyncio
import copy
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from imageweb import ADDRESS, GIF, HOST, JPEG, PDF, PNG, WEBP, served, web
from upstreams import ScriptedUpstream, Step, certificates

from gateway.envelope import Envelope, open_envelope
from gateway.errors import InvalidRequest, Overloaded
from gateway.images import Dialer, Fetched, Images
from gateway.limits import Ledger
from gateway.upstream.dial import tls_context

Run = Callable[[Any], Any]
URL = f"https://{HOST}/a.png"
PARAM = "messages[0].content[0].image_url.url"


def data(body: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(body).decode()}"


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(url: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": url, "filename": "a.pdf"}}


def chat(*parts: Any) -> Envelope:
    return open_envelope(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}))


def room(limit: int = 1 << 30) -> Fetched:
    return Fetched(Ledger(limit))


def parts_of(request: Any) -> Any:
    return request.get("messages")[0]["content"]


async def refusal(images: Images, request: Envelope, fetched: Fetched | None = None) -> InvalidRequest:
    """The error of a request that must not be served."""
    with pytest.raises(InvalidRequest) as caught:
        await images.inlined(request, (), fetched or room())
    error = caught.value
    assert (error.status, error.kind, error.code) == (400, "invalid_request_error", "invalid_image_url")
    return error


def refused(run: Run, *script: Step, part: Any = None, **bounds: Any) -> str:
    """Why this answer is not taken."""

    async def main() -> str:
        async with web(script) as internet:
            error = await refusal(internet.images(**bounds), chat(part or image(URL)))
            assert ADDRESS not in error.message
            assert error.param == (PARAM if part is None else "messages[0].content[0].file.file_data")
            return error.message

    return str(run(main()))


def test_a_web_url_becomes_data_and_all_else_stays(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            messages = [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "what?"}, image(URL, detail="low")], "name": "x"},
                {"role": "user", "content": None},
            ]
            request = open_envelope(orjson.dumps({"model": "m", "messages": messages, "seed": 1}))
            got = await internet.images().inlined(request, (), room())
            wanted = copy.deepcopy(messages)
            wanted[1]["content"][1]["image_url"]["url"] = data(PNG)  # type: ignore[index]
            assert got.get("messages") == wanted
            assert got.get("seed") == 1
            assert orjson.loads(got.edited({}))["messages"] == wanted
            assert request.get("messages") == messages
            assert internet.opened == [(HOST, ADDRESS, 443)]

    run(main())


def test_what_is_sent_for_an_image_holds_nothing_of_the_client(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            await internet.images().inlined(chat(image(f"https://{HOST}/a%2Fb?sig=%2B#f")), (), room())
            assert internet.server.requests == [
                b"GET /a%2Fb?sig=%2B HTTP/1.1\r\nhost: images.example.com\r\nuser-agent: sluiceway\r\n"
                b"accept: image/*\r\naccept-encoding: identity\r\nconnection: close\r\n\r\n"
            ]

    run(main())


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": URL},
        image(data(PNG)),
        image("gs://bucket/a.png"),
        image("s3://bucket/a.png"),
        image(""),
        image("a.png"),
        file("JVBERi0xLjc="),
        {"type": "image_url", "image_url": {"url": 7}},
        {"type": "image_url", "image_url": None},
        {"type": "image_url"},
        {"type": "video_url", "video_url": {"url": URL}},
        {"type": "file", "file": {"file_id": URL}},
        {"type": "file", "file": URL},
        {"type": ["image_url"], "image_url": {"url": URL}},
        URL,
        None,
    ],
)
def test_a_part_without_a_web_url_is_not_touched(run: Run, part: Any) -> None:
    async def main() -> None:
        async with web() as internet:
            request = chat(part)
            assert await internet.images().inlined(request, ("gs://", "s3://"), room()) is request
            assert not internet.asked

    run(main())


@pytest.mark.parametrize("messages", [None, "hi", {}, [], [None], ["hi"], [{"role": "user", "content": URL}], [[URL]]])
def test_messages_of_any_form_without_a_web_url_pass(run: Run, messages: Any) -> None:
    async def main() -> None:
        request = open_envelope(orjson.dumps({"model": "m", "messages": messages}))
        assert await Images().inlined(request, (), room()) is request

    run(main())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1:6379/_I", "gs://bucket/a.png", f" {URL}"])
def test_what_neither_gateway_nor_provider_can_read_is_refused(run: Run, url: str) -> None:
    async def main() -> None:
        async with web() as internet:
            error = await refusal(internet.images(), chat(image(url)))
            assert error.message.startswith("The image cannot be fetched: the URL ")
            assert not internet.asked

    run(main())


def test_an_image_url_that_is_a_plain_string_is_fetched_too(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            part = {"type": "image_url", "image_url": URL}
            assert parts_of(await internet.images().inlined(chat(part), (), room())) == [
                {"type": "image_url", "image_url": data(PNG)}
            ]
            bad = {"type": "image_url", "image_url": "http://x.example.com"}
            assert (await refusal(internet.images(), chat(bad))).param == "messages[0].content[0].image_url"

    run(main())


def test_what_only_the_provider_can_read_stays_a_url(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            own = "https://files.example.com/v1/"
            request = chat(image(f"{own}x"), image(URL))
            got = parts_of(await internet.images().inlined(request, (own,), room()))
            assert got == [image(f"{own}x"), image(data(PNG))]

    run(main())


@pytest.mark.parametrize(
    ("body", "said", "kind"),
    [
        (PNG, "image/png", "image/png"),
        (JPEG, "image/jpeg", "image/jpeg"),
        (JPEG, "IMAGE/JPG; q=1", "image/jpeg"),
        (GIF, "image/gif", "image/gif"),
        (WEBP, "image/webp", "image/webp"),
        (b"anything", "image/heic", "image/heic"),
        (b"<svg/>", "image/svg+xml", "image/svg+xml"),
    ],
)
def test_an_image_keeps_its_type(run: Run, body: bytes, said: str, kind: str) -> None:
    async def main() -> None:
        async with web(served(body, said)) as internet:
            got = await internet.images().inlined(chat(image(URL)), (), room())
            assert parts_of(got) == [image(data(body, kind))]

    run(main())


def test_a_file_part_may_be_a_pdf_or_an_image(run: Run) -> None:
    async def main() -> None:
        async with web(served(PDF, "application/pdf"), served(PNG)) as internet:
            got = await internet.images().inlined(chat(file(URL)), (), room())
            assert parts_of(got) == [file(data(PDF, "application/pdf"))]
            got = await internet.images().inlined(chat(file(URL)), (), room())
            assert parts_of(got) == [file(data(PNG))]
            assert b"accept: application/pdf, image/*\r\n" in internet.server.requests[0]

    run(main())


CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n"
CONTINUE = "HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "script",
    [
        [{"t": CHUNKED}, {"chunk": PNG.decode("latin-1")}, {"end": True}],
        [{"t": UNTIL_CLOSE}, {"x": PNG.hex()}, {"fin": True}],
        [{"t": CONTINUE}, *served(PNG)],
        served(PNG, Content_Encoding="identity"),
        [{"drip": {"t": UNTIL_CLOSE + PNG.decode("latin-1"), "every": 0}}, {"fin": True}],
    ],
)
def test_an_image_comes_in_any_framing(run: Run, script: Sequence[Step]) -> None:
    async def main() -> None:
        async with web(script) as internet:
            got = await internet.images().inlined(chat(image(URL)), (), room())
            assert parts_of(got) == [image(data(PNG))]

    run(main())


LIES = "The image cannot be fetched: its content is not what its content type says."
TYPE = "The image cannot be fetched: its content type is not allowed."
BROKEN = "The image cannot be fetched: the server's answer is broken."


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (served(JPEG, "image/png"), LIES),
        (served(PNG, "image/heic"), LIES),
        (served(PDF, "image/png"), LIES),
        (served(PDF, "image/tiff"), LIES),
        (served(b"", "image/tiff"), LIES),
        (served(b"<html>", "image/gif"), LIES),
        (served(PNG, "text/html"), TYPE),
        (served(PDF, "application/pdf"), TYPE),
        (served(PNG, "image/"), TYPE),
        (served(PNG, "image/png,x"), TYPE),
        (served(PNG, ""), TYPE),
        (served(PNG, "application/octet-stream"), TYPE),
        (
            served(b"", status="302 Found", Location="https://8.8.8.8/"),
            "The image cannot be fetched: the URL redirects.",
        ),
        (served(PNG, status="304 Not Modified"), "The image cannot be fetched: the URL redirects."),
        (served(PNG, status="404 Not Found"), "The image cannot be fetched: the server answered with status 404."),
        (
            served(PNG, status="206 Partial Content"),
            "The image cannot be fetched: the server answered with status 206.",
        ),
        (served(PNG, Content_Encoding="gzip"), BROKEN),
        (served(PNG, Content_Encoding="br"), BROKEN),
        ([{"t": "SSH-2.0-OpenSSH_9.2\r\n"}, {"fin": True}], BROKEN),
        ([{"t": CHUNKED}, {"chunk": "x"}, {"fin": True}], BROKEN),
        ([{"fin": True}], BROKEN),
        ([*served(PNG, Content_Length="99")], BROKEN),
        ([{"t": "HTTP/1.1 200 OK\r\nX: "}, {"rep": {"t": "x" * 100, "n": 1000}}], BROKEN),
        ([{"rst": True}], "The image cannot be fetched: the host cannot be reached."),
    ],
)
def test_an_answer_that_is_no_whole_image_is_refused(run: Run, script: Sequence[Step], why: str) -> None:
    assert refused(run, *script) == why


def test_a_file_that_is_neither_pdf_nor_image_is_refused(run: Run) -> None:
    why = refused(run, *served(b"MZ", "application/x-msdownload"), part=file(URL))
    assert why == "The file cannot be fetched: its content type is not allowed."


def test_an_image_is_as_large_as_allowed_and_no_larger(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            await internet.images(each=len(PNG), total=len(PNG)).inlined(chat(image(URL)), (), room())

    run(main())
    why = "The image cannot be fetched: it is larger than 27 bytes."
    assert refused(run, *served(PNG), each=27) == why
    assert refused(run, {"t": CHUNKED}, {"rep": {"chunk": "x" * 30, "n": 9}}, {"stall": True}, each=27) == why
    assert refused(run, *served(PNG, Content_Length="500000000"), {"stall": True}).endswith(
        "larger than 20971520 bytes."
    )
    assert refused(run, *served(PNG), total=27).endswith("this request's images are larger than 27 bytes together.")


def test_an_image_that_stands_twice_is_fetched_once_and_counts_twice(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            fetched = room()
            got = await internet.images().inlined(chat(image(URL), image(URL, detail="high")), (), fetched)
            assert parts_of(got) == [image(data(PNG)), image(data(PNG), detail="high")]
            assert len(internet.server.requests) == 1
            assert fetched.size == 2 * len(PNG)
            error = await refusal(internet.images(total=2 * len(PNG) - 1), chat(image(URL), image(URL)))
            assert "together" in error.message

    run(main())


def test_the_seventeenth_image_is_one_too_many(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            many = [image(f"https://{HOST}/{number}") for number in range(17)]
            await internet.images().inlined(chat(*many[:16]), (), room())
            assert len(internet.server.requests) == 16
            error = await refusal(internet.images(), chat(*many))
            assert error.param == "messages[0].content[16].image_url.url"
            assert error.message == "The image cannot be fetched: at most 16 are fetched for one request."
            assert len(internet.server.requests) == 16

    run(main())


def test_images_come_at_the_same_time(run: Run) -> None:
    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        scripts = [[{"set": first}, {"wait": second}, *served(PNG)], [{"wait": first}, {"set": second}, *served(PNG)]]
        async with web(*scripts) as internet:
            got = await internet.images().inlined(chat(image(URL), image(URL + "?2")), (), room())
            assert parts_of(got) == [image(data(PNG))] * 2

    run(main())


def test_one_that_fails_ends_the_others(run: Run) -> None:
    async def main() -> None:
        async with web([{"stall": True}]) as internet:
            request = chat(image(URL), image("http://a.example.com/"))
            error = await refusal(internet.images(), request)
            assert error.param == "messages[0].content[1].image_url.url"
            for connection in internet.server.connections:
                await connection.closed.wait()

    run(main())


@pytest.mark.parametrize("script", [[{"stall": True}], [{"drip": {"t": "HTTP/1.1 200 OK\r\n" * 99, "every": 0.01}}]])
def test_all_images_together_have_ten_seconds(run: Run, script: Sequence[Step]) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with web(script) as internet:
            fetching = asyncio.ensure_future(refusal(internet.images(), chat(image(URL))))
            await internet.server.request_count(1)
            loop.advance(9.5)
            assert not fetching.done()
            loop.advance(0.6)
            assert (await fetching).message == "The image cannot be fetched: it did not come in time."
            await internet.server.connections[0].closed.wait()

    run(main())


def test_a_request_that_must_be_done_sooner_waits_no_longer(run: Run) -> None:
    async def main() -> None:
        async with web([{"stall": True}]) as internet:
            with pytest.raises(InvalidRequest, match="in time"):
                await internet.images().inlined(chat(image(URL)), (), room(), asyncio.get_running_loop().time())

    run(main())


def test_who_leaves_leaves_no_connection_behind(run: Run) -> None:
    async def main() -> None:
        async with web([{"stall": True}]) as internet:
            fetching = asyncio.ensure_future(internet.images().inlined(chat(image(URL)), (), room()))
            await internet.server.request_count(1)
            fetching.cancel()
            await internet.server.connections[0].closed.wait()
            with pytest.raises(asyncio.CancelledError):
                await fetching

    run(main())


def test_sockets_for_images_are_counted_over_all_requests(run: Run) -> None:
    async def main() -> None:
        async with web([{"stall": True}]) as internet:
            images = internet.images(sockets=3)
            parts = [image(URL), image(URL + "?2")]
            running = [asyncio.ensure_future(images.inlined(chat(*parts), (), room())) for _ in range(4)]
            await internet.server.request_count(3)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(internet.opened) == 3
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    run(main())


def test_what_one_attempt_has_fetched_the_next_one_has(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            images, fetched = internet.images(), room()
            first = await images.inlined(chat(image(URL)), (), fetched)
            second = await images.inlined(chat(image(URL)), (), fetched)
            assert first.get("messages") == second.get("messages")
            assert len(internet.server.requests) == 1

    run(main())


def test_two_attempts_at_once_fetch_once(run: Run) -> None:
    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()
        async with web([{"set": begun}, {"wait": go}, *served(PNG)]) as internet:
            images, fetched = internet.images(total=len(PNG)), room()
            first = asyncio.ensure_future(images.inlined(chat(image(URL)), (), fetched))
            await begun.wait()
            second = asyncio.ensure_future(images.inlined(chat(image(URL)), (), fetched))
            await asyncio.sleep(0)
            go.set()
            assert parts_of(await first) == parts_of(await second) == [image(data(PNG))]
            assert len(internet.server.requests) == 1

    run(main())


def test_an_attempt_that_is_called_off_leaves_the_bounds_to_the_next(run: Run, until: Any) -> None:
    async def main() -> None:
        begun = asyncio.Event()
        half = {"x": (UNTIL_CLOSE.encode() + PNG[:20]).hex()}
        async with web([half, {"set": begun}, {"stall": True}], served(PNG)) as internet:
            images, fetched = internet.images(total=len(PNG)), room()
            first = asyncio.ensure_future(images.inlined(chat(image(URL)), (), fetched))
            await begun.wait()
            await until(lambda: fetched.size > 0)
            second = asyncio.ensure_future(images.inlined(chat(image(URL)), (), fetched))
            first.cancel()
            assert parts_of(await second) == [image(data(PNG))]
            assert fetched.size == len(PNG)
            assert fetched.held == fetched.ledger.held > len(PNG) * 4 // 3

    run(main())


def test_fetched_bytes_take_room_in_the_ledger(run: Run) -> None:
    async def main() -> None:
        async with web(served(PNG)) as internet:
            fetched = room()
            await internet.images().inlined(chat(image(URL)), (), fetched)
            assert fetched.held == fetched.ledger.held == len(PNG) * 4 // 3
            full = room(len(PNG))
            with pytest.raises(Overloaded):
                await internet.images().inlined(chat(image(URL)), (), full)
            assert full.held == full.ledger.held

    run(main())


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
