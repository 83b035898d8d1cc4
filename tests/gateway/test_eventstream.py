from __future__ import annotations

import struct
import time
import zlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.eventstream import MAX_FRAME, Frame, FrameReader, Header, encode, read_headers

EVENT = {":event-type": "contentBlockDelta", ":content-type": "application/json", ":message-type": "event"}
# Three frames as AWS's own library frames them: an event, an event with padding, an exception.
PUBLISHED = {
    "messageStart": (
        "000000760000005296d5fade0b3a6576656e742d7479706507000c6d65737361676553746172740d3a636f6e74656e742d74797065070"
        "0106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b22726f6c65223a22617373697374"
        "616e74227d6fa8c599"
    ),
    "contentBlockDelta": (
        "0000009f00000057c37babff0b3a6576656e742d74797065070011636f6e74656e74426c6f636b44656c74610d3a636f6e74656e742d7"
        "47970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b22636f6e74656e7442"
        "6c6f636b496e646578223a302c2264656c7461223a7b2274657874223a224869227d2c2270223a2261626364227df2ace5ff"
    ),
    "throttlingException": (
        "00000090000000618e91a9b70f3a657863657074696f6e2d747970650700137468726f74746c696e67457863657074696f6e0d3a636f6"
        "e74656e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e"
        "7b226d657373616765223a22546f6f206d616e79207265717565737473227de67f8005"
    ),
}
STREAM = b"".join(bytes.fromhex(frame) for frame in PUBLISHED.values())


def whole(data: bytes) -> list[Frame]:
    reader = FrameReader()
    frames = reader.feed(data)
    assert reader.failure is None
    assert not reader.pending
    return frames


def message(total: int, headers: int, body: bytes = b"") -> bytes:
    """A frame whose checksums are right whatever its lengths claim."""
    prelude = struct.pack(">II", total, headers)
    data = prelude + struct.pack(">I", zlib.crc32(prelude)) + body
    return data + struct.pack(">I", zlib.crc32(data))


def test_the_published_frames_are_read() -> None:
    start, delta, error = whole(STREAM)
    assert start == Frame({**EVENT, ":event-type": "messageStart"}, b'{"role":"assistant"}')
    assert delta == Frame(EVENT, b'{"contentBlockIndex":0,"delta":{"text":"Hi"},"p":"abcd"}')
    assert error.headers[":exception-type"] == "throttlingException"
    assert error.payload == b'{"message":"Too many requests"}'


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_frame_written_again_has_the_published_bytes(name: str) -> None:
    data = bytes.fromhex(PUBLISHED[name])
    [frame] = whole(data)
    assert encode(frame.headers, frame.payload) == data


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_any_cut_gives_the_same_frames(cut: int) -> None:
    reader = FrameReader()
    assert reader.feed(STREAM[:cut]) + reader.feed(STREAM[cut:]) == whole(STREAM)


def test_single_bytes_give_the_same_frames() -> None:
    reader = FrameReader()
    assert [frame for byte in STREAM for frame in reader.feed(bytes((byte,)))] == whole(STREAM)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_any_pieces_give_the_same_frames(sizes: list[int]) -> None:
    reader = FrameReader()
    frames, at = [], 0
    for size in [*sizes, len(STREAM)]:
        frames += reader.feed(STREAM[at : at + size])
        at += size
    assert frames == whole(STREAM)


@pytest.mark.parametrize("cut", range(1, len(bytes.fromhex(PUBLISHED["messageStart"]))))
def test_a_part_of_a_frame_is_pending_and_gives_nothing(cut: int) -> None:
    reader = FrameReader()
    assert reader.feed(STREAM[:cut]) == []
    assert reader.pending


@pytest.mark.parametrize("place", range(len(bytes.fromhex(PUBLISHED["contentBlockDelta"]))))
def test_one_wrong_byte_anywhere_never_gives_a_frame(place: int) -> None:
    good = bytes.fromhex(PUBLISHED["messageStart"])
    bad = bytearray(bytes.fromhex(PUBLISHED["contentBlockDelta"]))
    bad[place] ^= 0x01
    reader = FrameReader()
    assert reader.feed(good + bytes(bad) + good) == whole(good)
    assert reader.failure is not None
    assert reader.failure.code == "upstream_bad_response"
    assert reader.feed(good) == []


