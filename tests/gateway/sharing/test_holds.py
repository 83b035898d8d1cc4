"""Holds: what is told to others, and what is learnt from them."""

from __future__ import annotations

from gateway.health import Health
from gateway.sharing.holds import Holds


def test_a_hold_is_told_once() -> None:
    health = {"gpt": Health(), "claude": Health()}
    holds = Holds(health)
    health["gpt"].hold(100.0, 30.0)
    assert holds.fresh(101.0)
    assert holds.own(101.0) == {"gpt": 29.0}
    assert not holds.fresh(101.0)
    assert holds.own(102.0) == {}


def test_a_longer_hold_is_told_again() -> None:
    health = {"gpt": Health()}
    holds = Holds(health)
    health["gpt"].hold(100.0, 5.0)
    assert holds.own(100.0)
    health["gpt"].hold(101.0, 60.0)
    assert holds.own(101.0) == {"gpt": 60.0}


def test_a_hold_that_did_not_arrive_is_told_again() -> None:
    health = {"gpt": Health()}
    holds = Holds(health)
    health["gpt"].hold(100.0, 30.0)
    assert holds.own(100.0)
    holds.learn({}, 101.0)
    assert holds.own(101.0) == {"gpt": 29.0}


def test_what_others_were_told_is_kept_to_and_not_told_back() -> None:
    health: dict[str, Health] = {}
    holds = Holds(health)
    holds.learn({"gpt": 20.0}, 100.0)
    assert not health["gpt"].available(119.0)
    assert health["gpt"].available(120.0)
    # Their clock is not quite ours.
    holds.learn({"gpt": 18.9}, 101.2)
    assert holds.own(102.0) == {}


def test_a_hold_that_is_over_is_no_news() -> None:
    health = {"gpt": Health()}
    health["gpt"].hold(100.0, 1.0)
    assert not Holds(health).fresh(102.0)
