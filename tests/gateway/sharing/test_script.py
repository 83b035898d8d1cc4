"""The script in a real Redis: what it grants, what it gives back, and what a process leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from redisserver import RedisServer

from gateway.sharing.link import Link
from gateway.sharing.script import Charge, Command, Verdict, Who, beat, heard, renew, settle, take, verdict

A, B = Who("a", 60.0), Who("b", 60.0)


def requests(prefix: str, limit: float = 10, amount: float = 1) -> Charge:
    return Charge("requests", f"{prefix}:{{x}}:rpm", limit, amount)


def tokens(prefix: str, limit: float, amount: float) -> Charge:
    return Charge("tokens", f"{prefix}:{{x}}:tpm", limit, amount)


def parallel(prefix: str, limit: float) -> Charge:
    return Charge("parallel", f"{prefix}:{{x}}:parallel", limit, 1)


def money(prefix: str, limit: float, amount: float) -> Charge:
    return Charge("budget", f"{prefix}:{{x}}:day", limit, amount, 60.0)


class Asking:
    """Questions one after the other."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def __call__(self, command: Command | None) -> Any:
        assert command is not None
        (reply,) = await self.link.call([command])
        assert reply is not None
        return reply

    async def take(self, who: Who, *charges: Charge) -> Verdict:
        return verdict(await self(take(who, charges)))


def asking(run: Callable[..., Any], redis: RedisServer, main: Callable[[Asking], Any]) -> None:
    async def body() -> None:
        link = Link(redis.url)
        await link.open()
        try:
            await main(Asking(link))
        finally:
            await link.close()

    run(body())