def test_a_claim_of_two_gibibytes_is_refused_from_the_prelude() -> None:
    reader = FrameReader()
    reader.feed(message(0x7FFFFFFF, 0)[:12])
    assert reader.failure is not None
    assert not reader.pending


@pytest.mark.parametrize(
    ("total", "headers"), [(0, 0), (15, 0), (16, 1), (100, 0xFFFFFFFF), (MAX_FRAME + 1, 0), (300_000, 200_000)]
)
def test_impossible_lengths_are_refused(total: int, headers: int) -> None:
    reader = FrameReader()
    assert reader.feed(message(total, headers)) == []
    assert reader.failure is not None


def test_the_limit_is_the_size_of_a_whole_frame() -> None:
    frame = encode({}, bytes(84))
    assert len(frame) == 100
    assert len(FrameReader(100).feed(frame)) == 1
    strict = FrameReader(99)
    assert strict.feed(frame) == []
    assert strict.failure is not None


@pytest.mark.parametrize(
    "block",
    [
        b"\x05a",
        b"\x01a",
        b"\x01a\x0a",
        b"\x01a\x07\x00",
        b"\x01a\x07\x00\x05ab",
        b"\x01a\x07\x00\x01\xff",
        b"\x01\xff\x00",
        b"\x01a\x05\x00",
        b"\x01a\x00\x01a\x01",
    ],
)
def test_unreadable_headers_break_the_stream(block: bytes) -> None:
    reader = FrameReader()
    assert reader.feed(message(len(block) + 16, len(block), block)) == []
    assert reader.failure is not None


def test_every_type_of_header_value_is_read() -> None:
    uuid = UUID(int=7).bytes
    block = b"".join(
        (
            b"\x01a\x00\x01b\x01\x01c\x02\xff\x01d\x03\x01\x00\x01e\x04\x00\x00\x00\x05",
            b"\x01f\x05" + (-3).to_bytes(8, "big", signed=True),
            b"\x01g\x06\x00\x02\x00\xff\x01h\x07\x00\x02\xc3\xa9",
            b"\x01i\x08" + (1_764_000_000_000).to_bytes(8, "big"),
            b"\x01j\x09" + uuid,
        )
    )
    assert read_headers(block) == {
        "a": True,
        "b": False,
        "c": -1,
        "d": 256,
        "e": 5,
        "f": -3,
        "g": b"\x00\xff",
        "h": "é",
        "i": 1_764_000_000_000,
        "j": uuid,
    }


NAMES = st.text(min_size=1, max_size=20)
VALUES = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=50), st.binary(max_size=50))


@given(st.lists(st.tuples(st.dictionaries(NAMES, VALUES, max_size=5), st.binary(max_size=200)), max_size=5))
def test_what_is_written_is_read_back_by_us_and_by_botocore(messages: list[tuple[dict[str, Header], bytes]]) -> None:
    from botocore.eventstream import EventStreamBuffer

    data = b"".join(encode(headers, payload) for headers, payload in messages)
    assert whole(data) == [Frame(headers, payload) for headers, payload in messages]
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    assert [(event.headers, event.payload) for event in buffer] == messages


def test_many_kinds_of_headers_are_not_all_remembered() -> None:
    reader = FrameReader()
    for number in range(300):
        assert reader.feed(encode({"n": number}, b""))[0].headers == {"n": number}
    assert len(reader._known) == 64


def test_work_is_linear_however_small_the_pieces_are() -> None:
    def seconds(size: int) -> float:
        data = encode(EVENT, bytes(size))
        reader = FrameReader()
        begin = time.perf_counter()
        frames = [frame for at in range(0, len(data), 16) for frame in reader.feed(data[at : at + 16])]
        assert len(frames) == 1
        return time.perf_counter() - begin

    small = min(seconds(20_000) for _ in range(3))
    assert min(seconds(160_000) for _ in range(3)) < 8 * 4 * small
