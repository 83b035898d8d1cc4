"""Where the demo takes a conversation to stand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.demo.turns import current
from gateway.hub import Json

# U the user speaks, T a tool answers, M both in one message, A the model.
CASES = [("", "", ""), ("A", "", "A"), ("U", "U", ""), ("UAUAT", "U", "AT"), ("UAM", "M", "M"), ("UATA", "U", "ATA")]


def _messages(letters: str) -> list[Json]:
    return [{"said": letter} for letter in letters]


def _letters(messages: Sequence[Json]) -> str:
    return "".join(message["said"] for message in messages)


@pytest.mark.parametrize(("conversation", "said", "turn"), CASES)
def test_a_turn_is_what_came_after_the_user_spoke_and_what_came_with_it(
    conversation: str, said: str, turn: str
) -> None:
    found, after = current(
        _messages(conversation), lambda each: each["said"] in "UM", lambda each: each["said"] in "TM"
    )
    assert (_letters([found] if found else []), _letters(after)) == (said, turn)


def test_without_messages_that_do_both_the_turn_begins_after_the_user() -> None:
    _, after = current(_messages("UAUA"), lambda each: bool(each["said"] == "U"))
    assert _letters(after) == "A"
