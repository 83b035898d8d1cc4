"""gateway.images: how large, how many, how long and how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from imageweb import (
    CHUNKED,
    HOST,
    PNG,
    UNTIL_CLOSE,
    URL,
    chat,
    data,
    image,
    parts_of,
    refusal,
    refused,
    room,
    served,
    web,
)
from upstreams import Step

from gateway.errors import InvalidRequest, Overloaded

Run = Callable[[Any], Any]


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
