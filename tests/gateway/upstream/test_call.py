"""gateway.upstream.call: one attempt under its timers, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from upstreams import OK_BODY, ScriptedUpstream, Step

from gateway.errors import (
    BadUpstreamResponse,
    Truncated,
    Unreachable,
    UpstreamError,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.upstream import Call, Collector, Endpoint, Sweep
from gateway.upstream.dial import tls_context
from gateway.upstream.names import Resolver
from tests.gateway.upstream.support import BODY, LIMITS, Noted, call, endpoint, fetched, head

Run = Callable[[Any], Any]
OK: Step = {"t": "{{OK}}"}


def failing(run: Run, *steps: Step, limits: Any = LIMITS) -> UpstreamError:
    async def main() -> UpstreamError:
        async with ScriptedUpstream(steps) as upstream, asyncio.timeout(10):
            place = endpoint(upstream)
            with pytest.raises(UpstreamError) as caught:
                await fetched(place, limits)
            assert place.idle() is None
            return caught.value

    result = run(main())
    assert isinstance(result, UpstreamError)
    return result


def test_an_answer_has_status_headers_and_body(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK]) as upstream:
            place = endpoint(upstream)
            sweep = Sweep()
            one = call(place, sweep=sweep)
            await one.send(head(place), BODY)
            assert (one.status, one.headers["content-type"]) == (200, "application/json")
            assert isinstance(one.sink, Collector)
            assert one.sink.body == OK_BODY.encode()
            assert len(sweep) == 0
            assert place.idle() is not None
            one.abort()
            one.let_go()
            one.pause()
            one.resume()
            assert upstream.requests == [head(place) + BODY]

    run(main())


@pytest.mark.parametrize("status", ["400 Bad Request", "429 Too Many", "500 Oops", "302 Found"])
def test_any_status_is_an_answer(run: Run, status: str) -> None:
    async def main() -> None:
        async with ScriptedUpstream([{"t": f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}"}]) as upstream:
            assert await fetched(endpoint(upstream)) == (int(status[:3]), b"{}")

    run(main())


@pytest.mark.parametrize(
    ("steps", "failure"),
    [
        ([{"fin": True}], UpstreamReset),
        ([{"rst": True}], UpstreamReset),
        ([{"t": "junk"}, {"stall": True}], BadUpstreamResponse),
        ([{"t": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"}, {"fin": True}], Truncated),
        ([{"t": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"}, {"sleep": 0.02}, {"rst": True}], Truncated),
        ([{"gzip_bomb": {"mib": 64}}, {"stall": True}], BadUpstreamResponse),
    ],
)
def test_a_failure_is_raised_and_the_connection_closed(
    run: Run, steps: list[Step], failure: type[UpstreamError]
) -> None:
    assert type(failing(run, *steps)) is failure


def test_nobody_listening_is_unreachable(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([]) as upstream:
            place = endpoint(upstream)
        with pytest.raises(Unreachable):
            await fetched(place)

    run(main())


def test_a_body_beyond_the_limit_is_refused(run: Run) -> None:
    error = failing(
        run, {"t": "{{SSE}}"}, {"rep": {"chunk": "{{64K}}", "n": 100}}, limits=replace(LIMITS, max_response=100_000)
    )
    assert isinstance(error, BadUpstreamResponse)
    assert "100000 bytes" in error.message


def test_of_a_cut_body_the_beginning_is_enough(run: Run) -> None:
    async def main() -> None:
        big: list[Step] = [{"t": "{{SSE}}"}, {"chunk": "begin"}, {"sleep": 0.02}, {"chunk": "{{64K}}"}, {"end": True}]
        async with ScriptedUpstream(big) as upstream:
            place = endpoint(upstream)
            one = call(place, replace(LIMITS, max_response=100), cut=True)
            await one.send(head(place), BODY)
            assert isinstance(one.sink, Collector)
            assert one.sink.body == b"begin"
            assert place.idle() is not None

    run(main())


# A pooled connection that has died.


@pytest.mark.parametrize("death", [{"fin": True}, {"rst": True}])
def test_a_connection_that_died_in_the_pool_is_replaced_exactly_once(run: Run, death: Step) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK], [death], [OK], [death], [death], [OK]) as upstream:
            place = endpoint(upstream)
            assert (await fetched(place))[0] == 200
            assert (await fetched(place))[0] == 200
            assert [len(each.requests) for each in upstream.connections] == [2, 1]
            with pytest.raises(UpstreamReset):
                await fetched(place)
            assert [len(each.requests) for each in upstream.connections] == [2, 2, 1]

    run(main())


def test_a_fresh_connection_that_dies_is_not_replaced(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([{"fin": True}], [OK]) as upstream:
            with pytest.raises(UpstreamReset):
                await fetched(endpoint(upstream))
            assert len(upstream.requests) == 1

    run(main())


@pytest.mark.parametrize(
    ("again", "limits"),
    [
        ([{"t": "HTTP/1.1 200"}, {"fin": True}], LIMITS),
        ([{"fin": True}], replace(LIMITS, stale_retry=False)),
        ([{"sleep": 0.3}, {"fin": True}], LIMITS),
    ],
)
def test_a_death_that_is_not_clearly_stale_is_not_repeated(run: Run, again: list[Step], limits: Any) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK], again, [OK]) as upstream:
            place = endpoint(upstream)
            await fetched(place)
            with pytest.raises(UpstreamReset):
                await fetched(place, limits)
            assert len(upstream.requests) == 2

    run(main())


def test_a_stale_connection_with_nobody_behind_it_is_unreachable(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK], [{"fin": True}]) as upstream:
            place = endpoint(upstream)
            await fetched(place)
            assert upstream._server is not None
            upstream._server.close()
            with pytest.raises(Unreachable):
                await fetched(place)

    run(main())


# Timers: the sweep's time is an argument.


def swept(run: Run, steps: list[Step], *, after: float, limits: Any = LIMITS, got: str = "") -> UpstreamError | None:
    """What a call came to when the sweep looked `after` so many seconds, once the head (or the body) had come."""

    async def main() -> Exception | None:
        async with ScriptedUpstream(steps) as upstream:
            place = endpoint(upstream)
            one = call(place, limits)
            task = asyncio.ensure_future(one.send(head(place), BODY))
            await upstream.request_count(1)
            async with asyncio.timeout(5):
                while got and (one.status == 0 or (got == "body" and not _pieces(one))):  # noqa: ASYNC110 - what is waited for sets no event
                    await asyncio.sleep(0)
            now = asyncio.get_running_loop().time()
            one.sweep(now)
            assert not task.done()
            one.sweep(now + after)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                return None
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)
            return task.exception()

    result = run(main())
    assert result is None or isinstance(result, UpstreamError)
    return result


def _pieces(one: Call) -> int:
    assert isinstance(one.sink, Collector)
    return one.sink._size


SILENT: list[Step] = [{"stall": True}]
HEAD_ONLY: list[Step] = [{"t": "{{SSE}}"}, {"stall": True}]
SOME: list[Step] = [{"t": "{{SSE}}"}, {"chunk": "{{D1}}"}, {"stall": True}]


def test_the_first_byte_has_its_time(run: Run) -> None:
    assert swept(run, SILENT, after=29) is None
    error = swept(run, SILENT, after=31)
    assert isinstance(error, UpstreamTimeout)
    assert (error.code, "begin to answer" in error.message) == ("upstream_timeout", True)


def test_a_head_alone_is_no_first_byte(run: Run) -> None:
    error = swept(run, HEAD_ONLY, after=31, got="head")
    assert isinstance(error, UpstreamTimeout)
    assert "begin to answer" in error.message


def test_silence_in_the_middle_has_its_time(run: Run) -> None:
    assert swept(run, SOME, after=29, got="body") is None
    error = swept(run, SOME, after=31, got="body")
    assert isinstance(error, UpstreamTimeout)
    assert error.code == "upstream_idle_timeout"


def test_the_whole_has_its_time(run: Run) -> None:
    for steps in (SILENT, SOME):
        error = swept(run, steps, after=101, limits=replace(LIMITS, first_byte=1000, idle=1000))
        assert isinstance(error, UpstreamTimeout)
        assert "total time" in error.message


def test_connecting_is_bounded_by_what_is_left_of_the_total(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with ScriptedUpstream([], tls="hang") as upstream:
            place = Endpoint(upstream.url, {}, Resolver(), tls_context())
            one = call(place, replace(LIMITS, connect=1000, total=0.02))
            before = loop.time()
            with pytest.raises(Unreachable) as caught:
                await one.send(head(place), BODY)
            assert caught.value.code == "upstream_connect_timeout"
            assert loop.time() - before < 5

    run(main())


class Waiting(Noted):
    """A sink whose client takes nothing."""

    def moving(self) -> bool:
        return False

    def waiting(self) -> bool:
        return True


def test_a_client_that_holds_things_up_is_not_the_providers_silence(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(SOME) as upstream:
            place = endpoint(upstream)
            sink = Waiting()
            loop = asyncio.get_running_loop()
            limits = replace(LIMITS, first_byte=0)
            one = Call(place, limits, Sweep(), loop.time() + 1000, lambda call: sink)
            task = asyncio.ensure_future(one.send(head(place), BODY))
            async with asyncio.timeout(5):
                while not sink.pieces:  # noqa: ASYNC110 - what is waited for sets no event
                    await asyncio.sleep(0)
            one.pause()
            one._first_by = 0.0
            one.sweep(loop.time() + 900)
            assert sink.failure is None
            one.resume()
            one.sweep(loop.time() + 1001)
            assert isinstance(sink.failure, UpstreamTimeout)
            task.cancel()

    run(main())


# Giving up.


def test_a_cancelled_call_closes_the_providers_connection_at_once(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream(SOME) as upstream:
            place, sweep = endpoint(upstream), Sweep()
            task = asyncio.ensure_future(call(place, sweep=sweep).send(head(place), BODY))
            await upstream.request_count(1)
            assert len(sweep) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)
            assert len(sweep) == 0

    run(main())


def test_an_answer_that_was_let_go_is_read_to_its_end(run: Run, until: Any) -> None:
    async def main() -> None:
        more = asyncio.Event()
        steps: list[Step] = [{"t": "{{SSE}}"}, {"chunk": "{{DONE}}"}, {"wait": more}, {"end": True}]
        async with ScriptedUpstream(steps) as upstream:
            place, sweep = endpoint(upstream), Sweep()
            one = call(place, sweep=sweep)
            task = asyncio.ensure_future(one.send(head(place), BODY))
            await until(lambda: one.status == 200)
            one.let_go()
            assert len(sweep) == 0
            more.set()
            await until(lambda: place.idle() is not None)
            task.cancel()

    run(main())


def test_a_sink_may_refuse_what_it_gets(run: Run) -> None:
    class Refusing(Noted):
        def data(self, data: bytes) -> None:
            raise BadUpstreamResponse("no")

        def lost(self, error: UpstreamError) -> None:
            if not self.ended.is_set():
                super().lost(error)

    async def main() -> None:
        async with ScriptedUpstream(SOME) as upstream:
            place, sink = endpoint(upstream), Refusing()
            one = Call(place, LIMITS, Sweep(), asyncio.get_running_loop().time() + 100, lambda call: sink)
            task = asyncio.ensure_future(one.send(head(place), BODY))
            await asyncio.wait_for(sink.ended.wait(), 5)
            assert isinstance(sink.failure, BadUpstreamResponse)
            await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)
            one.fail(Truncated("late"))
            task.cancel()

    run(main())


def test_an_end_before_the_head_is_a_failure_that_is_told_once(run: Run) -> None:
    async def main() -> None:
        async with ScriptedUpstream([OK]) as upstream:
            one = call(endpoint(upstream))
            one.end()
            one.lost(Truncated("early"))
            one.lost(Truncated("again"))
            with pytest.raises(Truncated, match="early"):
                await one.ready

    run(main())


def test_a_collector_tells_once(run: Run) -> None:
    async def main() -> None:
        ready = asyncio.get_running_loop().create_future()
        collector = Collector(ready, 100)
        assert not collector.moving()
        collector.data(b"a")
        collector.data(b"b")
        assert collector.moving()
        assert not collector.moving()
        assert not collector.waiting()
        collector.end()
        collector.end()
        collector.lost(Truncated("late"))
        assert (await ready, collector.body) == (None, b"ab")

    run(main())
