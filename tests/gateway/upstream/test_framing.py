"""gateway.upstream.framing: one HTTP/1.1 answer out of bytes, bounded in every direction."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadUpstreamResponse, Truncated, UpstreamError
from gateway.upstream.framing import FREE_OUTPUT, MAX_HEAD, MAX_HEADERS, Framing, start_of

BODY = b'{"choices":[]}'
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\nX-A: 1\r\n\r\n" + BODY
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n"
    b"5;ext=1\r\n" + BODY[:5] + b"\r\n09\r\n" + BODY[5:] + b"\r\n0\r\nTrailer: x\r\n\r\n"
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-A: 0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n" + BODY
PACKED = gzip.compress(BODY, mtime=0)
GZIP = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nX-A: 1\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED
GOOD = {
    "length": LENGTH,
    "chunked": CHUNKED,
    "interim": INTERIM + LENGTH,
    "interim and chunked": INTERIM + CHUNKED,
    "gzip": GZIP,
}


def run(pieces: list[bytes]) -> tuple[Framing, bytes]:
    framing = Framing()
    return framing, b"".join(framing.feed(piece) for piece in pieces)


def singly(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def answer(headers: bytes, body: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n\r\n" + body


@pytest.mark.parametrize("name", GOOD)
def test_any_cut_gives_the_same_answer(name: str) -> None:
    data = GOOD[name]
    for pieces in ([data], singly(data), *([data[:cut], data[cut:]] for cut in range(len(data)))):
        framing, body = run(pieces)
        assert (framing.status, framing.headers["x-a"], body) == (200, "1", BODY)
        assert framing.complete
        assert framing.reusable
        assert framing.whole
        framing.finish()


def test_one_parser_reads_one_answer_after_the_other() -> None:
    framing = Framing()
    for data in [*GOOD.values(), LENGTH] * 2:
        framing.reset()
        assert framing.status == 0
        assert framing.feed(data) == BODY
        assert framing.reusable


@pytest.mark.parametrize("data", [LENGTH, CHUNKED, GZIP, UNTIL_CLOSE], ids=["length", "chunked", "gzip", "close"])
def test_an_answer_that_ends_early_is_truncated(data: bytes) -> None:
    for end in range(len(data)):
        framing, _ = run([data[:end]])
        if data is UNTIL_CLOSE and framing.status:
            framing.finish()
            assert framing.complete
        else:
            with pytest.raises(Truncated):
                framing.finish()
        assert not framing.reusable


def test_an_answer_without_a_length_lasts_until_the_close() -> None:
    framing, body = run([UNTIL_CLOSE, b"more"])
    assert body == BODY + b"more"
    assert not framing.complete
    framing.finish()
    assert framing.complete
    assert not framing.reusable


@pytest.mark.parametrize(
    ("data", "reusable"),
    [
        (answer(b"Content-Length: 0"), True),
        (answer(b"Content-Length: 0\r\nConnection: close"), False),
        (answer(b"Content-Length: 0\r\nConnection: Keep-Alive, Close"), False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n", True),
    ],
)
def test_a_connection_is_reusable_when_both_sides_say_so(data: bytes, reusable: bool) -> None:
    framing, body = run([data])
    assert (framing.complete, framing.reusable, body) == (True, reusable, b"")


@pytest.mark.parametrize(
    "extra", [b"x", b"\r\nHTTP/1.1 200 OK\r\n", LENGTH, b"HTTP/1.1 100 Continue\r\n\r\n", b"\x00\x00"]
)
@pytest.mark.parametrize("data", [LENGTH, CHUNKED, GZIP], ids=["length", "chunked", "gzip"])
def test_bytes_behind_the_answer_poison_the_connection_and_not_the_answer(data: bytes, extra: bytes) -> None:
    framing, body = run([data + extra])
    assert body == BODY
    assert framing.complete
    assert not framing.reusable


def test_bytes_behind_the_last_answer_of_a_connection_do_no_harm() -> None:
    framing, body = run([LENGTH.replace(b"X-A: 1", b"Connection: close") + b"junk"])
    assert (framing.complete, framing.reusable, body) == (True, False, BODY)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/3.7 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"<html></html>",
        b"GET / HTTP/1.1\r\n\r\n",
        LENGTH.replace(b"\r\n", b"\n"),
        LENGTH.replace(b"\r\nX-A", b"\nX-A"),
        answer(b"X: a\r\n folded"),
        answer(b"No colon"),
        answer(b": no name"),
        answer(b"Bad name : x"),
        answer(b"X: a\x00b"),
        answer(b"Content-Length: x"),
        answer(b"Content-Length: -1"),
        answer(b"Content-Length: 1 2"),
        answer(b"Content-Length: 99999999999999999999999"),
        answer(b"Content-Length: 1\r\nContent-Length: 2"),
        answer(b"Content-Length: 1\r\nTransfer-Encoding: chunked"),
        answer(b"Transfer-Encoding: chunked", b"zz\r\n"),
        answer(b"Transfer-Encoding: chunked", b"-1\r\n"),
        answer(b"Transfer-Encoding: chunked", b"fffffffffffffffff\r\n"),
        answer(b"Transfer-Encoding: chunked", b"2\r\nabc\r\n"),
        answer(b"Content-Encoding: br\r\nContent-Length: 1"),
        answer(b"Content-Encoding: gzip, gzip\r\nContent-Length: 1"),
        answer(b"X: y", status=b"101 Switching"),
        answer(b"X: y", status=b"099 Low"),
        answer(b"X: y", status=b"600 High"),
        answer(b"X: y", status=b"999 Higher"),
    ],
    ids=lambda data: repr(data[-40:])[2:-1],
)
def test_what_http_does_not_allow_is_the_providers_fault(data: bytes) -> None:
    for pieces in ([data], singly(data)):
        with pytest.raises(BadUpstreamResponse) as caught:
            run(pieces)
        assert "parser" not in caught.value.message.lower()


def test_a_head_without_end_is_bounded() -> None:
    for piece in (b"X", b"X: " + b"y" * 1000 + b"\r\n"):
        framing = Framing()
        framing.feed(b"HTTP/1.1 200 OK\r\n")
        with pytest.raises(BadUpstreamResponse, match="too"):
            for _ in range(MAX_HEAD + 1):
                framing.feed(piece)


def test_headers_are_counted() -> None:
    many = b"\r\n".join(b"X%d: y" % number for number in range(MAX_HEADERS + 1))
    with pytest.raises(BadUpstreamResponse, match=r"too many|too large"):
        run([answer(many)])
    allowed = b"\r\n".join(b"X%d: y" % number for number in range(MAX_HEADERS - 1))
    framing, _ = run([answer(allowed + b"\r\nContent-Length: 0")])
    assert framing.complete


def test_a_head_in_one_read_is_bounded_as_well() -> None:
    with pytest.raises(BadUpstreamResponse, match="too large"):
        run([answer(b"X: " + b"y" * MAX_HEAD + b"\r\nContent-Length: 0")])


def test_the_head_is_kept_as_it_came() -> None:
    framing, _ = run([INTERIM + LENGTH])
    assert framing.head == LENGTH.partition(b"\r\n\r\n")[0]


def test_a_head_and_a_large_body_in_one_read_are_no_large_head() -> None:
    body = b"x" * (2 * MAX_HEAD)
    framing, got = run([answer(b"Content-Length: %d" % len(body), body)])
    assert got == body
    assert framing.reusable


def test_trailers_are_passed_over_and_bounded() -> None:
    framing, body = run([answer(b"Transfer-Encoding: chunked", b"1\r\nx\r\n0\r\nX: y\r\n\r\n")])
    assert (body, framing.reusable) == (b"x", True)
    assert "x" not in framing.headers
    framing, _ = run([answer(b"Transfer-Encoding: chunked", b"0\r\n")])
    with pytest.raises(BadUpstreamResponse):
        for _ in range(10_000):
            framing.feed(b"X: " + b"y" * 1000 + b"\r\n")


def test_interim_answers_without_end_are_refused() -> None:
    with pytest.raises(BadUpstreamResponse, match="interim"):
        run([b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 100)


def test_of_a_repeated_header_the_last_counts_and_names_are_lower_case() -> None:
    framing, _ = run([answer(b"X-REQUEST-ID: a\r\nx-request-id: b\r\nX-L: \xe9\r\nContent-Length: 0")])
    assert (framing.headers["x-request-id"], framing.headers["x-l"]) == ("b", "\u00e9")


@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b"GZIP", b"deflate"])
def test_a_packed_body_comes_out_unpacked(coding: bytes) -> None:
    packed = zlib.compress(BODY) if coding == b"deflate" else PACKED
    head = answer(b"Content-Encoding: %b\r\nContent-Length: %d" % (coding, len(packed)))
    framing, body = run([head + packed])
    assert body == BODY
    assert framing.whole


def test_identity_is_no_packing() -> None:
    assert run([answer(b"Content-Encoding: identity\r\nContent-Length: 14", BODY)])[1] == BODY


def test_packed_pieces_leave_as_they_come() -> None:
    packer = zlib.compressobj(wbits=31)
    framing = Framing()
    framing.feed(answer(b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked"))
    for text in (b"data: 1\n\n", b"data: 2\n\n"):
        piece = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
        assert framing.feed(b"%x\r\n%b\r\n" % (len(piece), piece)) == text
    piece = packer.flush()
    framing.feed(b"%x\r\n%b\r\n0\r\n\r\n" % (len(piece), piece))
    assert framing.whole
    assert framing.reusable


@given(st.integers(0, 3 * 256 * 1024), st.integers(1, 5000))
def test_a_packed_body_of_any_size_comes_out_whole(size: int, cut: int) -> None:
    packed = gzip.compress(b"a" * size, mtime=0)
    head = answer(b"Content-Encoding: gzip\r\nContent-Length: %d" % len(packed))
    framing, body = run([head, *(packed[at : at + cut] for at in range(0, len(packed), cut))])
    assert len(body) == size
    assert framing.whole


@pytest.mark.parametrize("packed", [PACKED[:-1], PACKED[:12], b""])
def test_a_packed_body_that_ends_before_its_end_is_not_whole(packed: bytes) -> None:
    framing, _ = run([answer(b"Content-Encoding: gzip\r\nContent-Length: %d" % len(packed), packed)])
    assert framing.complete
    assert not framing.whole
    with pytest.raises(Truncated):
        framing.finish()


@pytest.mark.parametrize("packed", [b"not packed", PACKED[:10] + b"\xff" * 20, PACKED[:-8] + b"\0" * 8])
def test_a_packed_body_that_is_none_is_refused(packed: bytes) -> None:
    with pytest.raises(BadUpstreamResponse, match="unpacked"):
        run([answer(b"Content-Encoding: gzip\r\nContent-Length: %d" % len(packed), packed)])


def test_a_bomb_is_refused_long_before_it_is_unpacked() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(bytes(64 * 1024 * 1024)) + packer.flush()
    framing = Framing()
    framing.feed(answer(b"Content-Encoding: gzip\r\nContent-Length: %d" % len(packed)))
    out = 0
    with pytest.raises(BadUpstreamResponse, match="too many bytes"):
        for at in range(0, len(packed), 100):
            out += len(framing.feed(packed[at : at + 100]))
    assert out < 4 * FREE_OUTPUT


CONTENTS = st.sampled_from([b"x", b"\r\n", b"1\r\nx\r\n", b"0\r\n\r\n", b"a" * 300]) | st.binary(min_size=1)


@given(st.lists(CONTENTS, min_size=1, max_size=6), st.data())
def test_the_next_bytes_are_known_to_begin_a_chunk(contents: list[bytes], data: st.DataObject) -> None:
    head, end = answer(b"Transfer-Encoding: chunked"), b"0\r\nTrailer: x\r\n\r\n"
    chunks = [chunked(content, data) for content in contents]
    whole = head + b"".join(chunks) + end
    bounds = {len(head) + sum(map(len, chunks[:count])) for count in range(1, len(chunks) + 1)}
    cuts = data.draw(st.sets(st.integers(1, len(whole) - 1) | st.sampled_from(sorted(bounds))))
    framing, body, place = Framing(), b"", 0
    for cut in (*sorted(cuts), len(whole)):
        piece = whole[place:cut]
        if framing.aligned and (start := start_of(piece)):
            body += piece[start:-2]
        else:
            body += framing.feed(piece)
        place = cut
        # A chunk's end that is cut in two is not looked for.
        assert framing.aligned == (cut in bounds and piece.endswith(b"\r\n"))
    assert body == b"".join(contents)
    assert framing.reusable


def chunked(content: bytes, data: st.DataObject) -> bytes:
    form = data.draw(st.sampled_from([b"%x\r\n", b"%X\r\n", b"0%x\r\n", b"%x;a=b\r\n"]))
    return form % len(content) + content + b"\r\n"


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"1\r\nx\r\n", 3),
        (b"1f\r\n" + b"x" * 31 + b"\r\n", 4),
        (b"4\r\n\r\n\r\n\r\n", 3),
        (b"1F\r\n" + b"x" * 31 + b"\r\n", 0),
        (b"01\r\nx\r\n", 0),
        (b"+1\r\nx\r\n", 0),
        (b"1;a=b\r\nx\r\n", 0),
        (b"0\r\n\r\n", 0),
        (b"1\r\nx\r\n1\r\ny\r\n", 0),
        (b"1\r\nx\n\n", 0),
        (b"2\r\nx\r\n", 0),
        (b"\r\n\r\n", 0),
        (b"\r\n", 0),
        (b"1", 0),
        (b"", 0),
    ],
)
def test_one_whole_chunk_is_told_from_everything_else(data: bytes, start: int) -> None:
    assert start_of(data) == start


def test_a_chunk_of_a_packed_body_is_left_to_whoever_unpacks_it() -> None:
    framing = Framing()
    framing.feed(answer(b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip"))
    framing.feed(b"%x\r\n%b\r\n" % (len(PACKED), PACKED))
    assert not framing.aligned


def test_small_pieces_cost_linear_work() -> None:
    data = answer(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
    began = time.perf_counter()
    _, body = run(singly(data))
    assert len(body) == 20_000
    assert time.perf_counter() - began < 3


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    framing = Framing()
    try:
        framing.feed(data)
        framing.finish()
    except UpstreamError:
        return
    assert framing.status
