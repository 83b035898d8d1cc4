"""gateway.envelope: what is edited changes, and not a byte more; what can be read in two ways is refused."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.envelope import Envelope, open_envelope
from gateway.errors import InvalidRequest

SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
VALUE = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
NAME = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda name: name not in ("model", "stream"))
SPACE = st.text(" \t\r\n", max_size=3)


@st.composite
def key(draw: st.DrawFn, name: str) -> str:
    """A key in one of the ways that JSON allows to write it."""
    if draw(st.booleans()):
        return json.dumps(name, ensure_ascii=draw(st.booleans()))
    escape = draw(st.integers(0, max(len(name) - 1, 0)))
    units = [
        "".join(f"\\u{unit:04x}" for unit in memoryview(char.encode("utf-16-le")).cast("H"))
        if index == escape
        else json.dumps(char)[1:-1]
        for index, char in enumerate(name)
    ]
    return '"' + "".join(units) + '"'


@st.composite
def texts(draw: st.DrawFn) -> tuple[dict[str, Any], list[tuple[str, str, str]], str, str]:
    """Values, and the members as they are written: name, what stands before its value, the value's text."""
    values = draw(st.dictionaries(NAME, VALUE, max_size=5))
    values = {**values, "model": draw(st.text(st.characters(codec="utf-8"), min_size=1))}
    names = draw(st.permutations(list(values)))
    members = []
    for name in names:
        before = f"{draw(SPACE)}{draw(key(name))}{draw(SPACE)}:{draw(SPACE)}"
        style = {"separators": (",", ":")} if draw(st.booleans()) else {"indent": 1}
        members.append((name, before, json.dumps(values[name], ensure_ascii=draw(st.booleans()), **style)))
    return values, members, draw(SPACE), draw(SPACE)


def written(members: list[tuple[str, str, str]], head: str, tail: str, changes: dict[str, Any]) -> bytes:
    parts = [
        before + (orjson.dumps(changes[name]).decode() if name in changes else value) + tail
        for name, before, value in members
    ]
    return (head + "{" + ",".join(parts) + "}" + tail).encode()


@given(texts(), VALUE)
def test_a_replaced_value_leaves_every_other_byte(text: Any, value: Any) -> None:
    values, members, head, tail = text
    raw = written(members, head, tail, {})
    chat = open_envelope(raw)
    assert chat.edited({}) is raw
    for name in values:
        assert chat.edited({name: value}) == written(members, head, tail, {name: value})
    assert chat.edited(dict.fromkeys(values, value)) == written(members, head, tail, dict.fromkeys(values, value))


@given(texts(), st.data())
def test_taking_out_and_adding_keys_gives_the_object_that_was_meant(text: Any, data: st.DataObject) -> None:
    values, members, head, tail = text
    chat = open_envelope(written(members, head, tail, {}))
    drop = data.draw(st.lists(st.sampled_from(list(values))))
    changes = data.draw(st.dictionaries(NAME | st.sampled_from(list(values)), VALUE, max_size=3))
    meant = {**values, **changes}
    for name in drop:
        meant.pop(name, None)
    assert orjson.loads(chat.edited(changes, drop)) == meant


@given(texts())
def test_each_value_is_read_as_a_whole_parse_reads_it(text: Any) -> None:
    values, members, head, tail = text
    raw = written(members, head, tail, {})
    chat = open_envelope(raw)
    parsed = orjson.loads(raw)
    assert {name: chat.get(name) for name in values} == parsed == chat.parsed()
    assert list(chat.names()) == [name for name, _, _ in members]


