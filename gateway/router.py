"""Model name to attempts, best first, each with the reason why it stands where it does."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from gateway.config.pricing import tariff_of
from gateway.config.types import Config, Deployment, Retry, Routing
from gateway.config.types import Limits as Allowed
from gateway.contract import ChatRequest, Provider, Target
from gateway.errors import InvalidRequest, ModelNotFound
from gateway.health import BreakerRule, Room
from gateway.prices import Tariff, dearest
from gateway.purses import Owner
from gateway.quotas import Gate, Rates
from gateway.routes import Attempt, Branch, Choice, HealthOf, Route, Step, Walk, deployments_of, follow
from gateway.strategies import Chance
from gateway.timers import Limits

FIRST_BYTE_STREAM = 120.0
FIRST_BYTE_WHOLE = 600.0
PARALLEL = 1024
# What a request may cost when nobody has said so: attempts in all, and at one upstream.
ATTEMPTS = 3
AT_ONE = 2
# What a client may write where the operator wrote `*`: no dot segments, and of what needs encoding only `:@/#`.
WILD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/#-]{0,199}")


class Router:
    """The deployments, adapters and routings of one configuration, by name. `headers` are those that it chooses by."""

    def __init__(
        self,
        config: Config,
        providers: Mapping[str, Provider],
        abilities: Callable[[Provider, str], Mapping[str, Any]],
    ) -> None:
        self._retry = config.retry
        shared = config.state.store == "redis"
        # What all processes count together is nobody's share.
        self._workers = 1 if shared else config.server.workers
        self._attempts: dict[str, Attempt] = {}
        self._wild: list[tuple[str, Attempt]] = []
        self._tariff_of: dict[str, Callable[[str], Tariff | None]] = {}
        self._dearest: dict[str, Tariff | None] = {}
        for name, deployment in config.deployments.items():
            entry = config.providers[deployment.provider]
            provider = providers[entry.type]
            options = {**entry.options, "api_key": True} if entry.api_key else dict(entry.options)
            attempt = _attempt(name, deployment, provider, entry.base_url, options, abilities, self._workers)
            self._tariff_of[name] = partial(tariff_of, entry.type, deployment)
            attempt = replace(attempt, fetch_images=entry.fetch_images, tariff=tariff_of(entry.type, deployment))
            if shared:
                attempt = replace(attempt, gates=_gates("deployment", name, deployment.limits, 1, bounded=True))
            if name.endswith("*"):
                self._wild.append((name[:-1], replace(attempt, open=True)))
            else:
                self._attempts[name] = attempt
        for name, adapter in config.adapters.items():
            base = self._attempts.get(adapter.deployment) or dict(self._wild)[adapter.deployment[:-1]]
            target = replace(base.target, model=adapter.model) if adapter.model else base.target
            tariff = self._tariff_of[adapter.deployment]
            self._attempts[name] = replace(
                base,
                name=name,
                target=target,
                set=adapter.set,
                default=adapter.default,
                tariff=tariff(adapter.model),
            )
        self._wild.sort(key=lambda wild: len(wild[0]), reverse=True)
        self._routes = {name: _single(attempt) for name, attempt in self._attempts.items()}
        self._choices: dict[str, Choice] = {}
        for name in config.routings:
            self._choose(name, config.routings)
        for name, choice in self._choices.items():
            if choice.fixed and (route := self._walked(choice, Walk(None, None, random.random, 0.0))).steps:
                self._routes[name] = route
        self.names: Sequence[str] = (*config.deployments, *config.adapters, *config.routings)
        rules = {routing.sticky or "" for routing in config.routings.values()}
        self.headers: Sequence[str] = [rule[7:].lower() for rule in sorted(rules) if rule.startswith("header:")]

    def resolve(
        self,
        model: str,
        chance: Chance = random.random,
        chat: ChatRequest | None = None,
        health_of: HealthOf | None = None,
        now: float = 0.0,
    ) -> Route:
        """The route of a model name; raises ModelNotFound, and InvalidRequest when no target takes such a request.

        Without `chat` conditions hold and nothing sticks; without `health_of` all upstreams are idle.
        """
        if (route := self._routes.get(model)) is not None:
            return route
        if (choice := self._choices.get(model)) is not None:
            route = self._walked(choice, Walk(chat, health_of, chance, now))
            if not route.steps:
                raise _nobody(model, route)
            return route
        return _single(self._wildcard(model))

    def fixed(self, model: str) -> Route | None:
        """The route of a model name, if every request takes the same."""
        return self._routes.get(model)

    def knows(self, model: str) -> bool:
        """Would `resolve` find it?"""
        try:
            self.resolve(model)
        except ModelNotFound:
            return False
        return True

    def tariff(self, model: str) -> Tariff | None:
        """The dearest tariff of those that a name may lead to, of which nothing is known for some; None for none.

        Raises ModelNotFound.
        """
        if model in self._dearest:
            return self._dearest[model]
        if model not in self._attempts and model not in self._choices:
            return self._wildcard(model).tariff
        known = [attempt.tariff for attempt in self.behind(model) if attempt.tariff is not None]
        self._dearest[model] = found = dearest(known)
        return found

    def behind(self, name: str) -> Sequence[Attempt]:
        """The attempts that a listed name may lead to, in the order of the file; a wildcard's as it is written."""
        if (choice := self._choices.get(name)) is not None:
            return self._walked(choice, Walk(None, None, lambda: 0.0, 0.0)).attempts
        return (self._attempts.get(name) or dict(self._wild)[name[:-1]],)

    def attempts(self) -> Iterator[Attempt]:
        """Every attempt that some name leads to, wildcards as they are written."""
        yield from self._attempts.values()
        yield from (attempt for _, attempt in self._wild)

    def _wildcard(self, model: str) -> Attempt:
        for prefix, attempt in self._wild:
            if model.startswith(prefix) and (rest := model[len(prefix) :]):
                return replace(_wild(attempt, model, rest), tariff=self._tariff_of[attempt.name](rest))
        raise not_found(model)

    def _choose(self, name: str, routings: Mapping[str, Routing]) -> Choice:
        """The routing with its names resolved; configuration has no cycles."""
        if (choice := self._choices.get(name)) is not None:
            return choice
        routing = routings[name]
        shares = sum(target.weight for target in routing.targets) or 1.0
        targets = []
        for number, target in enumerate(routing.targets, 1):
            if (node := self._node(target.use, routings)) is not None:
                place = f"{number} of {len(routing.targets)}"
                if routing.strategy != "priority":
                    place = f"{target.weight / shares:.0%}"
                gates = _gates("target", f"{name} -> {target.use}", target.limits, self._workers, bounded=True)
                targets.append(Branch(node, target.use, place, target.weight, target.when, gates))
        fallback = [
            Branch(node, use, f"fallback {number}")
            for number, use in enumerate(routing.fallback, 1)
            if (node := self._node(use, routings)) is not None
        ]
        nodes = [branch.node for branch in (*targets, *fallback)]
        choice = self._choices[name] = Choice(
            name, routing, tuple(targets), tuple(fallback), deployments_of(nodes), _is_fixed(routing, nodes)
        )
        return choice

    def _node(self, use: str, routings: Mapping[str, Routing]) -> Attempt | Choice | None:
        """What a name stands for; None for one that no wildcard takes."""
        if use in routings:
            return self._choose(use, routings)
        if use in self._attempts:
            return self._attempts[use]
        try:
            # The file's own name for one model, so it has a health of its own.
            return replace(self._wildcard(use), deployment=use, open=False)
        except ModelNotFound:
            return None

    def _walked(self, choice: Choice, walk: Walk) -> Route:
        follow(choice, walk, (), "")
        routing = choice.routing
        steps = tuple(walk.found.values())
        retry = routing.retry or self._retry
        total = retry.timeouts.total if routing.retry else max((_total(step.attempt) for step in steps), default=0.0)
        most, at_one = _amounts(retry)
        measured = routing.hedge is not None or any(each == "lowest_latency" for each in self._strategies(walk.seen))
        return Route(
            steps,
            retry,
            most,
            at_one,
            total or float("inf"),
            choice.name,
            routing.hedge,
            routing.mirror,
            measured,
            walk.left_out,
        )

    def _strategies(self, names: set[str]) -> Iterator[str]:
        return (self._choices[name].routing.strategy for name in names)


