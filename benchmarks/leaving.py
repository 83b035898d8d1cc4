"""Ways to measure what clients do who read slowly or go away: one socket each, opened and read by hand."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.lineup import Lineup, Running
from benchmarks.measures import Asked, Figures, Wrong
from benchmarks.upstream import Behaviour

READ_FIRST = 65536
STALL = 3.0
READ_ON = 4 << 20
PATIENCE = 10.0
LEAVERS = 10
WARM_UP = 20


def stalled(lineup: Lineup, running: Running, asked: Asked) -> Figures:
    """KiB that a client costs who stops reading an endless stream, and MiB taken from the upstream for it.

    It must not grow without end, and the stream must go on when the client does.
    """
    _warm_up(lineup, running, asked)
    lineup.upstream.behave(Behaviour(events=1 << 30))
    count = asked.clients.connections
    before, sent = running.memory, lineup.upstream.stats().sent
    with _streams(running, asked, count) as open_:
        for each in open_:
            _read(each, READ_FIRST)
        time.sleep(STALL)
        middle = running.memory
        time.sleep(STALL)
        after, taken = running.memory, lineup.upstream.stats().sent - sent
        _read(open_[0], READ_ON)
    return {
        "growth": (after - before) / 1024 / count,
        "late": (after - middle) / 1024 / count,
        "taken": taken / 2**20 / count,
    }


def gone(lineup: Lineup, running: Running, asked: Asked) -> Figures:
    """Milliseconds from a client's going away to the end of its answer upstream: the middle one, and the longest."""
    _warm_up(lineup, running, asked)
    lineup.upstream.behave(asked.upstream)
    took = [_leave(lineup, running, asked) for _ in range(LEAVERS)]
    return {"gone": statistics.median(took), "longest": max(took)}


def _leave(lineup: Lineup, running: Running, asked: Asked) -> float:
    before = lineup.upstream.stats().aborted
    with _streams(running, asked, 1) as (stream,):
        _read(stream, 1)
        left = time.monotonic_ns()
    deadline = time.monotonic() + PATIENCE
    while (stats := lineup.upstream.stats()).aborted == before:
        if time.monotonic() > deadline:
            raise Wrong(f"the upstream answer goes on {PATIENCE:.0f} s after its client has gone")
        time.sleep(0.005)
    return (stats.aborted_at - left) / 1e6


def _warm_up(lineup: Lineup, running: Running, asked: Asked) -> None:
    lineup.upstream.behave(Behaviour(events=3))
    for _ in range(WARM_UP):
        with _streams(running, asked, 1) as (stream,):
            _read(stream, 1)
    lineup.upstream.streams_left()


@contextmanager
def _streams(running: Running, asked: Asked, count: int) -> Iterator[list[socket.socket]]:
    """So many streams that were asked for."""
    request = running.request(asked.wire, stream=True)
    open_ = [socket.create_connection(("127.0.0.1", running.seat.port), PATIENCE) for _ in range(count)]
    try:
        for each in open_:
            each.sendall(request)
        yield open_
    finally:
        for each in open_:
            each.close()


def _read(stream: socket.socket, count: int) -> None:
    """Read at least so many bytes."""
    while count > 0:
        try:
            piece = stream.recv(1 << 16)
        except TimeoutError as error:
            raise Wrong("the stream stands still") from error
        if not piece:
            raise Wrong("the stream ended")
        count -= len(piece)
