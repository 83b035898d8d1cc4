"""What the OpenAI-like providers share: edits of a request."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.contract import Row, Target
from gateway.errors import UnsupportedParameter
from gateway.fields import convert, drop, elsewhere, rename
from plugins.openai_like import (
    Rules,
    check,
    completions_url,
    developer_as_system,
    edited,
    efforts,
    function_tools,
    sound_model,
)
from tests.plugins.mending import TARGET, chat


@pytest.mark.parametrize("base", ["http://h/prefix/v1", "http://h/prefix/v1/"])
def test_the_path_goes_below_the_base_address_with_its_prefix(base: str) -> None:
    assert completions_url(Target("p", "m", base)) == "http://h/prefix/v1/chat/completions"


def test_usage_is_asked_for_beside_the_clients_own_stream_options() -> None:
    sent = edited(
        chat(stream=True, stream_options={"include_obfuscation": False}), TARGET, Rules.of({}), "u", ask_usage=True
    )
    assert orjson.loads(sent.body)["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert (sent.dropped, sent.translated) == ((), ())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": False},
        {"stream": True, "stream_options": 7},
    ],
)
def test_usage_is_not_asked_for_where_there_is_no_need(fields: dict[str, Any]) -> None:
    request = chat(**fields)
    assert edited(request, TARGET, Rules.of({}), "u", ask_usage=True).body == request.edited({})


def test_usage_is_not_asked_for_where_the_attempt_must_do_without() -> None:
    target = Target("p", "m", "b", without=frozenset(("stream_options",)))
    assert b"include_usage" not in edited(chat(stream=True), target, Rules.of({}), "u", ask_usage=True).body


def test_a_forwarding_table_hands_on_the_same_bytes() -> None:
    request = chat(vendor=1)
    assert edited(request, TARGET, Rules.of({}), "u", ask_usage=True).body is request.edited({})


def test_an_unknown_name_can_have_a_row_of_its_own() -> None:
    sent = edited(chat(vendor=1), TARGET, Rules.of({"vendor": drop()}), "u", ask_usage=False)
    assert sent.dropped == ("vendor",)
    assert b"vendor" not in sent.body


@pytest.mark.parametrize(
    ("known", "value", "sent"),
    [
        (["low", "medium", "high"], "max", "high"),
        (["low", "medium", "high"], "minimal", "low"),
        (["low", "medium", "high"], "none", "low"),
        (["low", "high"], "medium", "low"),
        (["none", "low"], "none", "none"),
        (["low"], 512, 512),
        (["low"], True, True),
        (["low"], "extreme", "extreme"),
    ],
)
def test_an_effort_that_does_not_exist_becomes_the_nearest_lower(known: list[str], value: Any, sent: Any) -> None:
    row = efforts(known)
    assert row.convert is not None
    assert row.convert(value) == sent


def test_a_tool_that_is_no_function_is_refused() -> None:
    rules = Rules.of({}, {"tools": function_tools(strict=True)})
    with pytest.raises(UnsupportedParameter) as refused:
        edited(chat(tools=[{"type": "custom", "custom": {"name": "x"}}]), TARGET, rules, "u", ask_usage=False)
    assert refused.value.param == "tools"


def test_cache_marks_leave_tools_and_are_named() -> None:
    rules = Rules.of({}, {"tools": function_tools(strict=True)})
    tool = {"type": "function", "function": {"name": "f", "strict": True}, "cache_control": {"type": "ephemeral"}}
    sent = edited(chat(tools=[tool]), TARGET, rules, "u", ask_usage=False)
    assert orjson.loads(sent.body)["tools"] == [{"type": "function", "function": {"name": "f", "strict": True}}]
    assert sent.dropped == ("cache_control",)


@pytest.mark.parametrize("tools", [[7], {"a": 1}, [{"type": "function"}], []])
def test_tools_of_an_odd_shape_are_the_providers_to_judge(tools: Any) -> None:
    rules = Rules.of({}, {"tools": function_tools(strict=False)})
    request = chat(tools=tools)
    assert edited(request, TARGET, rules, "u", ask_usage=False).body == request.edited({})


@pytest.mark.parametrize("model", ["a/../b", "..", "a/.", "m?x=1", "m\r\nX: 1", "", "m" * 201, "/m", "ｅvil"])
def test_a_model_name_that_could_move_an_address_is_no_model_name(model: str) -> None:
    assert not sound_model(model)


@pytest.mark.parametrize(
    "model", ["org/name-3.1", "accounts/a/models/m#accounts/a/deployments/d", "ft:gpt-4o:org::id", "a@b"]
)
def test_ordinary_model_names_are_sound(model: str) -> None:
    assert sound_model(model)
    assert check({}, model) == ()


def test_a_bad_model_name_is_a_problem_of_the_configuration() -> None:
    assert [problem.option for problem in check({}, "a/../b")] == ["model"]
    assert check({}, "*") == ()


@pytest.mark.parametrize(
    ("row", "sent", "translated"),
    [
        (rename("y"), {"y": "4"}, ()),
        (convert("y", int), {"y": 4}, ("x",)),
        (convert("y", str), {"y": "4"}, ("x",)),
        (convert("x", int), {"x": 4}, ("x",)),
        (convert("x", str), {"x": "4"}, ()),
        (elsewhere("by hand"), {"x": "4"}, ()),
    ],
)
def test_a_row_renames_converts_or_leaves_to_a_function(
    row: Row, sent: dict[str, Any], translated: tuple[str, ...]
) -> None:
    made = edited(chat(x="4"), TARGET, Rules.of({"x": row}), "u", ask_usage=False)
    assert orjson.loads(made.body) == {"model": "m", "messages": [], **sent}
    assert made.translated == translated


def test_a_new_name_that_an_attempt_must_do_without_takes_the_old_one_along() -> None:
    target = Target("p", "m", "b", without=frozenset(("y",)))
    assert edited(chat(x=4), target, Rules.of({"x": rename("y")}), "u", ask_usage=False).dropped == ("x",)


def test_a_null_under_an_unknown_name_goes_and_under_a_known_one_stays() -> None:
    rules = Rules.of({}, {"vendor": lambda edit: edit.drop("vendor"), "seed": lambda edit: edit.drop("seed")})
    made = edited(chat(vendor=None, seed=None), TARGET, rules, "u", ask_usage=False)
    assert orjson.loads(made.body) == {"model": "m", "messages": [], "seed": None}
    assert made.dropped == ()


def test_messages_that_are_no_list_are_the_providers_to_judge() -> None:
    rules = Rules.of({}, message=developer_as_system, hints=(b'"developer"',))
    request = chat(messages="developer", x="developer")
    assert edited(request, TARGET, rules, "u", ask_usage=False).body == request.edited({})