def test_a_rate_grants_exactly_a_minutes_worth_at_once(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        found = [await ask.take(A, requests(prefix)) for _ in range(12)]
        assert [each.granted for each in found] == [True] * 10 + [False] * 2
        assert 5 < found[-1].waits[0] <= 6
        assert 59 < found[-1].back_in(0) <= 60
        # The script's own clock: the next fits after a tenth of a minute.
        assert await ask.take(A, requests(prefix, limit=6000)) is not None

    asking(run, redis, main)


def test_a_limit_that_has_changed_keeps_what_was_taken(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        await ask.take(A, tokens(prefix, 100, 50))
        after = await ask.take(A, tokens(prefix, 1000, 1))
        assert after.granted
        assert 2.9 < after.back_in(0) <= 3.1

    asking(run, redis, main)


def test_all_of_a_requests_limits_are_taken_or_none(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        charges = (requests(prefix), tokens(prefix, 100, 80), parallel(prefix, 5), money(prefix, 1000, 10))
        assert (await ask.take(A, *charges)).granted
        refused = await ask.take(A, *charges)
        assert not refused.granted
        assert [wait > 0 for wait in refused.waits] == [False, True, False, False]
        then = await ask.take(A, requests(prefix), tokens(prefix, 100, 10), parallel(prefix, 5), money(prefix, 1000, 1))
        assert then.granted
        assert 11 < then.back_in(0) <= 12
        assert then.states[2:] == (2, 11)

    asking(run, redis, main)


def test_what_was_reserved_and_not_used_comes_back(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        charges = [tokens(prefix, 6000, 5000), money(prefix, 1000, 900)]
        granted = await ask.take(A, *charges)
        back = [charge._replace(amount=amount) for charge, amount in zip(charges, (-4900, -890), strict=True)]
        await ask(settle(A, back, granted))
        after = await ask.take(A, tokens(prefix, 6000, 5800), money(prefix, 1000, 990))
        assert after.granted
        assert 58 < after.back_in(0) <= 59
        assert after.states[1] == 1000

    asking(run, redis, main)


def test_what_was_used_beyond_the_estimate_is_charged(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        charge = tokens(prefix, 600, 100)
        granted = await ask.take(A, charge)
        await ask(settle(A, [charge._replace(amount=900)], granted))
        refused = await ask.take(A, tokens(prefix, 600, 1))
        assert not refused.granted
        assert 39 < refused.waits[0] <= 41

    asking(run, redis, main)


def test_what_time_has_filled_up_is_not_given_back_again(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        # Full again after a fiftieth of a second.
        charge = tokens(prefix, 60_000, 20)
        granted = await ask.take(A, charge)
        await asyncio.sleep(0.05)  # by the clock of Redis
        other = await ask.take(A, tokens(prefix, 60_000, 30_000))
        await ask(settle(A, [charge._replace(amount=-20)], granted))
        after = await ask.take(A, tokens(prefix, 60_000, 1))
        assert after.states[0] - other.states[0] == 1000

    asking(run, redis, main)


def test_a_request_larger_than_its_limit_waits_for_a_full_bucket(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        assert (await ask.take(A, tokens(prefix, 100, 500))).granted
        assert not (await ask.take(A, tokens(prefix, 100, 1))).granted

    asking(run, redis, main)


def test_a_limit_of_nothing_grants_nothing(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        refused = await ask.take(A, requests(prefix, limit=0))
        assert (refused.granted, refused.waits) == (False, (60.0,))

    asking(run, redis, main)


def test_requests_at_once_are_counted_over_all_processes(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        place = parallel(prefix, 2)
        first = await ask.take(A, place)
        assert (await ask.take(B, place)).granted
        assert not (await ask.take(A, place)).granted
        assert not (await ask.take(B, place)).granted
        await ask(settle(A, [place._replace(amount=-1)], first))
        assert (await ask.take(B, place)).granted

    asking(run, redis, main)


def test_a_process_that_says_nothing_any_more_loses_its_places(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        place, dying = parallel(prefix, 1), Who("dying", 0.05)
        assert (await ask.take(dying, place)).granted
        refused = await ask.take(A, place)
        until = time.monotonic() + 10
        while not refused.granted and time.monotonic() < until:
            await asyncio.sleep(0.01)  # by the clock of Redis
            refused = await ask.take(A, place)
        assert refused.granted

    asking(run, redis, main)


def test_what_a_process_says_that_it_holds_is_what_counts(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        place = parallel(prefix, 3)
        await ask(renew(A, place.key, 2))
        assert (await ask.take(B, place)).granted
        assert not (await ask.take(B, place)).granted
        await ask(renew(A, place.key, 0))
        assert (await ask.take(B, place)).states == (2,)

    asking(run, redis, main)


def test_no_number_is_too_large_or_too_odd_for_redis(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        assert (await ask.take(A, tokens(prefix, 1, 1.28e9))).granted
        assert 0 < int(redis.say("PTTL", f"{prefix}:{{x}}:tpm")[1:]) <= 86_400_000
        spent = money(prefix, 1e9, 10)
        got = await ask.take(A, spent)
        assert await ask(settle(A, [spent._replace(amount=-0.3)], got)) == 1

    asking(run, redis, main)


def test_a_counter_that_has_run_out_gives_nothing_back(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        charge = money(prefix, 10, 4)
        granted = await ask.take(A, charge)
        redis.say("DEL", charge.key)
        await ask(settle(A, [charge._replace(amount=-4)], granted))
        assert (await ask.take(A, money(prefix, 10, 10))).granted
        assert not (await ask.take(A, money(prefix, 10, 1))).granted

    asking(run, redis, main)


def test_signs_of_life_carry_holds_to_the_others(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        assert heard(await ask(beat(A, prefix, {}))) == (1, {})
        told = heard(await ask(beat(B, prefix, {"gpt": 30.0, "claude": 0.001})))
        assert told.processes == 2
        assert 29 < told.held["gpt"] <= 30
        # The longer of two holds counts.
        shorter = heard(await ask(beat(A, prefix, {"gpt": 3.0})))
        assert 29 < shorter.held["gpt"] <= 30
        await ask(beat(Who("c", 60.0), prefix, {}))
        assert heard(await ask(beat(B._replace(lease=0.0), prefix, {}))).processes == 2
        assert int(redis.say("ZCARD", f"{prefix}:{{all}}:processes")[1:]) == 2
        assert int(redis.say("PTTL", f"{prefix}:{{all}}:processes")[1:]) > 50_000

    asking(run, redis, main)


def test_nothing_that_is_written_stays_for_ever(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        await ask.take(A, requests(prefix), tokens(prefix, 10, 5), parallel(prefix, 5), money(prefix, 9, 1))
        await ask(beat(A, prefix, {"gpt": 30.0}))
        keys = [f"{prefix}:{{x}}:{name}" for name in ("rpm", "tpm", "parallel", "day")]
        for key in (*keys, f"{prefix}:{{all}}:processes", f"{prefix}:{{all}}:holds"):
            assert 0 < int(redis.say("PTTL", key)[1:]) <= 130_000, key

    asking(run, redis, main)


def test_a_forgotten_script_is_brought_along_again(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        assert (await ask.take(A, requests(prefix))).granted
        redis.say("SCRIPT", "FLUSH")
        commands = [take(A, [requests(prefix)]) for _ in range(12)]
        replies = await ask.link.call(commands)
        assert [verdict(reply).granted for reply in replies if reply is not None] == [True] * 9 + [False] * 3
        again = await ask.link.call([take(A, [requests(prefix)])])
        assert again[0] is not None

    asking(run, redis, main)


def test_what_redis_refuses_leaves_the_other_answers_in_place(run: Any, redis: RedisServer, prefix: str) -> None:
    async def main(ask: Asking) -> None:
        redis.say("SADD", f"{prefix}:{{y}}:rpm", "not ours")
        bad = Charge("requests", f"{prefix}:{{y}}:rpm", 10, 1)
        replies = await ask.link.call([take(A, [requests(prefix)]), take(A, [bad]), take(A, [requests(prefix)])])
        assert [reply is None for reply in replies] == [False, True, False]

    asking(run, redis, main)
