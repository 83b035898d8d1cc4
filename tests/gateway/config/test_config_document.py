"""YAML to a tree that knows its lines."""

from __future__ import annotations

from typing import Any

import pytest
from config_samples import BASE, messages
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.document import parse, plain
from gateway.config.findings import Findings


def value(text: str) -> Any:
    found = Findings()
    node = parse(f"x: {text}\n".encode(), "g.yaml", found)
    assert node is not None, found.listed(False)
    return plain(node)["x"]


def said(data: bytes) -> list[str]:
    found = Findings()
    parse(data, "g.yaml", found)
    return [str(finding) for finding in found.listed(False)]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        *(("1", 1), ("-7", -7), ("+3", 3), ("0", 0), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("3.10", 3.1)),
        *(("true", True), ("False", False), ("null", None), ("~", None), ("", None)),
        *((word, word) for word in ("yes", "No", "on", "off", "y", "010", "0o10", "0x1f", "12:30:45", "1_000")),
        *((word, word) for word in ("2024-08-06", "2024-08-06T10:00:00Z", ".", "+", "e3", "123456789012345678901")),
        *(("'1'", "1"), ('"true"', "true"), ("[1, a]", [1, "a"]), ("{a: {b: 1}}", {"a": {"b": 1}})),
    ],
)
def test_scalars_mean_what_the_core_schema_says(text: str, meaning: object) -> None:
    assert value(text) == meaning
    assert type(value(text)) is type(meaning)


def test_infinities_are_numbers_that_every_option_refuses() -> None:
    assert value("-.inf") == float("-inf")
    assert value(".nan") != value(".nan")


def test_nodes_and_keys_know_their_place() -> None:
    node = parse(b"a:\n  b: [1,\n    {c: 2}]\n", "g.yaml", Findings())
    assert node
    inner = node.get("a", "b")
    assert inner
    assert (inner.mark.line, inner.mark.column) == (2, 6)
    assert isinstance(inner.value, list)
    assert (inner.value[1].mark_of("c").line, inner.value[1].mark_of("c").column) == (3, 6)
    assert inner.mark_of("none") == inner.mark


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "g.yaml:1:1: error: the file is empty"),
        (b"# only a comment\n", "g.yaml:1:1: error: the file is empty"),
        (b"a: 1\nb: \xff\n", "g.yaml:2:1: error: the file is not UTF-8"),
        (b"a: 1\nb: x\x07\n", "g.yaml:2:5: error: control character U+0007"),
        (b"a: 1\n1: x\n", "g.yaml:2:1: error: 1: a key must be text, and 1 is none: quote it"),
        (b"a: {true: 1}\n", "g.yaml:1:5: error: a.true: a key must be text, and True is none: quote it"),
        (b"a: {b: 1, b: {c: 2}, b: 3}\n", "g.yaml:1:11: error: a.b: written twice, first in line 1"),
        (b"[a]: 1\n", "g.yaml:1:1: error: a key must be text"),
        (b"a: 1\n...\n--- \nb: 1\n", "g.yaml:3:1: error: a second document: one file is one document"),
        (b"a: !!str 1\n", "g.yaml:1:4: error: tags are not taken: write the plain value"),
        (b"a: &x 1\n", "g.yaml:1:4: error: anchors and aliases are not taken: write the value out, or use `include`"),
    ],
)
def test_what_is_not_taken_is_said_with_its_place(data: bytes, message: str) -> None:
    assert said(data)[0] == message


@pytest.mark.parametrize(
    "data", [b"a: [1\nb: 2\n", b"a: 'x\n", b"a: b: c\n", b"*x: 1\n", b"%FOO\n---\n", b"a: @x\n", b"{"]
)
def test_broken_yaml_is_one_finding_with_a_line(data: bytes) -> None:
    (finding,) = said(data)
    assert finding.startswith("g.yaml:")
    assert "error: " in finding


@given(st.binary(max_size=200) | st.text("{}[]:,-&*!|>'\"%@` \n\tab1#?", max_size=60).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_no_text_at_all_raises(data: bytes) -> None:
    found = Findings()
    node = parse(data, "g.yaml", found)
    assert node is not None or any(finding.level == "error" for finding in found.listed(False))


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert messages(b"\xef\xbb\xbf" + BASE.encode()) == []


def test_a_merge_key_is_an_unknown_option() -> None:
    assert "unknown option '<<'" in messages(BASE + "server: {<<: {drain: 1s}}\n")[0]
