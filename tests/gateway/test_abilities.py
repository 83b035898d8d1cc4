"""gateway.abilities: rows of patterns merged for one model family."""

from __future__ import annotations

from gateway.abilities import abilities

ROWS = [
    {"match": "*", "tools": True, "images": False},
    {"match": ["claude-*", "gpt-4*"], "images": True},
    {"match": "claude-3-haiku*", "thinking": None},
]


def test_later_rows_go_over_earlier_ones() -> None:
    assert abilities(ROWS, "claude-3-haiku-1") == {"tools": True, "images": True, "thinking": None}


def test_any_pattern_of_a_row_is_enough() -> None:
    assert abilities(ROWS, "gpt-4o") == abilities(ROWS, "claude-opus") == {"tools": True, "images": True}


def test_a_family_without_a_row_can_do_nothing_special() -> None:
    assert abilities(ROWS[1:], "grok") == {}


def test_patterns_see_upper_and_lower_case() -> None:
    assert abilities(ROWS, "Claude-opus") == {"tools": True, "images": False}
