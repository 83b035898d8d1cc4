"""gateway.fields: every parameter goes through its row, and none is lost in silence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract import Target
from gateway.errors import UnsupportedParameter
from gateway.fields import (
    DETAIL,
    MARKS,
    MARKS_TTL,
    SPEAKER,
    STRICT_TOOLS,
    Applied,
    Unfit,
    apply,
    as_list,
    clamp,
    convert,
    drop,
    elsewhere,
    emulate,
    forward,
    missing,
    refuse,
    reject,
    rename,
    tell_losses,
)
from gateway.hub import NEUTRAL, Json

TARGET = Target("p", "m", "https://p.test")
STRICT = Target("p", "m", "https://p.test", unsupported="reject")


def whole(value: Any) -> Any:
    if value < 0:
        raise Unfit("is negative")
    if value > 100:
        raise Unfit
    return int(value)


TABLE = {
    "temperature": forward(),
    "max_tokens": rename("config.limits.max"),
    "top_k": convert("config.topK", whole),
    "messages": elsewhere("messages are translated"),
    "n": emulate("several calls"),
    "seed": drop("has no seed here"),
    "logprobs": reject("would change the answer"),
}


def test_each_decision_does_what_it_says() -> None:
    request = {"temperature": 1, "max_tokens": 5, "top_k": 3.0, "messages": [1], "n": 2, "seed": 7, "logprobs": False}
    applied = apply(TABLE, request, TARGET)
    assert applied.values == {"temperature": 1, "config": {"limits": {"max": 5}, "topK": 3}}
    assert applied.dropped == ["seed"]
    assert applied.translated == []


def test_a_converted_value_is_told_when_it_is_another() -> None:
    assert apply(TABLE, {"top_k": 3.5}, TARGET).translated == ["top_k"]


@pytest.mark.parametrize(("value", "why"), [(-1, "is negative"), (101, "has a value that this provider cannot take")])
def test_a_value_without_an_equivalent_is_dropped_or_refused_by_policy(value: int, why: str) -> None:
    applied = apply(TABLE, {"top_k": value}, TARGET)
    assert (applied.values, applied.dropped) == ({}, ["top_k"])
    with pytest.raises(UnsupportedParameter, match=why) as caught:
        apply(TABLE, {"top_k": value}, STRICT)
    assert caught.value.param == "top_k"


def test_none_counts_as_absent() -> None:
    applied = apply(TABLE, dict.fromkeys([*TABLE, "unknown"]), STRICT)
    assert (applied.values, applied.dropped) == ({}, [])


def test_an_unknown_name_is_dropped_and_named_or_refused() -> None:
    assert apply(TABLE, {"invented": 1}, TARGET).dropped == ["invented"]
    with pytest.raises(UnsupportedParameter, match="'invented' is unknown"):
        apply(TABLE, {"invented": 1}, STRICT)


def test_a_dropped_parameter_is_refused_where_the_deployment_says_so() -> None:
    with pytest.raises(UnsupportedParameter, match="has no seed here"):
        apply(TABLE, {"seed": 1}, STRICT)


@pytest.mark.parametrize("policy", ["drop", "reject"])
def test_what_an_attempt_must_leave_out_is_left_out_and_named(policy: Any) -> None:
    target = Target("p", "m", "u", unsupported=policy, without=frozenset({"temperature"}))
    applied = apply(TABLE, {"temperature": 1, "max_tokens": 2}, target)
    assert (applied.values, applied.dropped) == ({"config": {"limits": {"max": 2}}}, ["temperature"])


def test_a_rejected_parameter_is_refused_under_either_policy() -> None:
    for target in (TARGET, STRICT):
        with pytest.raises(UnsupportedParameter, match="would change the answer"):
            apply(TABLE, {"logprobs": True}, target)


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_value_that_means_nothing_special_is_never_refused(name: str) -> None:
    refuse(name, NEUTRAL[name], reject("no"))
    with pytest.raises(UnsupportedParameter):
        refuse(name, "something else", reject("no"))


def test_a_name_is_told_once() -> None:
    applied = Applied(TARGET)
    for _ in range(2):
        applied.drop("a")
        applied.translate("b")
    assert (applied.dropped, applied.translated) == (["a"], ["b"])


def test_the_request_is_not_changed() -> None:
    request = {"max_tokens": 5, "top_k": 3.5, "seed": 1}
    apply(TABLE, request, TARGET)
    assert request == {"max_tokens": 5, "top_k": 3.5, "seed": 1}


def test_missing_names_what_a_table_says_nothing_about() -> None:
    assert missing(TABLE, ["seed", "stop", "user"]) == {"stop", "user"}
    assert missing(TABLE, TABLE) == set()


@given(st.floats(allow_nan=False) | st.integers())
def test_a_clamped_number_is_within_its_bounds(value: float) -> None:
    assert 0 <= clamp(0, 1)(value) <= 1


@pytest.mark.parametrize("value", [True, "1", None, [1]])
def test_only_numbers_are_clamped(value: Any) -> None:
    with pytest.raises(Unfit, match="is not a number"):
        clamp(0, 1)(value)


def test_one_becomes_a_list_and_a_list_stays_one() -> None:
    assert as_list("a") == ["a"]
    assert as_list(("a", "b")) == ["a", "b"]
    stops = ["a"]
    assert as_list(stops) == stops
    assert as_list(stops) is not stops


EVERYTHING = (SPEAKER, DETAIL, MARKS, MARKS_TTL, STRICT_TOOLS)
LASTING = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


@pytest.mark.parametrize(
    ("request_", "lost"),
    [
        ({"messages": [{"role": "user", "name": "bob", "content": "q"}]}, {SPEAKER}),
        ({"messages": [{"role": "tool", "name": "look", "content": "r"}]}, set()),
        ({"messages": [{"role": "user", "content": [{"image_url": {"detail": "low"}}]}]}, {DETAIL}),
        ({"messages": [{"role": "user", "content": [{"image_url": {"detail": "auto"}}]}]}, set()),
        ({"messages": [{"role": "user", "content": [{"cache_control": {"type": "ephemeral"}}]}]}, {MARKS}),
        ({"messages": [{"role": "system", "content": "s", **LASTING}]}, {MARKS, MARKS_TTL}),
        ({"messages": [{"role": "assistant", "tool_calls": [LASTING]}]}, {MARKS, MARKS_TTL}),
        ({"tools": [LASTING]}, {MARKS, MARKS_TTL}),
        ({"tools": [{"function": {"strict": True, **LASTING}}]}, {MARKS, MARKS_TTL, STRICT_TOOLS}),
        ({"tools": [{"function": {"strict": False}}]}, set()),
        ({"messages": "x", "tools": {"a": 1}}, set()),
        ({"messages": ["x", {"content": ["y"]}], "tools": [1]}, set()),
    ],
)
def test_what_stands_inside_messages_and_tools_is_not_lost_in_silence(request_: Json, lost: set[str]) -> None:
    applied = Applied(TARGET)
    tell_losses(request_, applied, EVERYTHING)
    assert set(applied.dropped) == lost
    able = Applied(TARGET)
    tell_losses(request_, able, ())
    assert able.dropped == []
