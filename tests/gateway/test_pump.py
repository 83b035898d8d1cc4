"""gateway.pump: a provider's stream to a client's outlet, with flow control both ways, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from upstreams import NAMES, ScriptedUpstream, Step

from gateway.dialects.openai_chat import chunks_of
from gateway.errors import BadUpstreamResponse, GatewayError, Truncated, UpstreamError, UpstreamReset
from gateway.pump import HELD, KEEPALIVE, KEEPALIVE_AFTER, LAST_CHUNK, Pump, WriteTimeout
from gateway.relay import Passthrough
from gateway.upstream import Call, Endpoint, Sink, Sweep
from tests.gateway.upstream.support import BODY, LIMITS, endpoint, head

Run = Callable[[Any], Any]
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
D1, D2, FIN, USAGE, DONE = (NAMES[name].encode() for name in ("D1", "D2", "FIN", "USAGE", "DONE"))
WRITE_TIMEOUT = 30.0
ERROR: Step = {"chunk": 'data: {"error":{"message":"too busy"}}\n\n'}


class Outlet:
    """A client's side that keeps what is written; `size` is what its buffer is said to hold."""

    def __init__(self) -> None:
        self.written = b""
        self.writes = 0
        self.hung_up = False
        self.aborted = False
        self.size = 0
        self.on_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        assert not self.hung_up
        self.written += data
        self.writes += 1
        self.on_write()

    def hang_up(self) -> None:
        self.hung_up = True

    def abort(self) -> None:
        self.aborted = True

    def buffered(self) -> int:
        return self.size


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """The payload of chunked framing, and whether the last chunk came."""
    assert data.startswith(HEAD)
    rest, out = data[len(HEAD) :], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert rest == b"\r\n"
            return out, True
        out += rest[:length]
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
    return out, False


def read_error(payload: bytes) -> UpstreamError:
    return UpstreamError(orjson.loads(payload)["error"]["message"], code="theirs")


class Stream:
    """One call whose sink is a pump."""

    def __init__(self, upstream: ScriptedUpstream, place: Endpoint) -> None:
        self.upstream = upstream
        self.place = place
        self.sweep = Sweep()
        self.outlet = Outlet()
        self.relay = Passthrough(read_error, chunks_of)
        self.pump: Any = None
        deadline = asyncio.get_running_loop().time() + 1000
        self.call = Call(place, LIMITS, self.sweep, deadline, self._open)

    def _open(self, call: Call) -> Sink:
        self.pump = Pump(self.relay, call, self.sweep, WRITE_TIMEOUT)
        return self.pump  # type: ignore[no-any-return]

    async def ready(self) -> None:
        async with asyncio.timeout(5):
            await self.call.send(head(self.place), BODY)

    async def flow(self, chunked: bool = True) -> None:
        await self.ready()
        self.pump.flow(self.outlet, HEAD, chunked)

    async def finished(self) -> GatewayError | None:
        async with asyncio.timeout(5):
            outcome = await self.pump.finished
        assert outcome is None or isinstance(outcome, GatewayError)
        return outcome


@asynccontextmanager
async def stream(*steps: Step) -> AsyncIterator[Stream]:
    async with ScriptedUpstream([{"t": "{{SSE}}"}, *steps]) as upstream:
        yield Stream(upstream, endpoint(upstream))


WHOLE: list[Step] = [{"chunk": "{{D1}}"}, {"chunk": "{{D2}}"}, {"chunk": "{{FIN}}{{USAGE}}"}, {"chunk": "{{DONE}}"}]


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


