"""The tools that turn a hub conversation into a stricter provider's."""

from __future__ import annotations

import re

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.conversation import (
    CARRIER,
    MAX_CARRIED,
    NO_RESULT,
    Media,
    NameRule,
    ToolNames,
    carry,
    content_parts,
    content_text,
    fitting_id,
    modern,
    pair_calls,
    parse_data_url,
    part_text,
    read_call,
    read_media,
    tool_arguments,
    tool_names,
    uncarry,
)
from gateway.errors import InvalidRequest

IDS = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def fit(value: str) -> str:
    return fitting_id(value, IDS)


def call(name: str, tool: str = "f", arguments: object = "{}") -> dict:
    return {"id": name, "type": "function", "function": {"name": tool, "arguments": arguments}}


def calls(*names: str) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": [call(name) for name in names]}


def result(name: str, text: str = "ok") -> dict:
    return {"role": "tool", "tool_call_id": name, "content": text}


USER = {"role": "user", "content": "go"}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, []),
        ("", []),
        ("hi", [{"type": "text", "text": "hi"}]),
        ([], []),
        (["a", {"type": "text", "text": "b"}], [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    ],
)
def test_content_becomes_parts(content, parts):
    assert content_parts(content) == parts


@pytest.mark.parametrize("content", [7, {"type": "text"}, [None], [3]])
def test_content_of_another_type_is_the_clients_mistake(content):
    with pytest.raises(InvalidRequest) as caught:
        content_parts(content)
    assert caught.value.param == "messages"


def test_text_is_joined_and_a_refusal_is_text():
    assert content_text(["a", {"type": "refusal", "refusal": "no"}, {"type": "image_url", "image_url": "x"}]) == "ano"
    assert part_text({"type": "text", "text": 3}) is None


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        (None, {}),
        ("", {}),
        (" \n", {}),
        ({}, {}),
        ({"a": 1}, {"a": 1}),
        ('{"a":1}', {"a": 1}),
        ("null", {"_raw": "null"}),
        ("[1]", {"_raw": "[1]"}),
        ("{not json", {"_raw": "{not json"}),
        ("}{", {"_raw": "}{"}),
        ('{}{"a":"}{"}', {"a": "}{"}),
        ("{} {}", {}),
        ('{"a":"\\"}"}{}', {"a": '"}'}),
        ('{"a":1} tail', {"_raw": '{"a":1} tail'}),
        ([1], {"_raw": [1]}),
        ("[" * 5000, {"_raw": "[" * 5000}),
    ],
)
def test_arguments_are_always_an_object(value, arguments):
    assert tool_arguments(value) == arguments


def test_concatenated_arguments_are_kept_whole_peer_bug_4():
    assert tool_arguments('{"a":1}{"b":2}') == {"_raw": '{"a":1}{"b":2}'}


@given(st.text(alphabet='{}[]"\\a1:, ', max_size=30))
def test_no_text_of_arguments_fails(text):
    assert isinstance(tool_arguments(text), dict)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("data:image/png;base64,iVBORw0=", ("image/png", "iVBORw0=")),
        ("DATA:image/JPG;base64,aa\nbb", ("image/jpeg", "aabb")),
        ("data:text/plain;charset=utf-8;base64,aGk=", ("text/plain", "aGk=")),
        ("data:,hi%20you", ("text/plain", "aGkgeW91")),
        ("data:image/png;base64,a%2Bb%3D", ("image/png", "a+b=")),
        ("https://a.example/data:,", None),
        ("", None),
    ],
)
def test_a_data_url_gives_type_and_base64(url, found):
    assert parse_data_url(url) == found


def test_a_data_url_without_comma_is_refused():
    with pytest.raises(InvalidRequest):
        parse_data_url("data:image/png;base64")


