"""A real redis-server for tests: started, killed, put to sleep and started again at the same port."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from livegateway import free_port

PATIENCE = 20.0


class RedisServer:
    """One server on 127.0.0.1 that keeps nothing when it ends."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        options = ("--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(folder))
        self._command = (program, *options, "--enable-debug-command", "yes")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                assert self.say("PING") == b"+PONG\r\n"
                return
            assert time.monotonic() < until, "redis-server did not start"
            time.sleep(0.02)  # another process: there is nothing here to wait on

    def say(self, *words: str, patience: float = PATIENCE) -> bytes:
        """The raw answer to one command, as far as it fits into one read."""
        with socket.create_connection(("127.0.0.1", self.port), patience) as client:
            parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            client.sendall(f"*{len(words)}\r\n{parts}".encode())
            answer = client.recv(65_536)
            if not answer:
                raise ConnectionResetError
            return answer

    def signal(self, number: int) -> None:
        """SIGSTOP puts it to sleep, SIGCONT wakes it."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once; everything that it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A server that answers; it is gone at the end, asleep or not."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        if server._process is not None:
            server.signal(signal.SIGCONT)
        server.kill()
