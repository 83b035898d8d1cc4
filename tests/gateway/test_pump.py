"""gateway.pump: a provider's stream to a client's outlet, with flow control both ways, over real connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from upstreams import Step

from gateway.dialects.openai_chat import chunks_of
from gateway.errors import Truncated
from gateway.pump import HELD, KEEPALIVE, KEEPALIVE_AFTER, LAST_CHUNK, WriteTimeout
from gateway.relay import Passthrough
from tests.gateway.pumping import (
    D1,
    D2,
    DONE,
    FIN,
    HEAD,
    USAGE,
    WHOLE,
    WRITE_TIMEOUT,
    Run,
    Stream,
    read_error,
    stream,
    unchunked,
)


def test_a_stream_passes_whole_and_ends_with_the_last_chunk(run: Run, until: Any) -> None:
    async def main() -> None:
        async with stream(*WHOLE, {"end": True}) as one:
            await one.flow()
            assert await one.finished() is None
            assert unchunked(one.outlet.written) == (D1 + D2 + FIN + USAGE + DONE, True)
            assert not one.outlet.hung_up
            assert one.pump.sent == len(D1 + D2 + FIN + USAGE + DONE)
            await until(lambda: one.place.idle() is not None)
            assert len(one.sweep) == 0

    run(main())


class Fed(Passthrough):
    """A relay that counts what it was fed."""

    fed = 0

    def feed(self, data: bytes) -> bytes:
        self.fed += 1
        return super().feed(data)


@pytest.mark.parametrize("chunked", [True, False])
def test_chunks_that_need_no_change_keep_the_framing_they_came_with(run: Run, chunked: bool) -> None:
    same, other = framed(D2), b"%X;a=b\r\n%b\r\n" % (len(D2), D2)

    async def main() -> None:
        goes_on = [asyncio.Event() for _ in range(4)]
        pieces = [same, other, same, framed(FIN + DONE)]
        later = [step for go, piece in zip(goes_on, pieces, strict=True) for step in ({"wait": go}, {"x": piece.hex()})]
        async with stream({"chunk": "{{D1}}"}, *later, {"end": True}) as one:
            one.relay = relay = Fed(read_error, chunks_of)
            await one.flow(chunked)
            fed = []
            for go in goes_on:
                writes = one.outlet.writes
                go.set()
                async with asyncio.timeout(5):
                    while one.outlet.writes == writes:  # noqa: ASYNC110 - what is waited for sets no event
                        await asyncio.sleep(0)
                fed.append(relay.fed)
            assert await one.finished() is None
            # The second has another framing than ours, the last says that it is the last.
            assert fed == ([1, 2, 2, 3] if chunked else [2, 3, 4, 5])
            events = [D1, D2, D2, D2, FIN + DONE]
            sent = [*map(framed, events), LAST_CHUNK] if chunked else events
            assert one.outlet.written == HEAD + b"".join(sent)
            assert one.pump.sent == len(b"".join(events))
            assert relay.events == 5

    run(main())


def framed(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def test_an_old_client_gets_no_chunks_and_a_close(run: Run) -> None:
    async def main() -> None:
        async with stream(*WHOLE, {"end": True}) as one:
            await one.flow(chunked=False)
            assert await one.finished() is None
            assert one.outlet.written == HEAD + D1 + D2 + FIN + USAGE + DONE
            assert one.outlet.hung_up

    run(main())


def test_what_was_held_leaves_with_the_head_in_one_write(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": ": hi\n\n"}, {"chunk": "{{D1}}"}, {"stall": True}) as one:
            await one.flow()
            assert one.outlet.writes == 1
            assert unchunked(one.outlet.written) == (b": hi\n\n" + D1, False)
            assert one.pump.moving()
            assert not one.pump.moving()
            assert not one.pump.waiting()

    run(main())


def test_done_completes_the_stream_before_the_provider_closes(run: Run, until: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with stream({"chunk": "{{D1}}"}, {"chunk": "{{DONE}}"}, {"wait": more}, {"end": True}) as one:
            await one.flow()
            assert await one.finished() is None
            assert unchunked(one.outlet.written) == (D1 + DONE, True)
            assert one.place.idle() is None
            more.set()
            await until(lambda: one.place.idle() is not None)

    run(main())


def test_a_stream_that_was_over_before_it_flowed_is_complete(run: Run, until: Any) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}{{FIN}}"}, {"end": True}) as one:
            await one.ready()
            await until(lambda: one.relay.done)
            one.pump.flow(one.outlet, HEAD, True)
            assert await one.finished() is None
            assert unchunked(one.outlet.written) == (D1 + FIN + DONE, True)

    run(main())


def test_a_stream_without_events_is_decided_at_its_end(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": "data: [DONE]\n\n"}, {"end": True}) as one:
            await one.flow()
            assert await one.finished() is None
            assert unchunked(one.outlet.written) == (DONE, True)
        async with stream({"chunk": ": nothing\n\n"}, {"end": True}) as one:
            with pytest.raises(Truncated):
                await one.ready()

    run(main())


def test_what_the_end_completes_is_written(run: Run) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with stream({"chunk": "{{D1}}{{FIN}}"}, {"wait": more}, {"end": True}) as one:
            await one.flow()
            more.set()
            assert await one.finished() is None
            assert unchunked(one.outlet.written) == (D1 + FIN + DONE, True)

    run(main())


# Flow control.

MUCH: Step = {"rep": {"chunk": "data: {{64K}}\n\n", "n": 400}}


def test_a_client_that_takes_nothing_stops_the_provider_and_goes_on_later(run: Run, until: Any) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, MUCH, {"chunk": "{{FIN}}{{DONE}}"}, {"end": True}) as one:
            one.outlet.on_write = lambda: one.pump.hold() if len(one.outlet.written) > 1_000_000 else None
            await one.flow()
            await until(lambda: one.pump.paused)
            taken = len(one.outlet.written)
            for _ in range(200):
                await asyncio.sleep(0)
            assert len(one.outlet.written) == taken < 2_000_000
            assert one.pump.waiting()
            one.outlet.on_write = lambda: None
            one.pump.release()
            assert not one.pump.waiting()
            assert await one.finished() is None
            assert len(unchunked(one.outlet.written)[0]) > 400 * 65536

    run(main())


def test_what_is_held_before_the_flow_is_bounded(run: Run, until: Any) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, MUCH, {"chunk": "{{FIN}}{{DONE}}"}, {"end": True}) as one:
            await one.ready()
            for _ in range(300):
                await asyncio.sleep(0)
            held = sum(map(len, one.pump._held))
            assert HELD < held < 4 * HELD
            one.pump.flow(one.outlet, HEAD, True)
            assert await one.finished() is None
            assert len(unchunked(one.outlet.written)[0]) > 400 * 65536

    run(main())


def test_a_client_that_is_full_at_the_end_leaves_the_providers_connection_usable(run: Run, until: Any) -> None:
    async def main() -> None:
        async with stream(*WHOLE, {"end": True}) as one:
            one.outlet.on_write = lambda: one.pump.hold()  # noqa: PLW0108 - there is no pump yet
            await one.flow()
            one.pump.release()
            assert await one.finished() is None
            await until(lambda: bool(one.place._idle))
            again = Stream(one.upstream, one.place)
            await again.flow()
            assert await again.finished() is None
            assert len(one.upstream.connections) == 1

    run(main())


def test_a_client_that_takes_nothing_for_too_long_is_given_up(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, {"stall": True}) as one:
            await one.flow()
            one.pump.hold()
            one.outlet.size = 1000
            one.pump.sweep(100.0)
            one.pump.sweep(100.0 + WRITE_TIMEOUT - 1)
            one.outlet.size = 999
            one.pump.sweep(100.0 + WRITE_TIMEOUT)
            one.pump.sweep(100.0 + 2 * WRITE_TIMEOUT - 1)
            assert not one.outlet.aborted
            one.pump.sweep(100.0 + 2 * WRITE_TIMEOUT)
            assert one.outlet.aborted
            assert isinstance(await one.finished(), WriteTimeout)
            await asyncio.wait_for(one.upstream.connections[0].closed.wait(), 5)

    run(main())


def test_holding_again_begins_the_count_anew(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, {"stall": True}) as one:
            await one.flow()
            one.pump.hold()
            one.pump.sweep(100.0)
            one.pump.release()
            one.pump.hold()
            one.pump.sweep(100.0 + 2 * WRITE_TIMEOUT)
            assert not one.outlet.aborted
            one.pump.stop()

    run(main())


# Silence.


@pytest.mark.parametrize("chunked", [True, False])
def test_a_silent_stream_is_kept_alive_by_comments(run: Run, chunked: bool, until: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with stream({"chunk": "{{D1}}"}, {"wait": more}, {"chunk": "{{D2}}"}, {"stall": True}) as one:
            await one.flow(chunked)
            now = 1000.0
            one.pump.sweep(now)
            one.pump.sweep(now + KEEPALIVE_AFTER - 0.1)
            assert KEEPALIVE not in one.outlet.written
            for count in (1, 2, 3):
                one.pump.sweep(now + count * KEEPALIVE_AFTER)
                assert one.outlet.written.count(KEEPALIVE) == count
            more.set()
            await until(lambda: D2 in one.outlet.written)
            one.pump.sweep(now + 4 * KEEPALIVE_AFTER)
            assert one.outlet.written.count(KEEPALIVE) == 3
            if chunked:
                assert unchunked(one.outlet.written) == (D1 + 3 * KEEPALIVE + D2, False)
            else:
                assert one.outlet.written == HEAD + D1 + 3 * KEEPALIVE + D2
            one.pump.stop()

    run(main())


def test_before_the_flow_nothing_is_kept_alive(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, {"stall": True}) as one:
            await one.ready()
            one.pump.sweep(1.0)
            one.pump.sweep(1000.0)
            assert one.outlet.writes == 0
            one.call.abort()

    run(main())
