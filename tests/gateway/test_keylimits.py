"""gateway.keylimits: what a key may use, exactly, through failures, cancelled streams and reloads."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from gateway.config.types import Config, Key, Limits, Server
from gateway.contract import Usage
from gateway.dialects.openai_chat import DIALECT
from gateway.errors import GatewayError
from gateway.keylimits import KeyLimits, Lease
from gateway.log import Record
from gateway.prices import Tariff
from gateway.purses import Budget, Owner, Purses
from gateway.traits import ANSWER_TOKENS

HASH = "sha256:" + "0" * 64
# A dollar for a thousand tokens of input, two for a thousand of output.
TARIFF = Tariff(1000, 2000, 100, 1250)
OWNER = Owner("key", "app", "USD")
# Noon of the 30th of November 2026.
NOON = 1_796_040_000.0


def config(workers: int = 1, **limits: Any) -> Config:
    return Config(keys={"app": Key(hash=HASH, limits=Limits(**limits))}, server=Server(workers=workers))


class Desk:
    """A key that sends requests."""

    def __init__(self, workers: int = 1, **limits: Any) -> None:
        self.now = NOON
        self.purses = Purses(lambda: self.now)
        self.tariffs = {"m": TARIFF}.get
        self.limits = KeyLimits(config(workers, **limits), 0.0, self.purses, self.tariffs)
        self.record = Record(0.0)

    def adopt(self, **limits: Any) -> None:
        self.limits.adopt(config(**limits), 0.0, self.tariffs)

    def ask(self, now: float = 0.0, **body: Any) -> Lease:
        chat = DIALECT.open_request(orjson.dumps({"model": "m", "messages": [], **body}), {})
        self.record = Record(now, key="app")
        lease = self.limits.admit(self.record, chat, now)
        assert lease is not None
        return lease

    def refusal(self, now: float = 0.0, **body: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            self.ask(now, **body)
        assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
        return caught.value

    def end(self, lease: Lease, now: float = 0.0, usage: Usage | None = None, code: str = "ok") -> None:
        record = Record(0.0, code=code)
        record.usage = usage
        lease.settle(now, record)

    def left(self, kind: str = "tokens", now: float = 0.0) -> int:
        """What a request of no tokens is told."""
        self.end(self.ask(now, max_tokens=0), now)
        assert self.record.allowance is not None
        return int(self.record.allowance[f"x-ratelimit-remaining-{kind}"])


def test_a_key_without_limits_is_not_counted() -> None:
    limits = KeyLimits(Config(keys={"app": Key(hash=HASH)}), 0.0, Purses(lambda: NOON), {}.get)
    record = Record(0.0, key="app")
    chat = DIALECT.open_request(b'{"model": "m", "messages": []}', {})
    assert limits.admit(record, chat, 0.0) is None
    assert record.allowance is None


def test_requests_are_let_in_up_to_the_minutes_number() -> None:
    desk = Desk(rpm=5)
    for _ in range(5):
        desk.end(desk.ask())
    error = desk.refusal()
    assert error.kind == "requests"
    assert error.retry_after == pytest.approx(12)
    assert desk.record.limited == "requests"
    assert desk.record.allowance == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }
    desk.ask(12.0)


def test_a_refused_request_takes_nothing() -> None:
    desk = Desk(rpm=2, tpm=10_000)
    desk.ask(max_tokens=9_000)
    assert desk.refusal(max_tokens=9_000).kind == "tokens"
    assert desk.record.limited == "tokens"
    desk.ask(max_tokens=500)
    assert desk.refusal(max_tokens=1).kind == "requests"


def test_requests_at_once_are_counted_to_their_ends() -> None:
    desk = Desk(parallel=2)
    first = desk.ask()
    desk.ask()
    error = desk.refusal()
    assert desk.record.limited == "parallel"
    assert error.retry_after == 1
    desk.end(first, code="client_disconnect")
    desk.ask()
    desk.refusal()


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, ANSWER_TOKENS),
        ({"max_tokens": 70}, 70),
        ({"max_completion_tokens": 30, "max_tokens": 70}, 30),
        ({"max_tokens": 70, "n": 3}, 210),
        ({"max_tokens": 0}, 0),
    ],
)
def test_an_estimate_is_a_quarter_of_the_body_and_what_the_client_asks_for(body: dict[str, Any], tokens: int) -> None:
    desk = Desk(tpm=100_000)
    size = len(orjson.dumps({"model": "m", "messages": [], **body})) // 4
    desk.ask(**body)
    assert desk.record.allowance is not None
    assert desk.record.allowance["x-ratelimit-remaining-tokens"] == str(100_000 - size - tokens)


@pytest.mark.parametrize(
    ("usage", "code", "used"),
    [
        (Usage(300, 200), "ok", 500),
        (None, "ok", None),
        (None, "upstream_timeout", 0),
        (None, "client_disconnect", 0),
        (Usage(completion=40, source="partial"), "client_disconnect", 10 + 40),
        (Usage(25, 40, source="partial"), "upstream_truncated", 65),
    ],
)
def test_in_the_end_the_true_usage_counts(usage: Usage | None, code: str, used: int | None) -> None:
    desk = Desk(tpm=100_000)
    lease = desk.ask(max_tokens=5_000, user="x" * (40 - 35))
    reserved = 100_000 - int((desk.record.allowance or {})["x-ratelimit-remaining-tokens"])
    size = reserved - 5_000
    desk.end(lease, 0.0, usage, code)
    expected = reserved if used is None else used
    if usage is not None and usage.prompt is None:
        expected = size + 40
    probe = len(b'{"model":"m","messages":[],"max_tokens":0}') // 4
    assert desk.left() == 100_000 - expected - probe


def test_no_token_is_lost_or_counted_twice_over_many_interleaved_requests() -> None:
    chance = random.Random(7)
    desk = Desk(tpm=10_000_000)
    open_ones: list[Lease] = []
    used = 0
    for _ in range(2_000):
        if open_ones and chance.random() < 0.5:
            lease = open_ones.pop(chance.randrange(len(open_ones)))
            kind = chance.randrange(3)
            prompt, completion = chance.randrange(500), chance.randrange(900)
            if kind == 0:
                desk.end(lease, 0.0, Usage(prompt, completion))
            elif kind == 1:
                desk.end(lease, 0.0, Usage(prompt, completion, source="partial"), "client_disconnect")
            else:
                desk.end(lease, 0.0, None, "upstream_reset")
            used += prompt + completion if kind < 2 else 0
        else:
            open_ones.append(desk.ask(max_tokens=chance.randrange(1_000)))
    for lease in open_ones:
        desk.end(lease, 0.0, None, "client_disconnect")
    probe = len(b'{"model":"m","messages":[],"max_tokens":0}') // 4
    assert desk.left() == 10_000_000 - used - probe


def test_what_was_used_is_kept_over_a_reload_by_name() -> None:
    desk = Desk(rpm=10, parallel=1)
    running = desk.ask()
    for _ in range(5):
        desk.refusal()
    desk.adopt(rpm=10, parallel=2)
    desk.end(desk.ask())
    assert desk.record.allowance is not None
    assert desk.record.allowance["x-ratelimit-remaining-requests"] == "8"
    desk.end(running)
    desk.limits.adopt(Config(), 0.0, desk.tariffs)
    desk.adopt(rpm=10)
    desk.ask()
    assert desk.record.allowance["x-ratelimit-remaining-requests"] == "7"


def test_a_limit_that_a_reload_takes_away_lets_its_requests_end() -> None:
    desk = Desk(tpm=1_000)
    lease = desk.ask(max_tokens=500)
    desk.limits.adopt(Config(keys={"app": Key(hash=HASH)}), 0.0, desk.tariffs)
    desk.end(lease, 0.0, Usage(100, 100))
    desk.adopt(tpm=1_000)
    assert desk.left() == 1_000 - 200 - 10


def test_a_reload_that_changes_a_limit_keeps_the_tokens_that_were_used() -> None:
    desk = Desk(tpm=1_000)
    running = desk.ask(max_tokens=200)
    desk.end(desk.ask(max_tokens=100), usage=Usage(300, 200))
    desk.adopt(tpm=100_000)
    desk.end(running, usage=Usage(150, 50))
    assert desk.left() == 100_000 - 500 - 200 - 10


def test_tokens_of_running_requests_stay_reserved_however_long_they_run() -> None:
    desk = Desk(tpm=1_000)
    running = desk.ask(max_tokens=600)
    error = desk.refusal(120.0, max_tokens=600)
    assert error.kind == "tokens"
    assert error.retry_after == 1
    desk.end(running, 120.0, Usage(10, 0))
    desk.ask(120.0, max_tokens=600)


def test_a_request_larger_than_its_limit_waits_until_nothing_was_used_and_leaves_a_debt() -> None:
    desk = Desk(tpm=1_000)
    desk.end(desk.ask(max_tokens=10), usage=Usage(1, 99))
    assert desk.refusal(max_tokens=5_000).retry_after == pytest.approx(6)
    large = desk.ask(6.0, max_tokens=5_000)
    desk.refusal(6.0, max_tokens=5_000)
    desk.end(large, 6.0, Usage(0, 3_000))
    assert desk.refusal(6.0, max_tokens=0).retry_after == pytest.approx(120.6, abs=0.2)


def test_each_of_several_workers_grants_its_share() -> None:
    desk = Desk(workers=4, rpm=8, parallel=2)
    desk.ask()
    assert desk.refusal().message.startswith("The rate limit of your key is reached: 1 requests at once")
    desk = Desk(workers=4, rpm=8)
    desk.ask()
    desk.ask()
    assert desk.refusal().retry_after == pytest.approx(30)


def test_a_key_with_only_a_budget_has_no_rates() -> None:
    desk = Desk(budget=Budget(100, "USD", "day"))
    desk.end(desk.ask())
    assert desk.record.allowance == {}


DAY_BUDGET = Budget(10, "USD", "day")


def money(desk: Desk, **body: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        desk.ask(**body)
    assert desk.record.limited == "budget"
    return caught.value


def pay(desk: Desk, lease: Lease, cost: float | None, code: str = "ok") -> None:
    record = Record(0.0, code=code)
    record.cost = cost
    lease.settle(0.0, record)


def test_a_budget_is_spent_by_what_requests_truly_cost_and_says_when_it_begins_anew() -> None:
    desk = Desk(budget=DAY_BUDGET)
    for _ in range(9):
        pay(desk, desk.ask(max_tokens=100), 1.1)
    error = money(desk, max_tokens=100)
    assert (error.status, error.kind, error.code) == (402, "insufficient_quota", "insufficient_quota")
    assert error.retry_after == 43_200
    assert getattr(error, "no_retry", False)
    assert error.message.startswith(
        "The budget of your key, 10 USD per day, is spent: 0.1 USD is left and this request"
    )
    assert error.message.endswith("It begins anew in 12h0m.")
    desk.now += 43_200
    desk.ask(max_tokens=100)


def test_a_request_that_may_cost_more_than_is_left_is_refused_and_a_smaller_one_is_not() -> None:
    desk = Desk(budget=DAY_BUDGET)
    pay(desk, desk.ask(max_tokens=0), 9)
    assert money(desk, max_tokens=600).status == 402
    desk.ask(max_tokens=400)


def test_what_requests_under_way_may_cost_is_reserved_and_comes_back_when_they_end() -> None:
    desk = Desk(budget=DAY_BUDGET)
    first = desk.ask(max_tokens=4_900)
    error = money(desk, max_tokens=200)
    assert (error.status, error.code, error.retry_after) == (429, "rate_limit_exceeded", 1)
    pay(desk, first, None, "upstream_timeout")
    pay(desk, desk.ask(max_tokens=4_900), None, "client_disconnect")
    pay(desk, desk.ask(max_tokens=4_900), 0.5, "client_disconnect")
    pay(desk, desk.ask(max_tokens=4_700), None)
    assert desk.purses[OWNER].spent(NOON, "day") == pytest.approx(0.5 + 9.4, abs=0.05)
    assert desk.purses[OWNER].reserved == 0


def test_a_request_that_a_budget_refuses_takes_nothing_of_the_rates() -> None:
    desk = Desk(rpm=5, tpm=100_000, budget=Budget(0.001, "USD", "month"))
    for _ in range(10):
        money(desk)
    assert (desk.record.allowance or {}) == {}
    desk.adopt(rpm=5, tpm=100_000, budget=DAY_BUDGET)
    desk.ask()
    assert (desk.record.allowance or {})["x-ratelimit-remaining-requests"] == "4"


def test_a_budget_of_nothing_lets_nothing_pass_and_a_month_is_too_long_to_wait_for() -> None:
    desk = Desk(budget=Budget(0, "USD", "month"))
    desk.now -= 20 * 86_400
    error = money(desk, max_tokens=0)
    assert (error.status, error.retry_after) == (402, None)


def test_a_model_that_nobody_has_priced_is_not_served_under_a_budget() -> None:
    desk = Desk(budget=DAY_BUDGET)
    with pytest.raises(GatewayError) as caught:
        desk.ask(model="unknown")
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "model_not_available", "model")


def test_what_was_spent_is_kept_when_the_budget_changes() -> None:
    desk = Desk(budget=DAY_BUDGET)
    running = desk.ask(max_tokens=10)
    pay(desk, desk.ask(max_tokens=10), 8)
    desk.adopt(budget=Budget(100, "USD", "month"))
    pay(desk, running, 1)
    assert desk.purses[OWNER].spent(NOON, "month") == 9
    desk.adopt(rpm=10)
    desk.ask()
    desk.adopt(budget=DAY_BUDGET)
    assert money(desk, max_tokens=1_000).status == 402


def test_each_of_several_processes_that_know_nothing_of_each_other_spends_its_part() -> None:
    desk = Desk(budget=DAY_BUDGET)
    desk.purses.share = 0.25
    pay(desk, desk.ask(max_tokens=10), 2.4)
    assert money(desk, max_tokens=100).status == 402


def test_no_money_is_lost_or_counted_twice_over_many_interleaved_requests() -> None:
    chance = random.Random(11)
    desk = Desk(budget=Budget(1_000_000, "USD", "day"))
    running: list[Lease] = []
    spent = 0.0
    for _ in range(2_000):
        if running and chance.random() < 0.5:
            lease = running.pop(chance.randrange(len(running)))
            cost = chance.choice((None, chance.random()))
            pay(desk, lease, cost, chance.choice(("client_disconnect", "upstream_reset")))
            spent += cost or 0.0
        else:
            running.append(desk.ask(max_tokens=chance.randrange(1_000)))
    for lease in running:
        pay(desk, lease, None, "client_disconnect")
    assert desk.purses[OWNER].reserved == 0
    assert desk.purses[OWNER].spent(NOON, "day") == pytest.approx(spent)
