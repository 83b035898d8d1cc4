"""gateway.demo.answers: what is said depends on the request alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.demo.answers import Ask, Tool, answer, answers, interleaved, pieces, text_of, tokens

TOOLS = (Tool("f", {"type": "object", "properties": {"q": {"type": "string"}}}), Tool("g", {}), Tool("h", {}))


def ask(**options: Any) -> Ask:
    return Ask(**{"provider": "openai", "model": "m", "serial": 1, "text": "Hello there", **options})


@pytest.mark.parametrize("text", ["", " ", "a", "two  words ", "averyveryverylongword\n\n- and more"])
@pytest.mark.parametrize("model", ["m", "demo-slow"])
def test_tokens_and_pieces_add_up_to_the_text(text: str, model: str) -> None:
    assert "".join(tokens(text)) == text
    assert "".join(pieces(text, ask(model=model))) == text


def test_the_same_request_gets_the_same_answer() -> None:
    assert answer(ask(tools=TOOLS)) == answer(ask(tools=TOOLS))


def test_choices_differ() -> None:
    first, second = answers(ask(count=2))
    assert first.text != second.text


def test_tools_are_called_once_until_their_results_are_there() -> None:
    assert [call.name for call in answer(ask(tools=TOOLS)).calls] == ["f", "g"]
    assert [call.name for call in answer(ask(tools=TOOLS, parallel=False)).calls] == ["f"]
    done = answer(ask(tools=TOOLS, rounds=1, results=("forty-two",)))
    assert done.calls == ()
    assert "forty-two" in done.text


@pytest.mark.parametrize(("rounds", "calls"), [(0, True), (1, True), (2, False)])
def test_steps_says_how_often_tools_are_called(rounds: int, calls: bool) -> None:
    assert bool(answer(ask(model="demo-steps-2", tools=TOOLS, rounds=rounds)).calls) is calls


def test_required_and_named_call_again() -> None:
    assert answer(ask(tools=TOOLS, rounds=1, choice="required")).calls
    assert [call.name for call in answer(ask(tools=TOOLS, rounds=1, choice="=h")).calls] == ["h"]
    assert not answer(ask(tools=TOOLS, choice="none")).calls


def test_the_earliest_stop_wins_and_is_not_said() -> None:
    made = answer(ask(stop=("demo", "This", "nowhere")))
    assert made.stopped_by == "This"
    assert made.finish == "stop_sequence"
    assert made.text.endswith('". ')


@pytest.mark.parametrize("limit", [0, 1, 5, 1000])
def test_no_answer_is_longer_than_its_limit(limit: int) -> None:
    made = answer(ask(max_tokens=limit))
    assert made.tokens == min(limit, answer(ask()).tokens)
    assert (made.finish == "length") == (limit < 1000)


def test_thoughts_count_towards_the_limit() -> None:
    made = answer(ask(max_tokens=10, thinking=True))
    assert made.reasoning >= 10
    assert (made.text, made.finish) == ("", "length")


def test_json_keeps_to_its_schema() -> None:
    made = answer(ask(schema={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}))
    assert json.loads(made.text) == {"a": 7}


def test_the_text_of_parts_is_joined() -> None:
    assert text_of([{"text": "a"}, {"image": 1}, {"text": "b"}]) == "a b"
    assert text_of(None) == ""


def test_choices_of_unequal_length_take_turns_until_the_longest_ends() -> None:
    assert list(interleaved(["abc", "", "de"])) == [(0, "a"), (2, "d"), (0, "b"), (2, "e"), (0, "c")]