@given(texts(), st.data())
def test_a_key_that_stands_twice_is_refused_however_it_is_written(text: Any, data: st.DataObject) -> None:
    _, members, head, tail = text
    name, _, value = data.draw(st.sampled_from(members))
    again = data.draw(key(name))
    other = data.draw(st.sampled_from([value, "1", '"x"', '{"a":1}']))
    at = data.draw(st.integers(0, len(members)))
    doubled = [*members[:at], (name, f"{again}:", other), *members[at:]]
    with pytest.raises(InvalidRequest):
        open_envelope(written(doubled, head, tail, {}))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","model":"a"}',
        b'{"model":"a", "model":"b"}',
        b'{"model":"a","x":1,"model":"b"}',
        b'{"x":1,"x":1,"model":"a"}',
        b'{"model":"a","\\u006dodel":"b"}',
        b'{"\\u006dodel":"a","model":"b"}',
        b'{"\\u006Dodel":"a","model":"a"}',
        b'{"model":"a","m\\u006fdel" : "a"}',
        '{"model":"a","\u00e9":1,"\\u00e9":2}'.encode(),
        b'{"model":"a","\\ud83d\\ude00":1,"\\uD83D\\uDE00":2}',
        b'{"model":"a","":1,"":2}',
        b'{"model":"a","a\\"b":1,"a\\u0022b":2}',
    ],
)
def test_duplicate_keys_are_told_as_such(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the same key twice") as caught:
        open_envelope(raw)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"null",
        b"[]",
        b'"x"',
        b'[{"model":"a"}]',
        b'{"model":"a"',
        b'{"model":"a",}',
        b'{"model":"a"}}',
        b'{"model":"a"} x',
        b'{"model":"a"}{"model":"b"}',
        b"{'model':'a'}",
        b'{model:"a"}',
        b'{"model":"a","x":NaN}',
        b'{"model":"a","x":Infinity}',
        b'{"model":"a","x":-Infinity}',
        b'{"model":"a","x":[NaN]}',
        b'{"model":"a","seed":1e999}',
        b'{"model":"a","n":-1e999}',
        b'{"model":"a","x":01}',
        b'{"model":"a","x":+1}',
        b'{"model":"a","x":1.}',
        b'{"model":"a","x":0x1}',
        b'{"model":"a","x":tru}',
        b'{"model":"a","x":"\n"}',
        b'{"model":"a","x":"\\x"}',
        b'{"model":"a","x":"\\ud800"',
        b'{"model":"a" /* c */}',
        b'\xef\xbb\xbf{"model":"a"}',
        b'{"model":"a","x":"\xff"}',
        b'{"model":"a","x":"\xc0\xaf"}',
        b'{"model":"a","x":"\xed\xa0\x80"}',
        b'{"model":"a","\xff":1}',
        b'{"model":"a\x00"}',
        '{"model":"a"}'.encode("utf-16"),
        b'{"model":"a","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model":"a","x":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_001,
    ],
    ids=lambda raw: raw[:30],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_envelope(raw)
    assert caught.value.code == "invalid_json"
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"{}", "model"),
        (b'{"messages":[]}', "model"),
        (b'{"model":null}', "model"),
        (b'{"model":1}', "model"),
        (b'{"model":["a"]}', "model"),
        (b'{"model":""}', "model"),
        (b'{"model": "" }', "model"),
        (b'{"model":"a","stream":1}', "stream"),
        (b'{"model":"a","stream":"true"}', "stream"),
        (b'{"model":"a","temperature":1e400}', "temperature"),
    ],
)
def test_a_wrong_value_is_named(raw: bytes, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_envelope(raw)
    assert caught.value.param == param


@pytest.mark.parametrize(("text", "streams"), [("true", True), ("false", False), ("null", False)])
def test_stream_is_a_boolean_or_null(text: str, streams: bool) -> None:
    assert open_envelope(b'{"model":"m","stream":%b}' % text.encode()).stream is streams


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        ('{"include_usage":true}', True),
        ('{"include_usage":false}', False),
        ("{}", False),
        ("null", False),
        ("1", False),
    ],
)
def test_usage_is_wanted_only_when_it_was_asked_for(options: str, wants: bool) -> None:
    chat = open_envelope(b'{"model":"m","stream":true,"stream_options":%b}' % options.encode())
    assert chat.wants_usage is wants
    assert not open_envelope(b'{"model":"m"}').wants_usage


