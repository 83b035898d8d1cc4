"""The C programs, on real sockets: the clients count what truly came, the upstream does what it is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import clients, machine, wires
from benchmarks.clients import Clients, Work
from benchmarks.upstream import Behaviour, Upstream, start_upstream
from gateway.eventstream import FrameReader

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="takes a C compiler")
ROOT = Path(__file__).resolve().parents[2]
CORES = frozenset(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.fixture
def upstream(folder: Path) -> Iterator[Upstream]:
    started = start_upstream(folder, CORES)
    yield started
    machine.stop(started.process)


def ask(port: int, path: str, body: bytes, pieces: int = 1) -> bytes:
    """A whole answer, its request sent in pieces."""
    request = wires.request(path, {}, body)
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = len(request) // pieces + 1
        for start in range(0, len(request), size):
            connection.sendall(request[start : start + size])
        answer = b""
        while not answer.endswith((b"}", b"0\r\n\r\n")):
            answer += connection.recv(1 << 16)
        return answer


def events(answer: bytes) -> list[bytes]:
    """The chunks of an answer's body."""
    body, found = answer.partition(b"\r\n\r\n")[2], []
    while body:
        size, _, rest = body.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return found[:-1]


@pytest.mark.parametrize("pieces", [1, 7])
def test_the_upstream_streams_when_the_body_asks_for_it(upstream: Upstream, pieces: int) -> None:
    upstream.behave(Behaviour(events=5))
    streamed = events(ask(upstream.port, "/v1/chat/completions", wires.chat("m", stream=True), pieces))
    assert sum(b"@T" in each for each in streamed) == 5
    assert not any(wires.STAMP.encode() in each for each in streamed)
    assert streamed[-1] == b"data: [DONE]\n\n"
    whole = ask(upstream.port, "/v1/chat/completions", wires.chat("m"), pieces)
    assert whole.endswith(b"}")
    assert upstream.stats().requests == 2


def test_the_upstream_takes_prompts_larger_than_it_keeps(upstream: Upstream) -> None:
    assert ask(upstream.port, "/v1/chat/completions", wires.chat("m", padding=400_000), 30).endswith(b"}")


def test_stamped_frames_keep_a_right_checksum(upstream: Upstream) -> None:
    upstream.behave(Behaviour(events=3))
    frames = FrameReader().feed(b"".join(events(ask(upstream.port, "/model/x/converse-stream", b"{}"))))
    assert sum(b"@T" in each.payload for each in frames) == 3


def test_the_upstream_tells_when_a_reader_has_left(upstream: Upstream) -> None:
    upstream.behave(Behaviour(events=1 << 30, pause=0.01))
    request = wires.request("/v1/chat/completions", {}, wires.chat("m", stream=True))
    with socket.create_connection(("127.0.0.1", upstream.port), 10) as connection:
        connection.sendall(request)
        connection.recv(100)
        assert upstream.stats().active == 1
    assert upstream.streams_left() == 0
    assert upstream.stats().aborted == 1


@contextmanager
def server(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> Iterator[int]:
    """A server in a thread of its own, for clients that are another process; its port."""
    loop, ports = asyncio.new_event_loop(), []

    async def serve() -> None:
        started = await asyncio.start_server(answer, "127.0.0.1", 0)  # type: ignore[arg-type] # it returns a coroutine
        ports.append(started.sockets[0].getsockname()[1])

    loop.run_until_complete(serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def request_of(reader: asyncio.StreamReader) -> bool:
    """Read a request; false at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
    return True


STREAM = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (b"a@T00000000000000a", b"1@@T00000000000000b2@T", b"c"))
    + b"0\r\n\r\n"
)


def test_clients_find_stamps_however_they_are_cut(folder: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while await request_of(reader):
            for start in range(0, len(STREAM), 5):
                writer.write(STREAM[start : start + 5])
                await asyncio.sleep(0)
        writer.close()

    with server(answer) as port:
        work = Work(folder, port, wires.request("/x", {}, b"{}"), CORES)
        seen = clients.run(work, Clients(1, 0.3, 0.05))
    assert seen.errors == 0
    assert seen.answers > 0
    # The answer that is under way at either end may have given one of its stamps.
    assert abs(seen.chunks - 2 * seen.answers) <= 2


def test_an_answer_of_another_status_or_none_is_an_error(folder: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        writer.close()

    with server(answer) as port:
        work = Work(folder, port, wires.request("/x", {}, b"{}"), CORES)
        wrong = clients.run(work, Clients(2, 0.2, 0.05))
        right = clients.run(work, Clients(2, 0.2, 0.05, status=503))
    assert wrong.errors > 0
    assert wrong.status == 503
    assert right.errors == 0
    assert right.answers > 0


def test_clients_wait_between_requests_when_told_to(upstream: Upstream, folder: Path) -> None:
    request = wires.request("/v1/chat/completions", {}, wires.chat("m"))
    seen = clients.run(Work(folder, upstream.port, request, CORES), Clients(1, 0.5, 0.0, every=0.1))
    assert 1 <= seen.answers <= 6


def test_the_cost_of_a_tree_is_seen() -> None:
    spin = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    process = subprocess.Popen([sys.executable, "-c", spin])
    try:
        while len(machine.tree(process.pid)) < 2 or machine.cpu_ns(process.pid) < 1e8:
            assert process.poll() is None
        assert machine.memory(process.pid) > 1 << 20
    finally:
        machine.stop(process)
    assert machine.cpu_ns(process.pid) == 0


@pytest.mark.slow
def test_a_run_prints_keeps_and_draws(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks", "-r", "1", "-t", "0.3", "-o", str(tmp_path)]
    chosen = ["-s", "json:16", "anthropic:200", "-c", "sluiceway", "aiohttp"]
    done = subprocess.run([*line, *chosen], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out" not in done.stdout
    assert "Sluiceway" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.svg").read_text().startswith("<svg")
