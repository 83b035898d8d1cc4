"""gateway.router: model name to attempts, best first."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.types import Adapter, Deployment, Limits, Price, Retry, RouteTarget, Routing, Server, Timeouts, When
from gateway.errors import InvalidRequest, ModelNotFound
from gateway.health import Health
from gateway.purses import Budget, Owner
from gateway.quotas import Rates
from plugins.xai import PROVIDER as XAI
from tests.gateway.routing import DEPLOYMENTS, ONCE, TWICE, asked, order, router, use


def test_a_deployment_is_one_attempt_with_its_own_retry_rule() -> None:
    deployment = Deployment(provider="x", model="grok-4", retry=TWICE, echo_model="requested", emulate=("n",))
    route = router(deployments={"grok": deployment}).resolve("grok")
    (attempt,) = route.attempts
    assert route.retry == attempt.retry == TWICE
    assert (attempt.name, attempt.provider, attempt.account, attempt.echo) == ("grok", XAI, "x", True)
    target = attempt.target
    assert (target.provider, target.model, target.family, target.base_url) == (
        "x",
        "grok-4",
        "grok-4",
        "https://x.test",
    )
    assert target.emulate == {"n"}
    assert target.abilities == {"asked": "xai/grok-4", "tools": True}


def test_a_target_knows_that_there_is_a_key_but_not_which() -> None:
    (attempt,) = router(deployments={"g": Deployment(provider="x", model="m")}).resolve("g").attempts
    assert attempt.target.options == {"api_key": True}
    (attempt,) = router(deployments=DEPLOYMENTS).resolve("a").attempts
    assert attempt.target.options == {"organization": "o"}
    assert attempt.target.base_url == "https://oa.test/v1"


def test_abilities_follow_the_base_model_and_the_entry_goes_over_them() -> None:
    deployment = Deployment(provider="oa", model="ft:1", base_model="gpt-4o", capabilities={"tools": False})
    target = router(deployments={"ft": deployment}).resolve("ft").attempts[0].target
    assert (target.model, target.family) == ("ft:1", "gpt-4o")
    assert target.abilities == {"asked": "openai/gpt-4o", "tools": False}


def test_streams_and_whole_answers_have_their_own_first_byte() -> None:
    attempt = router(deployments=DEPLOYMENTS).resolve("a").attempts[0]
    assert (attempt.stream_limits.first_byte, attempt.whole_limits.first_byte) == (120.0, 600.0)
    timeouts = Timeouts(first_byte=7.0, total=0.0, connect=1.0, idle=2.0)
    deployment = Deployment(provider="oa", model="m", timeouts=timeouts, retry=Retry(stale=False), max_event=5)
    attempt = router(deployments={"m": deployment}).resolve("m").attempts[0]
    for limits in (attempt.stream_limits, attempt.whole_limits):
        assert (limits.first_byte, limits.connect, limits.idle) == (7.0, 1.0, 2.0)
        assert (limits.total, limits.stale_retry, limits.max_event) == (float("inf"), False, 5)


def test_an_adapter_is_its_deployment_under_another_name() -> None:
    adapters = {
        "calm": Adapter(deployment="a", set={"temperature": 0}, default={"top_p": 1}),
        "tuned": Adapter(deployment="a", model="ft:a"),
        "wild": Adapter(deployment="oa/*", model="gpt-5"),
    }
    wild = {"oa/*": Deployment(provider="oa", model="*")}
    routes = router(deployments={**DEPLOYMENTS, **wild}, adapters=adapters)
    calm, tuned = routes.resolve("calm").attempts[0], routes.resolve("tuned").attempts[0]
    assert (calm.name, calm.target.model, calm.set, calm.default) == (
        "calm",
        "real-a",
        {"temperature": 0},
        {"top_p": 1},
    )
    assert (tuned.name, tuned.target.model, tuned.target.family, tuned.set) == ("tuned", "ft:a", "real-a", {})
    assert routes.resolve("wild").attempts[0].target.model == "gpt-5"


def test_priority_keeps_the_order_of_the_file_and_ends_with_the_fallback() -> None:
    routing = Routing(targets=use(b=0, a=5), fallback=("c",), retry=TWICE)
    routes = router(deployments=DEPLOYMENTS, routings={"r": routing, "plain": Routing(targets=use(a=1))}, retry=ONCE)
    assert order(routes, "r") == ["b", "a", "c"]
    assert routes.resolve("r").retry == TWICE
    assert routes.resolve("plain").retry == ONCE


def test_weighted_takes_each_target_as_often_as_its_weight_says() -> None:
    routing = Routing(strategy="weighted", targets=use(a=6, b=3, c=1, d=0), fallback=("d",))
    routes = router(deployments=DEPLOYMENTS, routings={"r": routing})
    first = Counter(order(routes, "r", (point + 0.5) / 1000)[0] for point in range(1000))
    assert first == {"a": 600, "b": 300, "c": 100}


def test_weighted_draws_again_for_each_further_place() -> None:
    routing = Routing(strategy="weighted", targets=use(a=2, b=1, c=1))
    routes = router(deployments=DEPLOYMENTS, routings={"r": routing})

    def drawn(*points: float) -> list[str]:
        chance = iter(points)
        return [attempt.name for attempt in routes.resolve("r", lambda: next(chance)).attempts]

    assert drawn(0.0, 0.0, 0.0) == ["a", "b", "c"]
    assert drawn(0.5, 0.9, 0.0) == ["b", "c", "a"]
    assert drawn(0.99, 0.5, 0.9) == ["c", "a", "b"]


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=4),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4),
)
def test_weighted_never_loses_or_repeats_a_target(weights: list[float], points: list[float]) -> None:
    named = dict(zip("abcd", weights, strict=False))
    routes = router(
        deployments=DEPLOYMENTS, routings={"r": Routing(strategy="weighted", targets=use(**named), fallback=("a",))}
    )
    chance = itertools.cycle(points)
    names = [attempt.name for attempt in routes.resolve("r", lambda: next(chance)).attempts]
    assert sorted(names) == sorted({name for name, weight in named.items() if weight} | {"a"})


def test_a_routing_may_lead_to_routings_and_names_nothing_twice() -> None:
    routings = {
        "inner": Routing(targets=use(b=1, c=1), fallback=("d",)),
        "outer": Routing(targets=use(a=1, inner=1), fallback=("c", "last")),
        "last": Routing(targets=use(b=1)),
    }
    assert order(router(deployments=DEPLOYMENTS, routings=routings), "outer") == ["a", "b", "c", "d"]


def test_a_routing_with_nothing_to_choose_from_is_an_unknown_model() -> None:
    routing = Routing(strategy="weighted", targets=use(a=0, b=0))
    routes = router(deployments=DEPLOYMENTS, routings={"r": routing})
    with pytest.raises(ModelNotFound):
        routes.resolve("r")


def test_a_route_that_never_varies_is_made_once() -> None:
    routes = router(deployments=DEPLOYMENTS, routings={"r": Routing(targets=use(a=1, b=1), fallback=("c",))})
    assert routes.resolve("r") is routes.resolve("r", chat=asked(user="u"))


def test_each_step_says_why_it_stands_there() -> None:
    routings = {
        "inner": Routing(strategy="weighted", targets=use(b=3, c=1)),
        "r": Routing(targets=use(a=1, inner=1), fallback=("d",)),
    }
    route = router(deployments=DEPLOYMENTS, routings=routings).resolve("r", lambda: 0.0)
    assert [step.why for step in route.steps] == [
        "r: priority 1 of 2",
        "r: priority 2 of 2, inner: weighted 75%",
        "r: priority 2 of 2, inner: weighted 25%",
        "r: fallback 1",
    ]


def test_conditions_choose_among_targets_and_leave_fallbacks_alone() -> None:
    targets = (
        RouteTarget(use="a", when=When(has_tools=True)),
        RouteTarget(use="b", when=When(stream=True, max_input=1000)),
        RouteTarget(use="c", when=When(has_images=False, min_input=1000)),
    )
    routes = router(deployments=DEPLOYMENTS, routings={"r": Routing(targets=targets, fallback=("d",))})

    def taken(**body: Any) -> list[str]:
        return [attempt.name for attempt in routes.resolve("r", chat=asked(**body)).attempts]

    assert taken() == ["d"]
    assert taken(tools=[{"type": "function"}]) == ["a", "d"]
    assert taken(stream=True) == ["b", "d"]
    assert taken(stream=True, user="u" * 4000) == ["c", "d"]
    assert routes.resolve("r", chat=asked()).left_out == [
        "r: a takes only requests with tools",
        "r: b takes only streams",
        "r: c takes at least 1000 tokens of input",
    ]


def test_a_request_that_no_target_takes_is_at_fault_itself() -> None:
    routing = Routing(targets=(RouteTarget(use="a", when=When(has_images=True)),))
    routes = router(deployments=DEPLOYMENTS, routings={"r": routing})
    with pytest.raises(InvalidRequest, match="a takes only requests with images"):
        routes.resolve("r", chat=asked())
    assert routes.knows("r")


def test_the_same_user_goes_the_same_way() -> None:
    routing = Routing(strategy="weighted", sticky="user", targets=use(a=1, b=1, c=1), fallback=("d",))
    routes = router(deployments=DEPLOYMENTS, routings={"r": routing})
    chance = itertools.cycle((0.1, 0.9, 0.5, 0.3))

    def way(user: str | None) -> tuple[str, ...]:
        return tuple(attempt.name for attempt in routes.resolve("r", lambda: next(chance), asked(user=user)).attempts)

    users = [f"u{number}" for number in range(60)]
    assert all(way(user) == way(user) for user in users)
    assert {way(user)[0] for user in users} == {"a", "b", "c"}
    assert all(way(user)[-1] == "d" for user in users)
    assert len({way(None) for _ in range(9)}) > 1
    assert routes.resolve("r", lambda: 0.0, asked(user="u1")).steps[0].why.startswith("r: sticky by user")


def test_the_least_busy_target_is_first_whatever_it_leads_to() -> None:
    routings = {
        "pair": Routing(targets=use(b=1, c=1)),
        "r": Routing(strategy="least_busy", targets=use(a=1, pair=1)),
    }
    routes = router(deployments=DEPLOYMENTS, routings=routings)
    health = {name: Health() for name in "abcd"}
    health["a"].active, health["b"].active = 2, 1
    assert [each.name for each in routes.resolve("r", health_of=health.__getitem__).attempts] == ["b", "c", "a"]
    health["c"].active = 3
    assert routes.resolve("r", health_of=health.__getitem__).attempts[0].name == "a"


def test_the_faster_upstream_is_first_and_its_pace_is_kept() -> None:
    routing = Routing(strategy="lowest_latency", targets=use(a=1, b=1))
    routes = router(deployments=DEPLOYMENTS, routings={"r": routing})
    health = {name: Health() for name in "ab"}
    health["a"].pace(stream=False).saw(0, 2.0)
    health["b"].pace(stream=False).saw(0, 0.2)
    route = routes.resolve("r", chat=asked(), health_of=health.__getitem__, now=1)
    assert route.attempts[0].name == "b"
    assert route.measured


def test_limits_on_the_way_are_gates_of_the_step() -> None:
    deployments = {**DEPLOYMENTS, "a": Deployment(provider="oa", model="m", limits=Limits(rpm=9, parallel=7))}
    routings = {
        "inner": Routing(targets=(RouteTarget(use="a", limits=Limits(parallel=2)),)),
        "r": Routing(targets=(RouteTarget(use="inner", limits=Limits(tpm=5)),)),
    }
    routes = router(deployments=deployments, routings=routings)
    (step,) = routes.resolve("r").steps
    assert [(gate.name, gate.rates) for gate in step.gates] == [
        ("r -> inner", Rates(tpm=5)),
        ("inner -> a", Rates(parallel=2)),
        ("a", Rates(rpm=9)),
    ]
    assert (step.attempt.room.parallel, routes.resolve("b").attempts[0].room.parallel) == (7, 1024)


def test_an_adapter_counts_as_its_deployment() -> None:
    routes = router(deployments=DEPLOYMENTS, adapters={"tuned": Adapter(deployment="a")})
    assert routes.resolve("tuned").attempts[0].deployment == "a"


def test_clients_names_of_a_wildcard_count_as_one_but_the_files_own_for_itself() -> None:
    wild = {"oa/*": Deployment(provider="oa", model="*")}
    routes = router(deployments=wild, routings={"r": Routing(targets=use(**{"oa/one": 1}))})
    assert [(each.deployment, each.open) for each in routes.resolve("oa/two").attempts] == [("oa/*", True)]
    assert [(each.deployment, each.open) for each in routes.resolve("r").attempts] == [("oa/one", False)]


def test_attempts_are_three_with_two_at_one_upstream_unless_somebody_says_so() -> None:
    routes = router(deployments={**DEPLOYMENTS, "e": Deployment(provider="oa", model="m", retry=Retry(attempts=5))})
    assert (routes.resolve("a").most, routes.resolve("a").at_one) == (3, 2)
    assert (routes.resolve("e").most, routes.resolve("e").at_one) == (5, 5)


def test_all_the_time_is_the_routings_or_else_the_longest_of_its_deployments() -> None:
    deployments = {
        name: Deployment(provider="oa", model="m", timeouts=Timeouts(total=total))
        for name, total in (("a", 5.0), ("b", 50.0), ("c", 0.0))
    }
    routings = {
        "r": Routing(targets=use(a=1, b=1)),
        "short": Routing(targets=use(a=1, b=1), retry=Retry(timeouts=Timeouts(total=9.0))),
        "endless": Routing(targets=use(a=1, c=1)),
    }
    routes = router(deployments=deployments, routings=routings)
    assert [routes.resolve(name).total for name in ("a", "r", "short", "endless")] == [5, 50, 9, float("inf")]


def test_the_headers_that_routings_choose_by_are_known() -> None:
    routings = {
        "r": Routing(sticky="header:X-Session", targets=use(a=1)),
        "s": Routing(sticky="prefix", targets=use(a=1)),
        "t": Routing(targets=use(a=1)),
    }
    assert router(deployments=DEPLOYMENTS, routings=routings).headers == ["x-session"]


def test_each_of_several_workers_grants_its_share_of_a_targets_limits() -> None:
    limits = Limits(rpm=8, parallel=6)
    config = {
        "deployments": {"a": Deployment(provider="oa", model="m", limits=limits)},
        "routings": {"r": Routing(targets=(RouteTarget(use="a", limits=limits),))},
    }
    (step,) = router(**config, server=Server(workers=4)).resolve("r").steps
    assert [gate.rates for gate in step.gates] == [Rates(2, None, 1), Rates(2)]
    assert step.attempt.room.parallel == 1


def test_a_name_is_priced_by_the_dearest_of_what_it_may_lead_to() -> None:
    deployments = {
        "mini": Deployment(provider="oa", model="gpt-4o-mini"),
        "large": Deployment(provider="oa", model="gpt-4o"),
        "odd": Deployment(provider="oa", model="mine"),
        "own": Deployment(provider="oa", model="mine", price=Price(input=7, output=7)),
        "oa/*": Deployment(provider="oa", model="*"),
    }
    routes = router(
        deployments=deployments,
        adapters={"tuned": Adapter(deployment="mini", model="gpt-4o"), "lora": Adapter(deployment="mini", model="x")},
        routings={"r": Routing(targets=use(mini=1, odd=1), fallback=("large",)), "none": Routing(targets=use(odd=1))},
    )
    priced = {
        name: tariff.input if (tariff := routes.tariff(name)) else None for name in routes.names if name != "oa/*"
    }
    large, mini = 2.5, 0.15
    assert priced == {
        "mini": mini,
        "large": large,
        "odd": None,
        "own": 7,
        "tuned": large,
        "lora": mini,
        "r": large,
        "none": None,
    }
    assert routes.tariff("oa/gpt-4o") == routes.tariff("large")
    assert routes.tariff("oa/unheard-of") is None
    assert routes.resolve("oa/gpt-4o").attempts[0].tariff == routes.tariff("large")
    with pytest.raises(ModelNotFound):
        routes.tariff("nobody")


def test_a_budget_is_a_gate_with_an_owner() -> None:
    day, month = Budget(1, "USD", "day"), Budget(2, "USD", "month")
    deployments = {"a": Deployment(provider="oa", model="gpt-4o", limits=Limits(budget=month))}
    routings = {"r": Routing(targets=(RouteTarget(use="a", limits=Limits(budget=day)),))}
    (step,) = router(deployments=deployments, routings=routings).resolve("r").steps
    assert [(gate.budget, gate.owner) for gate in step.gates] == [
        (day, Owner("target", "r -> a", "USD")),
        (month, Owner("deployment", "a", "USD")),
    ]