def not_found(model: str) -> ModelNotFound:
    """The one answer for a model that is unknown and for one that the key may not use."""
    shown = model if len(model) <= 64 else model[:64] + "..."
    return ModelNotFound(f"The model '{shown}' does not exist or you do not have access to it.", param="model")


def _nobody(model: str, route: Route) -> ModelNotFound | InvalidRequest:
    if not route.left_out:
        return not_found(model)
    return InvalidRequest(f"No target of the model '{model}' takes such a request: {'; '.join(route.left_out)}.")


def _is_fixed(routing: Routing, nodes: Sequence[Attempt | Choice]) -> bool:
    """Is the order the same for every request?"""
    own = routing.strategy == "priority" and not routing.sticky and not any(target.when for target in routing.targets)
    return own and all(isinstance(node, Attempt) or node.fixed for node in nodes)


def _gates(
    kind: Literal["deployment", "target"], name: str, limits: Allowed, workers: int, *, bounded: bool
) -> tuple[Gate, ...]:
    """The gate of one entry's limits in one of so many processes; with `bounded` it also counts requests at once."""
    rates = Rates(limits.rpm, limits.tpm, limits.parallel if bounded else None).share(workers)
    budget = limits.budget
    owner = Owner(kind, name, budget.currency) if budget is not None else None
    return (Gate(name, rates, budget, owner),) if rates != Rates() or budget is not None else ()


