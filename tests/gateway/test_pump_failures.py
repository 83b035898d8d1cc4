"""gateway.pump: streams that fail, break off, or are ended from either side, over real connections."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from upstreams import Step

from gateway.errors import BadUpstreamResponse, GatewayError, Truncated, UpstreamError, UpstreamReset
from tests.gateway.pumping import (
    D1,
    D2,
    DONE,
    ERROR,
    FIN,
    HEAD,
    Run,
    stream,
    unchunked,
)


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
