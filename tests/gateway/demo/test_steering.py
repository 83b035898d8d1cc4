"""gateway.demo.steering: switches in model names."""

from __future__ import annotations

import pytest

from gateway.demo.mischief import ACTS
from gateway.demo.steering import MISCHIEF, Switch, switch_of


@pytest.mark.parametrize(
    ("model", "switch"),
    [
        ("gpt-4o", Switch()),
        ("demo", Switch()),
        ("demo-model", Switch()),
        ("demo-fail", Switch("fail")),
        ("accounts/fireworks/models/demo-flood-1000", Switch("flood", 1000)),
        ("us.anthropic.claude-sonnet-4-5-demo-slow-v1:0", Switch("slow")),
        ("demo-error400", Switch("error400")),
        ("demo-model-and-demo-cut", Switch("cut")),
    ],
)
def test_the_switch_is_found_anywhere_in_the_name(model: str, switch: Switch) -> None:
    assert switch_of(model) == switch


def test_every_mischief_has_its_act() -> None:
    assert ACTS.keys() == MISCHIEF