def test_big_numbers_that_a_double_can_hold_stay_as_they_are_written() -> None:
    raw = b'{"model":"m","seed":123456789012345678901234567890,"x":1.10,"y":1E2,"z":-0}'
    assert open_envelope(raw).edited({"model": "o"}) == raw.replace(b'"m"', b'"o"')


@pytest.mark.parametrize("value", ["1e999", "[-1e999]", '{"a":1e999}'])
def test_a_number_that_overflows_travels_on_unread_and_is_refused_when_it_is_read(value: str) -> None:
    raw = f'{{"model":"m","metadata":{value}}}'.encode()
    chat = open_envelope(raw)
    assert chat.edited({"model": "o"}) == raw.replace(b'"m"', b'"o"')
    for read in (lambda: chat.get("metadata"), chat.parsed):
        with pytest.raises(InvalidRequest) as caught:
            read()
        assert caught.value.code == "invalid_json"


def test_a_large_request_is_sent_on_the_same_but_for_the_model() -> None:
    messages = [{"role": "user", "content": f'line {number} \u00e9\u4e16 \\ " \n' * 20} for number in range(40)]
    raw = json.dumps({"model": "alias", "messages": messages, "temperature": 0.7}, indent=2).encode()
    assert len(raw) > 20_000
    sent = open_envelope(raw).edited({"model": "real-model"})
    assert sent == raw.replace(b'"alias"', b'"real-model"', 1)


def test_keys_are_added_at_the_end_and_taken_out_wherever_they_stand() -> None:
    chat = open_envelope(b' { "a" : 1 , "model" : "m" , "b" : [ 2 ] } ')
    assert chat.edited({"c": 3}) == b'{"a" : 1,"model" : "m","b" : [ 2 ],"c":3}'
    assert chat.edited({"model": "n"}, ["a"]) == b'{"model" : "n","b" : [ 2 ]}'
    assert chat.edited({"b": 0, "c": 1}, ["b", "c", "z"]) == b'{"a" : 1,"model" : "m"}'
    assert chat.edited({}, ["a", "b", "model"]) == b"{}"


def test_values_set_over_the_clients_count_as_its_own() -> None:
    chat = open_envelope(b'{"model":"m","temperature":1,"stream":false}', {"x": "y"})
    over = chat.with_values({"temperature": 0, "seed": 7, "stream": True})
    assert (over.get("temperature"), over.get("seed"), over.stream, over.model) == (0, 7, True, "m")
    assert over.headers == {"x": "y"}
    assert list(over.names()) == ["model", "temperature", "stream", "seed"]
    assert over.parsed() == {"model": "m", "temperature": 0, "stream": True, "seed": 7}
    assert orjson.loads(over.edited({"model": "n"})) == {"model": "n", "temperature": 0, "stream": True, "seed": 7}
    assert over.edited({"temperature": 2}, ["seed"]) == b'{"model":"m","temperature":2,"stream":true}'


def test_values_set_twice_add_up_and_the_first_request_stays_as_it_was() -> None:
    chat = open_envelope(b'{"model":"m"}')
    twice = chat.with_values({"a": 1, "b": 1}).with_values({"b": 2})
    assert orjson.loads(twice.edited({})) == {"model": "m", "a": 1, "b": 2}
    assert chat.edited({}) == b'{"model":"m"}'
    assert chat.get("a") is None


def test_null_counts_as_absent_but_its_name_is_there() -> None:
    chat = open_envelope(b'{"model":"m","seed":null}')
    assert chat.get("seed") is None
    assert chat.get("nothing") is None
    assert "seed" in chat.names()


def test_parsed_is_made_once() -> None:
    chat = open_envelope(b'{"model":"m","messages":[]}')
    assert chat.parsed() is chat.parsed()
    assert chat.size == 27
    assert isinstance(chat, Envelope)


@given(st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: b'{"model":"m",' + tail))
def test_any_bytes_are_opened_or_refused(raw: bytes) -> None:
    try:
        chat = open_envelope(raw)
    except InvalidRequest:
        return
    assert orjson.loads(chat.edited({"model": "n"}))["model"] == "n"