@pytest.mark.parametrize(
    ("part", "media"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,aa"}}, Media("image", "image/png", "aa")),
        ({"type": "image_url", "image_url": "https://a.example/x"}, Media("image", url="https://a.example/x")),
        ({"type": "video_url", "video_url": {"url": "https://a.example/v"}}, Media("video", url="https://a.example/v")),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk=", "filename": "a.txt"}},
            Media("file", "text/plain", "aGk=", name="a.txt"),
        ),
        ({"type": "file", "file": {"file_data": "JVBE"}}, Media("file", "application/pdf", "JVBE")),
        ({"type": "file", "file": {"file_id": "file_1"}}, Media("file", file_id="file_1")),
        ({"type": "input_audio", "input_audio": {"data": "aa", "format": "mp3"}}, Media("audio", "audio/mp3", "aa")),
        ({"type": "text", "text": "x"}, None),
    ],
)
def test_media_parts_are_read(part, media):
    assert read_media(part) == media


def test_an_image_without_url_is_refused():
    with pytest.raises(InvalidRequest):
        read_media({"type": "image_url", "image_url": {}})


def test_ids_that_fit_stay_and_others_become_the_same_id_each_time():
    assert fit("call_1") == "call_1"
    assert fit("a b") == fit("a b") != fit("a.b")
    assert IDS.fullmatch(fit(""))


@given(st.lists(st.text(max_size=12), max_size=8))
def test_tool_names_are_reversible(names):
    rule = NameRule(limit=8, not_first=re.compile("[0-9-]"))
    book = ToolNames(names, rule)
    natives = [book.native(name) for name in names]
    assert [book.client(native) for native in natives] == names
    assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_-]{0,7}", native) for native in natives)


def test_a_clash_of_names_gets_a_suffix_and_a_fitting_name_keeps_itself():
    book = ToolNames(["a.b", "a b", "a_b"], NameRule())
    assert [book.native(name) for name in ("a.b", "a b", "a_b")] == ["a_b_2", "a_b_3", "a_b"]
    assert book.client("never_seen") == "never_seen"


def test_tool_names_come_from_definitions_and_history():
    request = {"tools": [call("x", "f") | {"function": {"name": "f"}}], "messages": [calls("a"), USER]}
    assert list(tool_names(request)) == ["f", "f"]


def test_a_custom_call_has_its_input_as_argument():
    assert read_call({"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}) == (
        "c",
        "sh",
        {"input": "ls"},
    )


@pytest.mark.parametrize("item", [None, "x", {}, {"function": "f"}])
def test_a_malformed_call_is_refused(item):
    with pytest.raises(InvalidRequest):
        read_call(item)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    max_leaves=8,
)


@given(st.text(alphabet="abcXYZ019_-", max_size=30), st.dictionaries(st.text(max_size=9), JSON, max_size=4))
@settings(max_examples=50, deadline=None)
def test_what_an_id_carries_comes_back(name, payload):
    assert uncarry(carry(name, payload)) == (name, payload)


def test_a_payload_that_is_too_long_is_not_carried():
    assert carry("c" * MAX_CARRIED, {"x": 1}) == "c" * MAX_CARRIED


@pytest.mark.parametrize("packed", ["", "!!!", "AAAA", "é"])
def test_a_damaged_payload_counts_as_nothing(packed):
    assert uncarry(f"call_1{CARRIER}{packed}") == ("call_1", None)


def test_a_cut_payload_counts_as_nothing():
    whole = carry("call_1", {"a": "b" * 50})
    assert uncarry(whole[:-8]) == ("call_1", None)


def test_a_bomb_is_not_unpacked():
    whole = carry("call_1", {"a": "b" * 3_000_000})
    assert CARRIER in whole
    assert uncarry(whole) == ("call_1", None)


def test_results_stand_behind_their_calls_in_the_order_of_the_calls():
    found = pair_calls([USER, calls("a", "b"), result("b", "2"), USER, result("a", "1")], fit)
    assert [m.get("tool_call_id") for m in found] == [None, None, "a", "b", None]
    assert [m["content"] for m in found[2:4]] == ["1", "2"]


def test_a_missing_result_is_an_error_result():
    found = pair_calls([calls("a"), USER], fit)
    assert found[1] == {"role": "tool", "tool_call_id": "a", "content": NO_RESULT, "is_error": True}


def test_a_result_without_call_becomes_a_user_message():
    (message,) = pair_calls([result("zz", "lost")], fit)
    assert message["role"] == "user"
    assert content_text(message["content"]).endswith("lost")


def test_of_two_results_the_last_counts():
    found = pair_calls([calls("a"), result("a", "1"), result("a", "2")], fit)
    assert [m["content"] for m in found[1:]] == ["2"]