def _total(attempt: Attempt) -> float:
    return attempt.stream_limits.total


def _amounts(retry: Retry) -> tuple[int, int]:
    """Attempts of a request in all, and at one upstream."""
    return (ATTEMPTS, AT_ONE) if retry.attempts is None else (retry.attempts, retry.attempts)


def _single(attempt: Attempt) -> Route:
    most, at_one = _amounts(attempt.retry)
    return Route((Step(attempt, attempt.gates),), attempt.retry, most, at_one, _total(attempt))


def _wild(attempt: Attempt, model: str, rest: str) -> Attempt:
    segments = rest.split("/")
    if not WILD.fullmatch(rest) or "" in segments or "." in segments or ".." in segments:
        raise not_found(model)
    target = replace(attempt.target, model=rest, family=rest)
    return replace(attempt, target=target)


def _attempt(
    name: str,
    deployment: Deployment,
    provider: Provider,
    base_url: str,
    options: Mapping[str, Any],
    abilities: Callable[[Provider, str], Mapping[str, Any]],
    workers: int,
) -> Attempt:
    family = deployment.base_model or deployment.model
    target = Target(
        provider=deployment.provider,
        model=deployment.model,
        base_url=base_url.rstrip("/"),
        family=family,
        options=options,
        abilities={**abilities(provider, family), **deployment.capabilities},
        unsupported=deployment.unsupported_params,
        emulate=frozenset(deployment.emulate),
    )
    timeouts = deployment.timeouts
    limits = Limits(
        connect=timeouts.connect,
        first_byte=timeouts.first_byte or FIRST_BYTE_STREAM,
        idle=timeouts.idle,
        total=timeouts.total or float("inf"),
        max_response=deployment.max_response,
        max_event=deployment.max_event,
        stale_retry=deployment.retry.stale,
    )
    whole = replace(limits, first_byte=timeouts.first_byte or FIRST_BYTE_WHOLE)
    breaker = deployment.breaker
    return Attempt(
        name,
        provider,
        deployment.provider,
        target,
        limits,
        whole,
        deployment.retry,
        echo=deployment.echo_model == "requested",
        deployment=name,
        room=_room(deployment, workers),
        rule=BreakerRule(breaker.failures, breaker.window, breaker.open, breaker.hard),
        gates=_gates("deployment", name, deployment.limits, workers, bounded=False),
    )


def _room(deployment: Deployment, workers: int) -> Room:
    parallel = deployment.limits.parallel
    most = max(1, parallel // workers) if parallel else PARALLEL
    return Room(most, deployment.queue.length, deployment.queue.wait)
