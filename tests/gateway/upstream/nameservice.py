"""A name service for tests, in place of the machine's."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest


class Names:
    """A name service that answers from a list and can be held up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.asked: list[str] = []
        self.free = threading.Event()
        self.free.set()
        self._answers = list(answers)
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        self.asked.append(host)
        self.free.wait(10)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [(family(address), socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


def family(address: str) -> int:
    """The family of an IP address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
