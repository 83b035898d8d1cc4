"""The bytes of the benchmark are what the gateway's own readers understand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import wires
from gateway.eventstream import FrameReader


def test_a_frame_is_read_back() -> None:
    (read,) = FrameReader().feed(wires.frame("contentBlockDelta", {"delta": {"text": "hello"}}))
    assert read.headers[":event-type"] == "contentBlockDelta"
    assert json.loads(read.payload) == {"delta": {"text": "hello"}}


def test_a_prompt_grows_by_its_padding() -> None:
    short, long = wires.chat("m"), wires.chat("m", padding=400_000)
    assert 400_000 < len(long) - len(short) < 400_100
    assert json.loads(long)["model"] == "m"


def test_a_request_tells_the_length_of_its_body() -> None:
    head, _, body = wires.request("/v1/x", {"Authorization": "Bearer k"}, b"{}").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert {b"Authorization: Bearer k", b"Content-Length: 2"} < set(head.split(b"\r\n"))
    assert body == b"{}"


@pytest.mark.parametrize("name", ["openai", "anthropic", "google", "bedrock"])
def test_every_repeated_event_has_one_place_for_the_time(tmp_path: Path, name: str) -> None:
    wires.write_answers(tmp_path)
    assert (tmp_path / f"{name}.event").read_bytes().count(b"@T" + b"0" * 16) == 1
    whole = (tmp_path / f"{name}.whole").read_bytes()
    head, _, body = whole.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)
