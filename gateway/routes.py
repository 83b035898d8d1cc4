"""What a route is, and how a routing becomes one for a request: who takes it, in which order, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.config.types import Hedge, Mirror, Retry, Routing, When
from gateway.contract import ChatRequest, Provider, Target
from gateway.health import BreakerRule, Health, Room
from gateway.prices import Tariff
from gateway.quotas import Gate
from gateway.strategies import STRATEGIES, Chance, Option, rendezvous
from gateway.timers import Limits
from gateway.traits import has_images, has_tools, input_tokens, sticky_key

HealthOf = Callable[[str], Health]
ROOM = Room()
RULE = BreakerRule()


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """One way to serve a model: which deployment, at which provider, under which bounds.

    `set` and `default` are an adapter's parameters. `account` names the provider entry, its connections and its secret.
    `deployment` is whose health and limits count: an adapter shares those of its deployment, and so do all names that a
    client may write for a wildcard (`open`), which is why no 429 for one of them holds back the others.
    `fetch_images`: images that the client names by URL are fetched for this provider. `tariff`: what its tokens cost,
    None where nobody knows.
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
    deployment: str = ""
    open: bool = False
    room: Room = ROOM
    rule: BreakerRule = RULE
    gates: tuple[Gate, ...] = ()
    tariff: Tariff | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A place in a route: the attempt, the limits on the way to it, and why it stands there."""

    attempt: Attempt
    gates: tuple[Gate, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """The attempts for one request, in order, and how they may be repeated.

    `most` bounds the attempts of a request, `at_one` those at the same upstream, `total` all the seconds. `left_out`
    says which targets do not take such a request. `measured`: times to first events are worth keeping.
    """

    steps: Sequence[Step]
    retry: Retry
    most: int
    at_one: int
    total: float
    name: str = ""
    hedge: Hedge | None = None
    mirror: Mirror | None = None
    measured: bool = False
    left_out: Sequence[str] = ()

    @property
    def attempts(self) -> Sequence[Attempt]:
        """What stands in the steps."""
        return [step.attempt for step in self.steps]


@dataclass(frozen=True, slots=True)
class Branch:
    """A target or fallback of a routing, with what lies behind it."""

    node: Attempt | Choice
    use: str
    place: str
    weight: float = 1.0
    when: When | None = None
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A routing whose names are resolved. `deployments` are all those that it may lead to."""

    name: str
    routing: Routing
    targets: tuple[Branch, ...]
    fallback: tuple[Branch, ...]
    deployments: tuple[str, ...]
    fixed: bool


@dataclass(slots=True)
class Walk:
    """One way through the routings for one request."""

    chat: ChatRequest | None
    health_of: HealthOf | None
    chance: Chance
    now: float
    found: dict[tuple[str, str], Step] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def follow(choice: Choice, walk: Walk, gates: tuple[Gate, ...], way: str) -> None:
    """Add the attempts behind a routing, best first; what was found before keeps its place."""
    if choice.name in walk.seen:
        return
    walk.seen.add(choice.name)
    order, how = _ordered(choice, walk)
    places = [(branch, f"{how} {branch.place}") for branch in order]
    places += [(branch, branch.place) for branch in choice.fallback]
    for branch, place in places:
        why = f"{way}{choice.name}: {place}"
        if isinstance(branch.node, Choice):
            follow(branch.node, walk, gates + branch.gates, f"{why}, ")
            continue
        attempt = branch.node
        key = (attempt.name, attempt.target.model)
        if key not in walk.found:
            walk.found[key] = Step(attempt, gates + branch.gates + attempt.gates, why)


def _ordered(choice: Choice, walk: Walk) -> tuple[Sequence[Branch], str]:
    """The targets that take the request in the order of the strategy, and what that order is called."""
    routing = choice.routing
    targets = [branch for branch in choice.targets if _takes(branch, choice.name, walk)]
    key = sticky_key(routing.sticky, walk.chat) if routing.sticky and walk.chat is not None else None
    if key is not None:
        options = [Option(branch.use, branch.weight) for branch in targets]
        return [targets[index] for index in rendezvous(options, key)], f"sticky by {routing.sticky}"
    if routing.strategy == "priority":
        return targets, routing.strategy
    loaded = routing.strategy != "weighted" and walk.health_of is not None
    options = [_option(branch, walk) if loaded else Option(branch.use, branch.weight) for branch in targets]
    return [targets[index] for index in STRATEGIES[routing.strategy](options, walk.chance)], routing.strategy


def _option(branch: Branch, walk: Walk) -> Option:
    """A target with what is under way behind it, and how soon the first of it answers."""
    assert walk.health_of is not None
    stream = walk.chat is not None and walk.chat.stream
    behind = [walk.health_of(name) for name in deployments_of([branch.node])]
    paces = [pace for each in behind if (pace := each.pace(stream=stream).expected(walk.now))]
    return Option(branch.use, branch.weight, sum(each.active for each in behind), min(paces, default=0.0))


def _takes(branch: Branch, name: str, walk: Walk) -> bool:
    """Do the target's conditions hold for this request?"""
    when, chat = branch.when, walk.chat
    if when is None or chat is None:
        return True
    failed = _unmet(when, chat)
    if failed:
        walk.left_out.append(f"{name}: {branch.use} takes {failed}")
    return not failed


def _unmet(when: When, chat: ChatRequest) -> str:
    """The first condition that does not hold, in words."""
    if when.stream is not None and chat.stream is not when.stream:
        return "only streams" if when.stream else "no streams"
    if when.has_tools is not None and has_tools(chat) is not when.has_tools:
        return "only requests with tools" if when.has_tools else "no tools"
    if when.has_images is not None and has_images(chat) is not when.has_images:
        return "only requests with images" if when.has_images else "no images"
    if when.min_input is not None and input_tokens(chat) < when.min_input:
        return f"at least {when.min_input} tokens of input"
    if when.max_input is not None and input_tokens(chat) > when.max_input:
        return f"at most {when.max_input} tokens of input"
    return ""


def deployments_of(nodes: Sequence[Attempt | Choice]) -> tuple[str, ...]:
    """The deployments that the nodes lead to, each once."""
    names: dict[str, None] = {}
    for node in nodes:
        names.update(dict.fromkeys((node.deployment,) if isinstance(node, Attempt) else node.deployments))
    return tuple(names)
