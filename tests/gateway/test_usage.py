"""gateway.usage: OpenAI's usage object to the gateway's own counts and back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import Usage
from gateway.usage import read_usage, write_usage


def test_all_counts_are_read() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert read_usage(usage) == read_usage(orjson.dumps(usage)) == Usage(10, 7, 4, 2, 3)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "x",
        5,
        {"total_tokens": 5},
        {"prompt_tokens": None},
        {"prompt_tokens": "x"},
        {"prompt_tokens": True},
        b"",
        b"null",
        b"5",
        b"{",
    ],
)
def test_no_count_is_no_usage(usage: Any) -> None:
    assert read_usage(usage) is None


def test_reasoning_outside_the_completion_is_added_when_the_total_has_it() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert read_usage(usage) == Usage(10, 25, reasoning=20)
    assert read_usage({**usage, "total_tokens": 15}) == Usage(10, 5, reasoning=20)
    assert read_usage({**usage, "prompt_tokens": None, "total_tokens": 25}) == Usage(None, 25, reasoning=20)


def test_cached_tokens_beside_the_details_count_and_never_exceed_the_prompt() -> None:
    assert read_usage({"prompt_tokens": 5, "cached_tokens": 3}) == Usage(5, None, 3)
    assert read_usage({"prompt_tokens": 5, "cached_tokens": 9}) == Usage(9, None, 9)
    assert read_usage({"completion_tokens": 5, "cached_tokens": 9}) == Usage(None, 5, 9)


@pytest.mark.parametrize("details", [None, [], "x", 5, {"cached_tokens": "x"}])
def test_odd_details_are_passed_over(details: Any) -> None:
    usage = {"prompt_tokens": 1.0, "prompt_tokens_details": details, "completion_tokens_details": details}
    assert read_usage(usage) == read_usage(orjson.dumps(usage)) == Usage(1)


def test_of_an_odd_usage_object_every_count_that_is_one_is_read() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": {"x": 1},
        "prompt_tokens_details": {"cached_tokens": 2.0, "cache_write_tokens": "x"},
        "completion_tokens_details": None,
    }
    assert read_usage(usage) == read_usage(orjson.dumps(usage)) == Usage(5, None, 2)


def test_what_nobody_reported_is_not_written() -> None:
    assert write_usage(Usage(3, 2)) == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert write_usage(Usage()) == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


COUNT = st.none() | st.integers(0, 10**9)


@given(st.integers(0, 10**9), st.integers(0, 10**9), COUNT, COUNT, st.integers(0, 10**6) | st.none())
def test_what_is_written_is_read_the_same(
    prompt: int, completion: int, cached: int | None, cache_written: int | None, reasoning: int | None
) -> None:
    usage = Usage(max(prompt, cached or 0), completion, cached, cache_written, reasoning)
    assert read_usage(write_usage(usage)) == usage
