"""gateway.purses: money by day and month of UTC, exactly; time is a number."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from gateway.purses import DAY, Budget, Owner, Purse, Purses, Shortage, Spent, Sums, ends_in, span, worth_saying

DAILY, MONTHLY = Budget(10, "USD", "day"), Budget(10, "USD", "month")
ME, YOU = Owner("key", "me", "USD"), Owner("key", "you", "USD")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOON = at("2026-11-30T12:00:00")


def pay(purse: Purse, amount: float, now: float = NOON) -> None:
    purse.reserve(amount)
    purse.settle(now, amount, amount)


def test_money_is_spent_until_the_budget_does_not_bear_the_next_request() -> None:
    purse = Purse()
    for _ in range(10):
        assert purse.shortage(NOON, DAILY, 1) is None
        pay(purse, 1)
    assert purse.shortage(NOON, DAILY, 1) == Shortage(0, DAY / 2, busy=False)
    assert purse.shortage(NOON, DAILY, 0) == Shortage(0, DAY / 2, busy=False)


def test_what_is_reserved_is_nobody_elses_and_comes_back() -> None:
    purse = Purse()
    purse.reserve(8)
    assert purse.shortage(NOON, DAILY, 3) == Shortage(10, DAY / 2, busy=True)
    purse.settle(NOON, 8, 0)
    assert purse.shortage(NOON, DAILY, 10) is None
    assert purse.spent(NOON, "day") == 0
    assert purse.reserved == 0


def test_a_request_of_more_than_is_left_is_short_whatever_runs() -> None:
    purse = Purse()
    pay(purse, 8)
    assert purse.shortage(NOON, DAILY, 2.5) == Shortage(2, DAY / 2, busy=False)
    assert purse.shortage(NOON, DAILY, 2) is None


def test_a_day_ends_at_midnight_and_a_month_with_its_last_day() -> None:
    purse = Purse()
    pay(purse, 10, NOON - DAY)
    assert purse.shortage(NOON - DAY, DAILY, 1) is not None
    assert purse.shortage(at("2026-11-29T23:59:59"), DAILY, 1) is not None
    assert purse.shortage(at("2026-11-30T00:00:00"), DAILY, 1) is None
    assert purse.shortage(at("2026-11-30T23:59:59"), MONTHLY, 1) is not None
    assert purse.shortage(at("2026-12-01T00:00:00"), MONTHLY, 1) is None


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        ("2026-11-30T12:00:00", 43_200, 43_200),
        ("2026-12-31T00:00:00", DAY, DAY),
        ("2028-02-01T00:00:00", DAY, 29 * DAY),
        ("2026-12-01T23:59:59", 1, 30 * DAY + 1),
    ],
)
def test_budgets_begin_anew_with_the_day_and_the_month(now: str, day: float, month: float) -> None:
    assert (ends_in(at(now), "day"), ends_in(at(now), "month")) == (day, month)


@pytest.mark.parametrize(
    ("wait", "words", "said"),
    [(1, "1m", 1), (3_600, "1h0m", 3_600), (DAY, "1d0h", DAY), (3 * DAY + 7_300, "3d2h", None)],
)
def test_a_long_wait_is_told_in_words_and_nobody_is_told_to_wait_for_days(
    wait: float, words: str, said: float | None
) -> None:
    assert (span(wait), worth_saying(wait)) == (words, said)


def test_a_part_of_a_budget_is_all_that_a_process_grants() -> None:
    purse = Purse()
    pay(purse, 4)
    assert purse.shortage(NOON, DAILY, 1, 0.5) is None
    assert purse.shortage(NOON, DAILY, 2, 0.5) == Shortage(1, DAY / 2, busy=False)


def test_fractions_add_up_to_the_whole_budget() -> None:
    purse = Purse()
    count = 0
    while purse.shortage(NOON, DAILY, 0.1) is None:
        pay(purse, 0.1)
        count += 1
    assert count == 100


def test_no_money_is_lost_or_counted_twice_over_many_interleaved_requests() -> None:
    chance = random.Random(3)
    purse = Purse()
    running: list[float] = []
    total = 0.0
    for _ in range(5_000):
        if running and chance.random() < 0.5:
            reserved = running.pop(chance.randrange(len(running)))
            cost = chance.choice((0.0, reserved, reserved / 3, reserved * 2))
            purse.settle(NOON, reserved, cost)
            total += cost
        else:
            running.append(chance.random())
            purse.reserve(running[-1])
    assert purse.reserved == pytest.approx(sum(running))
    for reserved in running:
        purse.settle(NOON, reserved, 0)
    assert purse.reserved == pytest.approx(0, abs=1e-9)
    assert purse.spent(NOON, "month") == pytest.approx(total)
    assert sum(purse.take().values()) == pytest.approx(total)


def purses(now: float = NOON) -> Purses:
    found = Purses(lambda: now)
    found.adopt({ME: DAILY, YOU: MONTHLY})
    return found


def test_what_is_taken_to_be_written_is_taken_once_and_given_back_when_it_was_not() -> None:
    mine = purses()
    assert not mine.fresh
    pay(mine[ME], 3, NOON - DAY)
    pay(mine[ME], 2)
    assert mine.fresh
    taken = mine.take()
    assert [(each.owner, each.amount) for each in taken] == [(ME, 3), (ME, 2)]
    assert taken[1].day - taken[0].day == 1
    assert mine.take() == []
    mine.give_back(taken)
    assert mine.take() == taken


def test_what_others_have_spent_counts_and_what_was_spent_meanwhile_as_well() -> None:
    mine = purses()
    pay(mine[ME], 2)
    (taken,) = mine.take()
    pay(mine[ME], 1)
    mine.learn({ME: Sums(taken.day, 2 + 5, 2 + 30), Owner("key", "gone", "USD"): Sums(taken.day, 1, 1)})
    assert mine[ME].spent(NOON, "day") == 8
    assert mine[ME].spent(NOON, "month") == 33
    assert mine.take() == [Spent(ME, taken.day, 1)]


def test_sums_of_a_day_that_is_over_are_not_todays() -> None:
    mine = purses()
    pay(mine[ME], 1)
    (taken,) = mine.take()
    mine.learn({ME: Sums(taken.day - 1, 100, 100)})
    assert mine[ME].spent(NOON, "day") == 1


def test_each_budget_stands_with_what_was_spent_of_it() -> None:
    mine = purses()
    pay(mine[ME], 3, NOON - DAY)
    pay(mine[YOU], 4, NOON - DAY)
    assert list(mine.standing()) == [(ME, DAILY, 0), (YOU, MONTHLY, 4)]