def test_an_error_as_the_first_event_leaves_room_for_another_attempt(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": ": hi\n\n"}, ERROR, {"stall": True}) as one:
            with pytest.raises(UpstreamError, match="too busy"):
                await one.ready()
            await asyncio.wait_for(one.upstream.connections[0].closed.wait(), 5)
            assert len(one.sweep) == 0
            assert one.outlet.writes == 0

    run(main())


@pytest.mark.parametrize("chunked", [True, False])
def test_an_error_in_the_middle_is_told_after_what_was_good_and_the_stream_looks_broken(
    run: Run, chunked: bool
) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with stream({"chunk": "{{D1}}"}, {"wait": more}, ERROR, {"stall": True}) as one:
            await one.flow(chunked)
            more.set()
            outcome = await one.finished()
            assert isinstance(outcome, UpstreamError)
            payload = b"data: " + orjson.dumps(outcome.body()) + b"\n\n"
            if chunked:
                assert unchunked(one.outlet.written) == (D1 + payload, False)
            else:
                assert one.outlet.written == HEAD + D1 + payload
            assert one.outlet.hung_up
            await asyncio.wait_for(one.upstream.connections[0].closed.wait(), 5)

    run(main())


def test_an_error_between_the_first_event_and_the_flow_is_told_when_it_flows(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}data: " + '{"error":{"message":"too busy"}}\n\n'}, {"stall": True}) as one:
            await one.flow()
            outcome = await one.finished()
            assert outcome is not None
            assert outcome.message == "too busy"
            out, complete = unchunked(one.outlet.written)
            assert out == D1 + b"data: " + orjson.dumps(outcome.body()) + b"\n\n"
            assert not complete

    run(main())


@pytest.mark.parametrize("last", [{"fin": True}, {"rst": True}, {"end": True}, {"t": "zz\r\n"}])
def test_a_stream_that_breaks_off_looks_broken(run: Run, last: Step) -> None:
    async def main() -> None:
        more = asyncio.Event()
        async with stream({"chunk": "{{D1}}" + "data: ha"}, {"wait": more}, last) as one:
            await one.flow()
            more.set()
            outcome = await one.finished()
            assert isinstance(outcome, Truncated | BadUpstreamResponse)
            out, complete = unchunked(one.outlet.written)
            assert out == D1 + b"data: " + orjson.dumps(outcome.body()) + b"\n\n"
            assert not complete
            assert one.outlet.hung_up
            assert len(one.sweep) == 0

    run(main())


def test_a_stream_that_breaks_off_before_its_first_event_is_an_error(run: Run) -> None:
    async def main() -> None:
        for last in ({"fin": True}, {"end": True}):
            async with stream({"chunk": ": hi\n\n"}, last) as one:
                with pytest.raises(Truncated):
                    await one.ready()

    run(main())


def test_a_break_after_the_end_of_the_stream_changes_nothing(run: Run, until: Any) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, {"chunk": "{{FIN}}{{DONE}}"}, {"end": True}) as one:
            await one.ready()
            await until(lambda: one.relay.done)
            one.pump.lost(UpstreamReset("late"))
            one.pump.flow(one.outlet, HEAD, True)
            assert await one.finished() is None
            one.pump.lost(UpstreamReset("later"))
            one.pump.data(D2)
            one.pump.end()
            assert unchunked(one.outlet.written) == (D1 + FIN + DONE, True)
            assert one.pump.usage() is None

    run(main())


def test_only_the_first_failure_counts(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, {"stall": True}) as one:
            await one.ready()
            one.pump.lost(UpstreamReset("first"))
            one.pump.lost(UpstreamReset("second"))
            one.pump.flow(one.outlet, HEAD, True)
            outcome = await one.finished()
            assert outcome is not None
            assert outcome.message == "first"
            one.pump.lost(UpstreamReset("third"))
            one.pump.end()
            assert one.outlet.written.count(b'"error"') == 1
            one.call.abort()

    run(main())


def test_a_stream_may_be_ended_from_our_side(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, {"stall": True}) as one:
            await one.flow()
            one.pump.fail(GatewayError("Going down.", code="shutting_down"))
            outcome = await one.finished()
            assert outcome is not None
            assert outcome.code == "shutting_down"
            assert b"shutting_down" in one.outlet.written
            assert one.outlet.hung_up
            await asyncio.wait_for(one.upstream.connections[0].closed.wait(), 5)

    run(main())


def test_a_client_that_leaves_ends_the_providers_work(run: Run) -> None:
    async def main() -> None:
        async with stream({"chunk": "{{D1}}"}, {"stall": True}) as one:
            await one.flow()
            one.pump.stop()
            await asyncio.wait_for(one.upstream.connections[0].closed.wait(), 5)
            assert len(one.sweep) == 0
            assert not one.pump.finished.done()

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
