"""From a route to an answer: one attempt after the other until one of them answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from gateway.config.types import Hedge
from gateway.contract import ChatRequest, Dialect, Stamp
from gateway.errors import GatewayError, UpstreamError
from gateway.exchange import Answer, Upstreams, exchange
from gateway.fan import fan_out, wanted
from gateway.health import Health
from gateway.images import Fetched
from gateway.limits import Ledger
from gateway.log import News
from gateway.plan import Plan, may_repeat
from gateway.routes import Attempt, Route, Step
from gateway.sharing.targets import AtLimit
from gateway.tracing.trace import Span, Trace
from gateway.traits import size_of
from gateway.visits import Ticket, Visit, place_at

# A provider says with these codes that it does not know a parameter; one more try leaves it out.
UNKNOWN_PARAM = frozenset(("unsupported_parameter", "unsupported_value", "unknown_parameter"))
# An upstream that refuses our credential is passed over for so long, where there is another.
REST = 1.0
# Where other processes' requests have taken all the room, it is looked for again after so long.
CROWDED = 0.05


@dataclass(slots=True)
class Tries:
    """The attempts of one request so far, for the header and the log, and the images that were fetched for them.

    `began` is when the request was accepted: the total time is counted from there. `why` says how the last was chosen.
    """

    ledger: Ledger
    made: list[str] = field(default_factory=list)
    last: str = ""
    why: str = ""
    fetched: Fetched | None = None
    began: float | None = None
    trace: Trace | None = None

    def __str__(self) -> str:
        return ",".join(self.made)


class Failed(NamedTuple):
    """A first attempt that was made already, at the first step of the route."""

    visit: Visit
    error: Exception


async def first_answer(
    route: Route,
    chat: ChatRequest,
    dialect: Dialect,
    stamp: Stamp,
    upstreams: Upstreams,
    tries: Tries,
    failed: Failed | None = None,
) -> Answer:
    """Make attempts until one answers; raises the last UpstreamError when none may follow.

    Raises RateLimited, NoHealthyUpstream or Overloaded when nothing could be tried. Nothing has gone to the client
    before this returns. The caller owes the answer a call of `settle`.
    """
    return await _Journey(route, chat, dialect, stamp, upstreams, tries).answer(failed)


def settle(answer: Answer, upstreams: Upstreams, failure: GatewayError | None) -> None:
    """Tell an upstream's health how an answer truly ended: None for well."""
    visit = answer.visit
    assert visit is not None
    now = upstreams.sweep.loop.time()
    visit.leave(now, answer.usage if answer.pump is None else answer.pump.usage())
    if failure is None:
        visit.health.succeed(now, visit.began)
    elif isinstance(failure, UpstreamError):
        _account_for(failure, answer.attempt, visit.health, upstreams.news, now)


