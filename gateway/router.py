"""Model name to attempts, best first."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.config.types import Config, Deployment, Retry, Routing
from gateway.contract import Provider, Target
from gateway.errors import ModelNotFound
from gateway.timers import Limits

FIRST_BYTE_STREAM = 120.0
FIRST_BYTE_WHOLE = 600.0
# What a client may write where the operator wrote `*`: no dot segments, nothing that needs encoding but `:`, `@`, `/` and `#`.
WILD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/#-]{0,199}")

Chance = Callable[[], float]


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One way to serve a model: which deployment, at which provider, under which bounds.

    `set` and `default` are an adapter's parameters. `account` names the provider entry, with its connections and secret.
    `fetch_images`: images that the client names by URL are fetched for this provider.
    """

    name: str
    provider: Provider
    account: str
    target: Target
    stream_limits: Limits
    whole_limits: Limits
    retry: Retry
    echo: bool = False
    set: Mapping[str, Any] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)
    fetch_images: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """The attempts for one request, in order, and how they may be repeated."""

    attempts: Sequence[Attempt]
    retry: Retry


class Router:
    """The deployments, adapters and routings of one configuration, by name."""

    def __init__(
        self,
        config: Config,
        providers: Mapping[str, Provider],
        abilities: Callable[[Provider, str], Mapping[str, Any]],
    ) -> None:
        self._routings = config.routings
        self._retry = config.retry
        self._attempts: dict[str, Attempt] = {}
        self._wild: list[tuple[str, Attempt]] = []
        for name, deployment in config.deployments.items():
            entry = config.providers[deployment.provider]
            provider = providers[entry.type]
            options = {**entry.options, "api_key": True} if entry.api_key else dict(entry.options)
            attempt = _attempt(name, deployment, provider, entry.base_url, options, abilities)
            if entry.fetch_images:
                attempt = replace(attempt, fetch_images=True)
            if name.endswith("*"):
                self._wild.append((name[:-1], attempt))
            else:
                self._attempts[name] = attempt
        for name, adapter in config.adapters.items():
            base = self._attempts.get(adapter.deployment) or dict(self._wild)[adapter.deployment[:-1]]
            target = replace(base.target, model=adapter.model) if adapter.model else base.target
            self._attempts[name] = replace(base, name=name, target=target, set=adapter.set, default=adapter.default)
        self._routes = {name: Route((attempt,), attempt.retry) for name, attempt in self._attempts.items()}
        self._wild.sort(key=lambda wild: len(wild[0]), reverse=True)
        self.names: Sequence[str] = (*config.deployments, *config.adapters, *config.routings)

    def resolve(self, model: str, chance: Chance = random.random) -> Route:
        """The route of a model name; raises ModelNotFound."""
        if (route := self._routes.get(model)) is not None:
            return route
        if (routing := self._routings.get(model)) is not None:
            # By name and model: a wildcard's attempt is made anew each time that it is looked up.
            found = {(attempt.name, attempt.target.model): attempt for attempt in self._expand(model, chance)}
            if not found:
                raise not_found(model)
            return Route(tuple(found.values()), routing.retry or self._retry)
        for prefix, attempt in self._wild:
            if model.startswith(prefix) and (rest := model[len(prefix) :]):
                return Route((_wild(attempt, model, rest),), attempt.retry)
        raise not_found(model)

    def knows(self, model: str) -> bool:
        """Would `resolve` find it?"""
        try:
            self.resolve(model)
        except ModelNotFound:
            return False
        return True

    def behind(self, name: str) -> Sequence[Attempt]:
        """The attempts that a listed name may lead to, in the order of the file; a wildcard's as it is written."""
        if name in self._routings:
            return tuple(dict.fromkeys(self._expand(name, lambda: 0.0)))
        return (self._attempts.get(name) or dict(self._wild)[name[:-1]],)

    def attempts(self) -> Iterator[Attempt]:
        """Every attempt that some name leads to, wildcards as they are written."""
        yield from self._attempts.values()
        yield from (attempt for _, attempt in self._wild)

    def _expand(self, name: str, chance: Chance) -> Iterator[Attempt]:
        """The attempts behind a name, best first; configuration has no cycles."""
        routing = self._routings.get(name)
        if routing is None:
            yield self._attempts.get(name) or self.resolve(name).attempts[0]
            return
        for use in (*_ordered(routing, chance), *routing.fallback):
            yield from self._expand(use, chance)


def not_found(model: str) -> ModelNotFound:
    """The one answer for a model that is unknown and for one that the key may not use."""
    shown = model if len(model) <= 64 else model[:64] + "..."
    return ModelNotFound(f"The model '{shown}' does not exist or you do not have access to it.", param="model")


def _ordered(routing: Routing, chance: Chance) -> list[str]:
    """The names of a routing's targets in the order of its strategy."""
    if routing.strategy == "priority":
        return [target.use for target in routing.targets]
    left = [(target.use, target.weight) for target in routing.targets if target.weight > 0]
    order = []
    while left:
        point = chance() * sum(weight for _, weight in left)
        for index, (use, weight) in enumerate(left):
            point -= weight
            if point < 0 or index == len(left) - 1:
                order.append(use)
                del left[index]
                break
    return order


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
    return Attempt(
        name,
        provider,
        deployment.provider,
        target,
        limits,
        whole,
        deployment.retry,
        echo=deployment.echo_model == "requested",
    )
