"""From a route to an answer: one attempt after the other until one of them answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gateway.config.types import Retry
from gateway.contract import ChatRequest, Dialect, Stamp
from gateway.errors import GatewayError, UpstreamError
from gateway.exchange import Answer, Upstreams, exchange
from gateway.fan import fan_out, wanted
from gateway.health import BreakerRule, Health
from gateway.images import Fetched
from gateway.limits import Ledger
from gateway.log import News
from gateway.router import Attempt, Route
from gateway.timers import backoff

# A provider says with these codes that it does not know a parameter; one more try leaves it out.
UNKNOWN_PARAM = frozenset(("unsupported_parameter", "unsupported_value", "unknown_parameter"))


@dataclass(slots=True)
class Tries:
    """The attempts of one request so far, for the header and the log, and the images that were fetched for them."""

    ledger: Ledger
    made: list[str] = field(default_factory=list)
    last: str = ""
    fetched: Fetched | None = None

    def __str__(self) -> str:
        return ",".join(self.made)


async def first_answer(
    route: Route, chat: ChatRequest, dialect: Dialect, stamp: Stamp, upstreams: Upstreams, tries: Tries
) -> Answer:
    """Make attempts until one answers; raises the last UpstreamError when none may follow.

    Nothing has gone to the client before this returns. The caller owes the answer's attempt a call of `settle`.
    """
    loop = asyncio.get_running_loop()
    retry = route.retry
    deadline = loop.time() + route.attempts[0].stream_limits.total
    plan = _Plan(route.attempts, upstreams, loop.time())
    without: frozenset[str] = frozenset()
    while True:
        attempt = plan.next(loop.time())
        health = upstreams.health_of(attempt.name)
        again = bool(tries.made)
        health.begin(loop.time(), retry=again)
        tries.last = attempt.name
        try:
            sent = await _with_images(attempt, chat, upstreams, tries, deadline) if attempt.fetch_images else chat
            answer = await _once(replaced(attempt, without), sent, dialect, stamp, upstreams, deadline)
        except UpstreamError as error:
            health.end(retry=again)
            tries.made.append(f"{attempt.name}={error.details.get('upstream_status') or error.code}")
            _account_for(error, attempt, health, retry, upstreams.news, loop.time())
            refused = _refused_param(error, attempt, chat)
            if refused and refused not in without:
                without |= {refused}
                plan.again(attempt)
                continue
            wait = plan.wait_before_next(error, attempt, retry, len(tries.made), deadline - loop.time())
            if wait is None:
                raise _final(error, len(tries.made)) from error
            if wait:
                await asyncio.sleep(wait)
        except BaseException:
            health.end(retry=again)
            raise
        else:
            tries.made.append(f"{attempt.name}=200")
            health.end(retry=again)
            health.active += 1
            return answer


async def _once(
    attempt: Attempt, chat: ChatRequest, dialect: Dialect, stamp: Stamp, upstreams: Upstreams, deadline: float
) -> Answer:
    count = wanted(attempt, chat) if attempt.target.emulate else 1
    if count > 1:
        return await fan_out(count, attempt, chat, dialect, stamp, upstreams, deadline)
    return await exchange(attempt, chat, dialect, stamp, upstreams, deadline)


async def _with_images(
    attempt: Attempt, chat: ChatRequest, upstreams: Upstreams, tries: Tries, deadline: float
) -> ChatRequest:
    """The request with its images fetched; those that an attempt before has fetched are not fetched again."""
    if tries.fetched is None:
        tries.fetched = Fetched(tries.ledger)
    return await upstreams.images.inlined(chat, attempt.provider.own_urls, tries.fetched, deadline)


def settle(answer: Answer, upstreams: Upstreams, failure: GatewayError | None) -> None:
    """Tell an upstream's health how an answer truly ended: None for well."""
    health = upstreams.health_of(answer.attempt.name)
    health.active -= 1
    now = asyncio.get_running_loop().time()
    if failure is None:
        health.succeed(now)
    elif isinstance(failure, UpstreamError):
        health.fail(now, _rule(answer.attempt.retry), random.random())


def replaced(attempt: Attempt, without: frozenset[str]) -> Attempt:
    """The attempt, leaving out parameters that its provider has just refused."""
    return (
        replace(attempt, target=replace(attempt.target, without=attempt.target.without | without))
        if without
        else attempt
    )


class _Plan:
    """The order of the attempts of one request."""

    def __init__(self, attempts: Sequence[Attempt], upstreams: Upstreams, now: float) -> None:
        self._upstreams = upstreams
        ready = [attempt for attempt in attempts if upstreams.health_of(attempt.name).available(now)]
        # Panic: with more than half of the upstreams ejected their past is ignored (Envoy's threshold).
        kept = ready if len(ready) * 2 >= len(attempts) and ready else list(attempts)
        self._fresh = list(kept)
        self._again: list[Attempt] = []

    def next(self, now: float) -> Attempt:
        """The attempt to make now."""
        return self._fresh.pop(0) if self._fresh else self._again.pop(0)

    def again(self, attempt: Attempt) -> None:
        """Make this one next."""
        self._fresh.insert(0, attempt)

    def wait_before_next(
        self, error: UpstreamError, attempt: Attempt, retry: Retry, made: int, remaining: float
    ) -> float | None:
        """Seconds until the next attempt; None when there is to be none (reliability rules of the README)."""
        if made >= retry.attempts or remaining <= 0 or not _may_repeat(error, retry):
            return None
        if self._fresh:
            return 0.0
        wait = self._wait_for_same(error, made, remaining)
        health = self._upstreams.health_of(attempt.name)
        if wait is None or not health.may_retry(retry.budget):
            return None
        self._again.append(attempt)
        return wait

    @staticmethod
    def _wait_for_same(error: UpstreamError, made: int, remaining: float) -> float | None:
        if error.cause in {"auth", "timeout"}:
            return None
        wait = error.retry_after if error.retry_after is not None else backoff(made - 1, random.random())
        return wait if wait < remaining else None


def _may_repeat(error: UpstreamError, retry: Retry) -> bool:
    if error.cause == "reset":
        return retry.unsafe or "reset" in retry.on
    return error.cause in retry.on


def _account_for(error: UpstreamError, attempt: Attempt, health: Health, retry: Retry, news: News, now: float) -> None:
    if error.cause == "429":
        if error.retry_after:
            health.hold(now, error.retry_after)
    elif error.cause == "auth":
        news("error", "a provider refuses our credential", deployment=attempt.name, provider=attempt.account)
        health.hold(now, 1.0)
    elif error.cause != "request":
        if health.fail(now, _rule(attempt.retry), random.random()):
            news("warning", "breaker opened", deployment=attempt.name)


def _rule(retry: Retry) -> BreakerRule:
    return BreakerRule(retry.breaker.failures, retry.breaker.window, retry.breaker.open)


def _refused_param(error: UpstreamError, attempt: Attempt, chat: ChatRequest) -> str | None:
    """The parameter that the provider said it does not know, if it may be left out."""
    param = error.param
    if error.cause != "request" or error.code not in UNKNOWN_PARAM or not param or attempt.target.unsupported != "drop":
        return None
    return param if param in chat.names() and param not in {"model", "messages", "stream", "tools"} else None


def _final(error: UpstreamError, made: int) -> UpstreamError:
    """The error for the client: after our own retries it is told not to multiply them, unless time cures it."""
    if made > 1 and error.retry_after is None:
        error.no_retry = True
    return error
