"""gateway.strategies: the order of a routing's targets."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.strategies import STRATEGIES, Option, least_busy, lowest_latency, priority, rendezvous, weighted

A, B, C = Option("a"), Option("b"), Option("c")


def never() -> float:
    raise AssertionError("nothing is drawn")


def dice() -> random.Random:
    return random.Random(7)


def test_priority_is_the_order_of_the_file_even_without_weight() -> None:
    assert priority([A, Option("b", 0), C], never) == [0, 1, 2]


def test_weighted_draws_by_weight_and_leaves_out_what_has_none() -> None:
    options = [Option("a", 6), Option("b", 3), Option("c", 1), Option("d", 0)]
    first = Counter(weighted(options, lambda point=point: (point + 0.5) / 1000)[0] for point in range(1000))
    assert first == {0: 600, 1: 300, 2: 100}


def test_least_busy_counts_requests_per_weight() -> None:
    options = [Option("a", 1, active=3), Option("b", 4, active=8), Option("c", 1, active=5)]
    assert least_busy(options, dice().random) == [1, 0, 2]


def test_equally_busy_targets_share_the_requests() -> None:
    chance = dice().random
    first = Counter(least_busy([A, B], chance)[0] for _ in range(400))
    assert 150 < first[0] < 250


def test_of_two_drawn_the_faster_is_asked() -> None:
    slow, quick = Option("slow", latency=2.0), Option("quick", latency=0.1)
    chance = dice().random
    assert {lowest_latency([slow, quick], chance)[0] for _ in range(50)} == {1}


def test_a_fast_target_that_is_busy_gives_way() -> None:
    quick, idle = Option("quick", active=30, latency=0.1), Option("idle", latency=1.0)
    assert lowest_latency([quick, idle], dice().random)[0] == 1


def test_the_slowest_of_many_is_never_first() -> None:
    options = [Option("a", latency=0.2), Option("b", latency=0.3), Option("c", latency=9.0)]
    chance = dice().random
    first = Counter(lowest_latency(options, chance)[0] for _ in range(300))
    assert first[2] == 0
    assert first[1] > 30  # two choices, not the best of all: they do not all run to the same one


def test_a_target_of_unknown_pace_is_tried_by_one_request_at_a_time() -> None:
    known = Option("known", latency=0.5)
    chance = dice().random
    assert lowest_latency([known, Option("new")], chance)[0] == 1
    assert lowest_latency([known, Option("new", active=1)], chance)[0] == 0


KEYS = [f"user-{number}".encode() for number in range(3000)]


def test_a_key_always_belongs_to_the_same_order() -> None:
    assert {tuple(rendezvous([A, B, C], b"user-1")) for _ in range(3)} == {tuple(rendezvous([A, B, C], b"user-1"))}
    assert len({tuple(rendezvous([A, B, C], key)) for key in KEYS}) == 6


def test_keys_are_shared_by_weight() -> None:
    options = [Option("a", 6), Option("b", 3), Option("c", 1), Option("d", 0)]
    first = Counter(rendezvous(options, key)[0] for key in KEYS)
    assert abs(first[0] - 1800) < 150
    assert abs(first[1] - 900) < 150
    assert first[3] == 0


def test_only_the_keys_of_a_target_that_goes_move() -> None:
    for key in KEYS[:500]:
        whole = [(A, B, C)[index].name for index in rendezvous([A, B, C], key)]
        left = [(A, C)[index].name for index in rendezvous([A, C], key)]
        assert left == [name for name in whole if name != "b"]


@given(
    st.sampled_from(sorted(STRATEGIES)),
    st.lists(st.builds(Option, st.text(max_size=3), st.floats(0.001, 1e6), st.integers(0, 9), st.floats(0, 99))),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5),
)
def test_no_strategy_loses_or_repeats_a_target(name: str, options: list[Option], points: list[float]) -> None:
    chance = itertools.cycle(points)
    assert sorted(STRATEGIES[name](options, lambda: next(chance))) == list(range(len(options)))
    assert sorted(rendezvous(options, b"k")) == list(range(len(options)))