class _Journey:
    """One request on its way through a route."""

    __slots__ = ("_began", "_chat", "_dialect", "_loop", "_plan", "_route", "_stamp", "_tries", "_upstreams")

    def __init__(
        self, route: Route, chat: ChatRequest, dialect: Dialect, stamp: Stamp, upstreams: Upstreams, tries: Tries
    ) -> None:
        self._route = route
        self._chat = chat
        self._dialect = dialect
        self._stamp = stamp
        self._upstreams = upstreams
        self._tries = tries
        self._loop = upstreams.sweep.loop
        self._began = self._loop.time() if tries.began is None else tries.began
        self._plan: Plan | None = None

    async def answer(self, failed: Failed | None) -> Answer:
        """The first answer of all attempts; one that has failed before counts as theirs."""
        route, tries = self._route, self._tries
        without: frozenset[str] = frozenset()
        retry = remedied = False
        failure: UpstreamError | None = None
        step = route.steps[0] if failed is not None else self._first_step()
        while True:
            try:
                if failed is not None:
                    (visit, error), failed = failed, None
                    self._note(step, step.attempt, visit, error)
                    raise error
                if route.hedge is not None and not tries.made:
                    return await self._hedged(step, route.hedge)
                return await self._visited(step, replaced(step.attempt, without), retry=retry)
            except AtLimit as reached:
                step, retry = await self._instead(step, reached, failure), False
                continue
            except UpstreamError as error:
                failure, plan = self._kept(error), self._planned(step)
                refused = self._refused(error, step, without)
                if refused is not None:
                    without |= {refused}
                    retry = False
                    continue
                if not remedied and await self._remedied(error, step.attempt):
                    remedied, retry = True, False
                    continue
                following = plan.following(error, len(tries.made), self._loop.time())
                if following is None:
                    plan.final(error, len(tries.made))
                    raise
            step, wait, retry = following
            if wait:
                await self._wait(step, wait)

    def _kept(self, error: UpstreamError) -> UpstreamError | None:
        """A failure as far as it may be told later: an error that is kept keeps all frames that it went through."""
        return error if self._upstreams.shared is not None else None

    def _refused(self, error: UpstreamError, step: Step, without: frozenset[str]) -> str | None:
        """The parameter that one more try at the same upstream leaves out."""
        if self._tries.last != step.attempt.name:
            return None
        param = _refused_param(error, step.attempt, self._chat)
        return param if param not in without else None

    async def _remedied(self, error: UpstreamError, attempt: Attempt) -> bool:
        """Was it something of ours that can be put right: a token that has run out, a clock that is off?"""
        if error.cause != "auth":
            return False
        told = error.details.get("upstream_date")
        if told is None:
            return await self._upstreams.sources[attempt.account].refresh()
        try:
            self._upstreams.skew[attempt.account] = parsedate_to_datetime(told).timestamp() - time.time()
        except ValueError:
            return False
        return True

    async def _instead(self, step: Step, reached: AtLimit, failure: UpstreamError | None) -> Step:
        """Another step than one that is at its limit, or the same after a moment; raises when there is none."""
        plan, now = self._planned(step), self._loop.time()
        plan.passed(reached.wait, spent=reached.spent)
        if (other := plan.pick(now)) is not None:
            return other
        if reached.crowded and now < self._began + step.attempt.room.wait:
            await asyncio.sleep(CROWDED)  # others count there too, so nobody here knows when there is room
            return step
        raise plan.refusal(now) if failure is None else plan.final(failure, len(self._tries.made))

    def _first_step(self) -> Step:
        """The best step of the route; raises when there is none."""
        now = self._loop.time()
        step = self._route.steps[0]
        # The first step of a healthy route needs no plan: making one costs 2 µs.
        if not step.gates and self._upstreams.health_of(step.attempt.deployment).clear(now, step.attempt.room):
            return step
        plan = self._planned(None)
        picked = plan.pick(now)
        if picked is None:
            raise plan.refusal(now)
        return picked

    def _planned(self, taken: Step | None) -> Plan:
        """The plan, made when it is first needed: without the step that was taken before."""
        if self._plan is None:
            upstreams, route = self._upstreams, self._route
            deadline = self._began + route.total
            size = size_of(self._chat)
            self._plan = Plan(route, upstreams.health_of, upstreams.counts, size, deadline, random.random)
            if taken is not None:
                self._plan.take(taken)
        return self._plan

    async def _wait(self, step: Step, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)  # the back-off before the same upstream
        except BaseException:
            # The client has gone: the retry that was counted will not be made.
            self._upstreams.health_of(step.attempt.deployment).retries -= 1
            raise

    async def _visited(self, step: Step, attempt: Attempt, *, retry: bool) -> Answer:
        """One attempt, with everything that counts it; the visit of an answer ends with `settle`."""
        health = self._upstreams.health_of(attempt.deployment)
        ticket = await self._entered(step, retry=retry) if step.gates and self._upstreams.shared is not None else None
        placed = health.full(attempt.room)
        if placed:
            try:
                await place_at(health, attempt.room)
            except BaseException:
                self._stay_out(health, ticket, retry=retry)
                raise
        visit = Visit(health, self._loop.time(), retry=retry, placed=placed)
        if step.gates:
            visit.pass_gates(step, self._upstreams.counts, size_of(self._chat), ticket)
        tries = self._tries
        tries.last, tries.why = attempt.name, step.why
        span = None if tries.trace is None else tries.trace.begin(attempt)
        chat = self._chat if span is None else span.carried(self._chat)
        deadline = self._began + min(self._route.total, attempt.stream_limits.total)
        try:
            if attempt.fetch_images or attempt.target.emulate:
                answer = await self._prepared(attempt, chat, deadline)
            else:
                answer = await exchange(attempt, chat, self._dialect, self._stamp, self._upstreams, deadline)
        except UpstreamError as error:
            self._note(step, attempt, visit, error, span)
            raise
        except BaseException as error:
            self._give_up(visit, error, span)
            raise
        tries.made.append(f"{attempt.name}=200")
        visit.answered()
        answer.visit = visit
        if span is not None:
            answer.span = span
            span.answered(answer.upstream_id)
        if self._route.measured:
            self._measure(visit)
        return answer

    async def _entered(self, step: Step, *, retry: bool) -> Ticket:
        """What the attempt takes of limits that several processes count together; raises AtLimit."""
        assert self._upstreams.shared is not None
        try:
            return await self._upstreams.shared.enter(step, size_of(self._chat), self._loop.time())
        except BaseException:
            self._stay_out(self._upstreams.health_of(step.attempt.deployment), None, retry=retry)
            raise

    def _stay_out(self, health: Health, ticket: Ticket | None, *, retry: bool) -> None:
        """The attempt will not be made."""
        health.retries -= retry
        if ticket is not None:
            ticket.settle(0, 0)

    def _give_up(self, visit: Visit, error: BaseException, span: Span | None) -> None:
        """An attempt ends that nobody waits for any more, or that this provider could not be asked for."""
        if self._route.measured and isinstance(error, asyncio.CancelledError):
            self._measure_at_least(visit)
        visit.leave(self._loop.time())
        if span is not None:
            span.fail(error)

    def _note(self, step: Step, attempt: Attempt, visit: Visit, error: Exception, span: Span | None = None) -> None:
        """Write a failed attempt down wherever it counts: a fault of our own is none of the upstream's."""
        now, tries = self._loop.time(), self._tries
        visit.leave(now)
        if not isinstance(error, UpstreamError):
            return
        if span is not None:
            span.fail(error)
        tries.last, tries.why = attempt.name, step.why
        tries.made.append(f"{attempt.name}={error.details.get('upstream_status') or error.code}")
        _account_for(error, attempt, visit.health, self._upstreams.news, now)
        self._planned(step).failed(step, error, now)

    async def _prepared(self, attempt: Attempt, chat: ChatRequest, deadline: float) -> Answer:
        """An attempt for which images are fetched, or which takes more than one call."""
        upstreams = self._upstreams
        if attempt.fetch_images:
            chat = await self._with_images(attempt, chat, deadline)
        count = wanted(attempt, chat) if attempt.target.emulate else 1
        if count > 1:
            return await fan_out(count, attempt, chat, self._dialect, self._stamp, upstreams, deadline)
        return await exchange(attempt, chat, self._dialect, self._stamp, upstreams, deadline)

    async def _with_images(self, attempt: Attempt, chat: ChatRequest, deadline: float) -> ChatRequest:
        """The request with its images fetched; those that an attempt before has fetched are not fetched again."""
        tries = self._tries
        if tries.fetched is None:
            tries.fetched = Fetched(tries.ledger)
        return await self._upstreams.images.inlined(chat, attempt.provider.own_urls, tries.fetched, deadline)

    def _measure(self, visit: Visit) -> None:
        now = self._loop.time()
        visit.health.pace(stream=self._chat.stream).saw(now, now - visit.began)

    def _measure_at_least(self, visit: Visit) -> None:
        """Nobody waited for the first event: that tells something only of an upstream that was slower than usual."""
        now = self._loop.time()
        if now - visit.began > visit.health.pace(stream=self._chat.stream).expected(now):
            self._measure(visit)

    async def _hedged(self, step: Step, hedge: Hedge) -> Answer:
        """The first good answer of one attempt, and of a second that is sent when the first shows nothing in time."""
        allowance = self._upstreams.counts.allowance(self._route.name)
        allowance.earn(hedge.budget)
        after = hedge.after or self._upstreams.health_of(step.attempt.deployment).pace(stream=self._chat.stream).p95()
        if after is None:
            return await self._visited(step, step.attempt, retry=False)
        runs = {asyncio.ensure_future(self._visited(step, step.attempt, retry=False)): step}
        try:
            await asyncio.wait(runs, timeout=after)
            if not any(run.done() for run in runs):
                self._begin_second(runs, self._planned(step))
            winner = await self._first(runs)
        except BaseException:
            await self._abandon(runs)
            raise
        step = runs.pop(winner)
        await self._abandon(runs)
        self._tries.last, self._tries.why = step.attempt.name, step.why
        return winner.result()

    def _begin_second(self, runs: dict[asyncio.Task[Answer], Step], plan: Plan) -> None:
        """Send the second attempt, if there is an upstream and an allowance for it."""
        step = plan.second(self._loop.time())
        if step is None:
            return
        if not self._upstreams.counts.allowance(self._route.name).spend():
            plan.again(step)
            return
        self._upstreams.health_of(step.attempt.deployment).retries += 1
        runs[asyncio.ensure_future(self._visited(step, step.attempt, retry=True))] = step

    async def _first(self, runs: Iterable[asyncio.Task[Answer]]) -> asyncio.Task[Answer]:
        """The run that answers first. One that fails leaves the race to the other, unless the request is at fault."""
        pending = set(runs)
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for run in done:
                error = run.exception()
                if error is None:
                    return run
                if isinstance(error, AtLimit) and pending:
                    continue
                if not pending or not isinstance(error, UpstreamError) or not may_repeat(error, self._route.retry):
                    raise error

    async def _abandon(self, runs: Mapping[asyncio.Task[Answer], Step]) -> None:
        """End the runs that nobody waits for any more, and give back what they hold."""
        for run, step in runs.items():
            if run.cancel():
                self._tries.made.append(f"{step.attempt.name}=cancelled")
        for outcome in await asyncio.gather(*runs, return_exceptions=True):
            if isinstance(outcome, Answer) and outcome.visit is not None:
                if outcome.pump is not None:
                    outcome.pump.stop()
                outcome.visit.leave(self._loop.time(), None)


def replaced(attempt: Attempt, without: frozenset[str]) -> Attempt:
    """The attempt, leaving out parameters that its provider has just refused."""
    return (
        replace(attempt, target=replace(attempt.target, without=attempt.target.without | without))
        if without
        else attempt
    )


def _account_for(error: UpstreamError, attempt: Attempt, health: Health, news: News, now: float) -> None:
    if error.cause == "429":
        if error.retry_after and not attempt.open:
            health.hold(now, error.retry_after)
    elif error.cause == "auth":
        news("error", "a provider refuses our credential", deployment=attempt.name, provider=attempt.account)
        health.rest(now, REST)
    elif error.cause != "request" and health.fail(now, attempt.rule, random.random()):
        news("warning", "breaker opened", deployment=attempt.deployment)


def _refused_param(error: UpstreamError, attempt: Attempt, chat: ChatRequest) -> str | None:
    """The parameter that the provider said it does not know, if it may be left out."""
    param = error.param
    if error.cause != "request" or error.code not in UNKNOWN_PARAM or not param or attempt.target.unsupported != "drop":
        return None
    return param if param in chat.names() and param not in {"model", "messages", "stream", "tools"} else None