def test_an_id_used_twice_is_made_unique_with_its_result():
    found = pair_calls([calls("a"), result("a", "1"), calls("a"), result("a", "2")], fit)
    assert [m["tool_calls"][0]["id"] for m in found if m["role"] == "assistant"] == ["a", "a_2"]
    assert [(m["tool_call_id"], m["content"]) for m in found if m["role"] == "tool"] == [("a", "1"), ("a_2", "2")]


def test_equal_ids_in_one_message_take_results_in_order():
    found = pair_calls([calls("a", "a"), result("a", "1"), result("a", "2")], fit)
    assert [(m["tool_call_id"], m["content"]) for m in found[1:]] == [("a", "1"), ("a_2", "2")]


def test_odd_ids_are_rewritten_for_call_and_result_alike():
    found = pair_calls([calls("ä b"), result("ä b")], fit)
    assert found[0]["tool_calls"][0]["id"] == found[1]["tool_call_id"] == fit("ä b")


def test_a_carried_payload_stands_on_the_call_and_leaves_the_ids_plain():
    name = carry("a", {"t": 1})
    found = pair_calls([calls(name), result(name)], fit)
    assert found[0]["tool_calls"][0]["carried"] == {"t": 1}
    assert found[0]["tool_calls"][0]["id"] == found[1]["tool_call_id"] == "a"


@pytest.mark.parametrize("messages", [["x"], [{"role": "assistant", "tool_calls": {"a": 1}}]])
def test_malformed_messages_are_refused(messages):
    with pytest.raises(InvalidRequest):
        pair_calls(messages, fit)


TURN = st.lists(st.sampled_from("ab cé"), min_size=1, max_size=3)


@given(st.lists(TURN | st.none(), max_size=6), st.lists(TURN | st.none(), max_size=3))
def test_appending_turns_keeps_the_earlier_messages(before, after):
    def spoken(turns):
        for turn in turns:
            if turn is None:
                yield USER
            else:
                yield calls(*turn)
                yield from map(result, turn)

    first = list(spoken(before))
    short = pair_calls(first, fit)
    assert pair_calls([*first, *spoken(after)], fit)[: len(short)] == short


@given(
    st.lists(st.sampled_from([USER, calls("a", "b"), calls("c"), result("a"), result("b"), result("c"), result("d")]))
)
def test_every_call_has_exactly_one_result_right_behind_it(messages):
    snapshot = orjson.dumps(messages)
    found = pair_calls(messages, fit)
    assert orjson.dumps(messages) == snapshot
    ids = [c["id"] for m in found for c in m.get("tool_calls", ())]
    assert len(ids) == len(set(ids))
    for place, message in enumerate(found):
        if wanted := [c["id"] for c in message.get("tool_calls", ())]:
            behind = found[place + 1 : place + 1 + len(wanted)]
            assert [m.get("tool_call_id") for m in behind] == wanted
    assert sum(m["role"] == "tool" for m in found) == len(ids)


def test_a_request_without_functions_is_the_same_object():
    request = {"messages": [USER], "tools": []}
    assert modern(request) is request


def test_functions_become_tools():
    request = {
        "functions": [{"name": "f"}],
        "function_call": {"name": "f"},
        "messages": [
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "5"},
        ],
    }
    assert modern(request) == {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_fn_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "call_fn_1", "content": "5"},
        ],
    }


def test_a_function_call_mode_becomes_a_tool_choice_and_an_explicit_one_wins():
    assert modern({"function_call": "none"}) == {"tool_choice": "none"}
    assert modern({"function_call": "none", "tool_choice": "auto"}) == {"tool_choice": "auto"}


def test_functions_that_are_no_list_are_refused():
    with pytest.raises(InvalidRequest) as caught:
        modern({"functions": {"name": "f"}})
    assert caught.value.param == "functions"


def test_tool_names_of_malformed_lists_are_none():
    assert list(tool_names({"tools": 3, "messages": [{"tool_calls": True}, "x"]})) == []


def test_messages_that_are_no_list_are_refused():
    with pytest.raises(InvalidRequest):
        modern({"messages": "hi"})
