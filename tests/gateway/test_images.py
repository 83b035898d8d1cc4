"""gateway.images: web URLs become data, whatever their type and framing, or the request is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from imageweb import (
    ADDRESS,
    CHUNKED,
    GIF,
    HOST,
    JPEG,
    PDF,
    PNG,
    UNTIL_CLOSE,
    URL,
    WEBP,
    chat,
    data,
    file,
    image,
    parts_of,
    refusal,
    refused,
    room,
    served,
    web,
)
from upstreams import Step

from gateway.envelope import open_envelope
from gateway.images import Images

Run = Callable[[Any], Any]


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
