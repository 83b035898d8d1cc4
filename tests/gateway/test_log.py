"""gateway.log: lines that are always JSON, and a loop that never waits for them."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import Usage
from gateway.log import QUEUE, Log, Record, _as_json, _as_text, fields

NOW = 1_700_000_000.25


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def wait(claim: Callable[[], bool]) -> None:
    """Until another thread has done its part."""
    until = time.monotonic() + 10
    while not claim():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_request_is_one_line_with_times_in_milliseconds() -> None:
    record = Record(began=100.0, id="r", method="POST", path="/v1", key="app", model="m", status=200, first_byte=100.25)
    record.usage = Usage(3, 2, cached=1, source="partial")
    record.upstream_id = "up"
    line = orjson.loads(_as_json(NOW, 101.5, record))
    assert line["time"] == "2023-11-14T22:13:20.250Z"
    assert (line["duration_ms"], line["first_byte_ms"]) == (1500.0, 250.0)
    assert (line["id"], line["key"], line["model"], line["status"], line["code"]) == ("r", "app", "m", 200, "ok")
    assert line["upstream_id"] == "up"
    expected = {"prompt": 3, "completion": 2, "cached": 1, "reasoning": None, "source": "partial"}
    assert line["tokens"] == expected


def test_what_did_not_happen_is_not_told() -> None:
    line = fields(Record(began=1.0), 1.0)
    assert line["first_byte_ms"] is None
    assert "tokens" not in line
    assert "upstream_id" not in line


def test_the_text_form_leaves_out_what_is_empty() -> None:
    text = _as_text(NOW, 2.0, Record(began=1.0, model='a "b"\n', status=200)).decode()
    assert re.fullmatch(
        r'22:13:20 model="a \\"b\\"\\n" stream=false status=200 .* duration_ms=1000\.0 code="ok"\n', text
    )


ANY_TEXT = st.text(st.characters())
HOSTILE = ["\udcff", "\ud800\ud800", "a\nb", "\r\n{}", "\x00\x1b[31m", "\u2028", '"}', 10**30, -(10**40), b"\xff"]


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_makes_one_line_of_valid_json(path: str, model: str) -> None:
    for make in (_as_json, _as_text):
        data = make(NOW, 1.0, Record(began=0.0, path=path, model=model))
        assert data.count(b"\n") == 1
        assert data.endswith(b"\n")
        data.decode()
    assert (
        orjson.loads(_as_json(NOW, 1.0, Record(began=0.0, path=path, model=model)))["model"]
        == model.encode("utf-8", "replace").decode()
    )


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_news_with_odd_values_are_valid_json(value: Any) -> None:
    news = {"level": "error", "message": "m", "what": value, "deep": [{"x": value}]}
    data = _as_json(NOW, 0.0, news)
    assert data.count(b"\n") == 1
    assert json.loads(data)["message"] == "m"
    _as_text(NOW, 0.0, news).decode()


def test_lines_are_written_in_order_when_swept_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(str(path))
    log.start()
    for number in range(1200):
        log.record(Record(began=0.0, id=str(number)), 1.0)
    log.sweep(1.0)
    wait(lambda: len(path.read_bytes().splitlines()) == 1200)
    log.sweep(2.0)
    log.news("info", "last", deployment="d")
    log.close()
    written = lines(path)
    assert [line["id"] for line in written[:-1]] == [str(number) for number in range(1200)]
    assert (written[-1]["level"], written[-1]["message"], written[-1]["deployment"]) == ("info", "last", "d")
    assert log.dropped == 0


def test_many_short_lives_lose_no_last_line(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / str(number)
        log = Log(str(path))
        log.start()
        log.news("info", "first")
        log.sweep(0.0)
        log.news("info", "last")
        log.close()
        assert [line["message"] for line in lines(path)] == ["first", "last"]


def test_without_an_access_log_only_news_are_written(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), access=False)
    log.start()
    log.record(Record(began=0.0), 1.0)
    log.news("info", "up")
    log.close()
    assert [line["message"] for line in lines(tmp_path / "log")] == ["up"]


def test_a_log_that_never_started_can_be_closed(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), text=True)
    log.news("info", "up")
    log.close()
    assert (tmp_path / "log").read_bytes() == b""


def test_a_rotated_log_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    log = Log(str(path))
    log.start()
    log.news("info", "before")
    log.sweep(0.0)
    wait(lambda: path.stat().st_size > 0)
    path.rename(old)
    log.reopen()
    wait(path.exists)
    log.news("info", "after")
    log.close()
    assert [line["message"] for line in lines(old)] == ["before"]
    assert [line["message"] for line in lines(path)] == ["after"]


def test_a_log_that_cannot_be_reopened_stays_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = Log(str(folder / "log"))
    log.start()
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.news("info", "still here")
    log.close()
    assert lines(tmp_path / "moved" / "log")[-1]["message"] == "still here"


@pytest.mark.parametrize("to", ["stdout", "stderr"])
def test_the_standard_streams_are_written_and_never_reopened(to: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(to)
    log.start()
    log.reopen()
    log.news("info", "hello")
    log.close()
    captured = capfd.readouterr()
    assert orjson.loads(captured.out if to == "stdout" else captured.err)["message"] == "hello"


def test_a_full_disk_costs_lines_and_counts_them() -> None:
    log = Log("/dev/full")
    log.start()
    for _ in range(3):
        log.news("info", "lost")
    log.close()
    assert log.dropped == 3


def test_a_reader_that_sleeps_never_blocks_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = Log(str(path))
    log.start()
    began = time.perf_counter()
    record = Record(began=0.0)
    sent = QUEUE + 20_000
    for _ in range(sent // 1_000):
        for _ in range(1_000):
            log.record(record, 1.0)
        log.sweep(1.0)
    log.close(0.05)
    assert time.perf_counter() - began < 5
    assert 10_000 <= log.dropped <= 20_000
    received = bytearray()
    os.set_blocking(reader, True)
    thread = threading.Thread(target=lambda: received.extend(_all(reader, sent - log.dropped)))
    thread.start()
    thread.join(10)
    assert received.count(b"\n") == sent - log.dropped
    os.close(reader)


def _all(reader: int, count: int) -> bytes:
    pieces = []
    while count > 0 and (piece := os.read(reader, 1 << 20)):
        count -= piece.count(b"\n")
        pieces.append(piece)
    return b"".join(pieces)


def test_more_lines_than_the_queue_holds_are_dropped_and_counted(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    for _ in range(QUEUE + 1):
        log.news("info", "x")
    log.sweep(0.0)
    assert log.dropped == QUEUE + 1
    log.news("info", "fits")
    log.start()
    log.close()
    assert [line["message"] for line in lines(tmp_path / "log")] == ["fits"]
