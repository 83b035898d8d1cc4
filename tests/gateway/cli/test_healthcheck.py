"""`sluiceway healthcheck`: whom it asks, what it makes of the answer, and that it loads little."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from livegateway import command, process, shipped

from gateway.__main__ import main

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n"
DRAINING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def answering(listener: socket.socket, *pieces: bytes) -> Iterator[list[bytes]]:
    """A server that answers one request with these pieces; it says what it was asked."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(4096))
            # Who has seen enough may go before the last piece.
            with suppress(ConnectionError):
                for piece in pieces:
                    connection.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        thread.join(10)
        listener.close()


def tcp() -> tuple[socket.socket, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"127.0.0.1:{listener.getsockname()[1]}"


def write(folder: Path, server: str) -> str:
    path = folder / "gateway.yaml"
    path.write_text(f"version: 1\nserver: {server}\n")
    return str(path)


def test_a_gateway_that_is_ready_is_healthy(tmp_path: Path) -> None:
    with process(tmp_path, shipped()) as running:
        done = command("healthcheck", "-c", str(running.path))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert command("healthcheck", "--live", env={"SLUICEWAY_CONFIG": str(running.path)}).returncode == 0
        address = f"127.0.0.1:{running.port}"
    done = command("healthcheck", "--address", address)
    assert done.returncode == 1
    assert "refused" in done.stderr


@pytest.mark.parametrize("words", [[], ["--live"]])
def test_the_page_that_was_asked_for_is_asked(words: list[str]) -> None:
    listener, address = tcp()
    with answering(listener, OK) as asked:
        assert main(["healthcheck", "--address", address, *words]) == 0
    assert asked[0].startswith(b"GET /livez HTTP/1.1\r\n" if words else b"GET /readyz HTTP/1.1\r\n")


def test_an_answer_in_pieces_is_an_answer() -> None:
    listener, address = tcp()
    with answering(listener, *(OK[index : index + 1] for index in range(len(OK)))):
        assert main(["healthcheck", "--address", address]) == 0


@pytest.mark.parametrize("answer", [DRAINING, b"", b"HTTP/1.1 2", b"SSH-2.0-OpenSSH\r\n", b"x" * 9000])
def test_any_other_answer_is_unhealthy(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    listener, address = tcp()
    with answering(listener, answer):
        assert main(["healthcheck", "--address", address]) == 1
    assert address in capsys.readouterr().err


def test_silence_is_unhealthy_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    listener, address = tcp()
    with listener:
        assert main(["healthcheck", "--address", address, "--timeout", "0.05"]) == 1
    assert "timed out" in capsys.readouterr().err


def test_a_unix_socket_is_asked(tmp_path: Path) -> None:
    # A short path, because the system takes no more than 107 bytes.
    path = os.path.relpath(tmp_path / "a.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    config = write(tmp_path, f'{{admin: "unix:{tmp_path}/a.sock"}}')
    with answering(listener, OK):
        assert main(["healthcheck", "-c", config]) == 0


def test_an_address_for_everybody_is_asked_on_this_machine(tmp_path: Path) -> None:
    listener, address = tcp()
    with answering(listener, OK):
        port = address.rpartition(":")[2]
        assert main(["healthcheck", "-c", write(tmp_path, f'{{admin: "0.0.0.0:{port}", insecure: true}}')]) == 0


def test_a_file_that_is_wrong_elsewhere_does_not_make_a_gateway_unhealthy(tmp_path: Path) -> None:
    listener, address = tcp()
    config = write(tmp_path, f'{{admin: "{address}", no_such_option: 1}}\nproviders: {{x: {{}}}}')
    with answering(listener, OK):
        assert main(["healthcheck", "-c", config]) == 0


def test_an_included_file_may_say_where(tmp_path: Path) -> None:
    listener, address = tcp()
    (tmp_path / "gateway.yaml").write_text("version: 1\ninclude: [more.yaml]\n")
    (tmp_path / "more.yaml").write_text(f'server: {{admin: "{address}"}}\n')
    with answering(listener, OK):
        assert main(["healthcheck", "-c", str(tmp_path / "gateway.yaml")]) == 0


@pytest.mark.parametrize("admin", ["null", '"fd:admin"'])
def test_a_listener_that_cannot_be_found_is_told(
    admin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["healthcheck", "-c", write(tmp_path, f"{{admin: {admin}}}")]) == 1
    assert "--address" in capsys.readouterr().err


def test_little_is_loaded() -> None:
    done = command("healthcheck", "--address", "127.0.0.1:1", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 1
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "gateway.config.files" in loaded
    heavy = {"aiohttp", "msgspec", "orjson", "asyncio", "uvloop", "http.client", "gateway.config.loader"}
    assert loaded & heavy == set(), sys.version
