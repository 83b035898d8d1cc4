"""What becomes of LiteLLM's groups, strategies, fallbacks, aliases and retries."""

from __future__ import annotations

import pytest

from tests.gateway.cli.imports import entry, grade, imported


def test_a_group_is_a_routing_with_its_weights() -> None:
    models = [
        entry("gpt", "openai/gpt-4o", api_key="os.environ/A", rpm=60),
        entry("gpt", "azure/gpt-4o", api_base="https://a.test", api_key="os.environ/B", rpm=6),
    ]
    made = imported({"model_list": models})
    routing = made.values["routings"]["gpt"]
    assert routing["strategy"] == "weighted"
    assert [each["weight"] for each in routing["targets"]] == [60, 6]
    uses = [each["use"] for each in routing["targets"]]
    assert [made.values["deployments"][use]["limits"] for use in uses] == [{"rpm": 60}, {"rpm": 6}]
    models[0]["litellm_params"]["weight"] = 1
    targets = imported({"model_list": models}).values["routings"]["gpt"]["targets"]
    assert [each["weight"] for each in targets] == [1, 0]


def test_huge_weights_keep_their_ratio() -> None:
    models = [entry("m", "openai/a", tpm=30_000_000), entry("m", "openai/b", tpm=10_000_000)]
    targets = imported({"model_list": models}).values["routings"]["m"]["targets"]
    assert targets[0]["weight"] == pytest.approx(3 * targets[1]["weight"], rel=1e-5)


def test_orders_follow_one_another() -> None:
    models = [
        entry("m", "openai/second", order=2),
        entry("m", "openai/first-a", order=1),
        entry("m", "openai/first-b", order=1),
        entry("m", "openai/last"),
    ]
    made = imported({"model_list": models})
    routing = made.values["routings"]["m"]
    named = {name: each["model"] for name, each in made.values["deployments"].items()}
    assert [named[use] for use in routing["targets"]] == ["first-a", "first-b"]
    assert [named[use] for use in routing["fallback"]] == ["second", "last"]


@pytest.mark.parametrize(
    ("strategy", "ours", "how"),
    [
        ("simple-shuffle", "weighted", "exact"),
        ("least-busy", "least_busy", "exact"),
        ("latency-based-routing", "lowest_latency", "approximate"),
        ("usage-based-routing-v2", "weighted", "approximate"),
        ("cost-based-routing", "weighted", "unsupported"),
    ],
)
def test_strategies(strategy: str, ours: str, how: str) -> None:
    models = [entry("m", "openai/a"), entry("m", "openai/b")]
    made = imported({"model_list": models, "router_settings": {"routing_strategy": strategy}})
    assert made.values["routings"]["m"]["strategy"] == ours
    assert grade(made, "routing_strategy") == how


def test_a_group_with_parameters_keeps_them_apart() -> None:
    made = imported({"model_list": [entry("m", "openai/a", temperature=0), entry("m", "openai/b", temperature=1)]})
    targets = made.values["routings"]["m"]["targets"]
    assert [made.values["adapters"][name]["default"] for name in targets] == [{"temperature": 0}, {"temperature": 1}]


def test_fallbacks_and_aliases() -> None:
    source = {
        "model_list": [
            entry("a", "openai/a"),
            {**entry("b", "anthropic/b"), "model_info": {"id": "the-b"}},
            entry("c", "groq/c"),
        ],
        "litellm_settings": {"fallbacks": [{"a": ["c"]}], "num_retries": 1},
        "router_settings": {
            "fallbacks": [{"a": ["the-b", "a", "nobody"]}],
            "default_fallbacks": ["c"],
            "model_group_alias": {"alias": "a", "hidden": {"model": "b", "hidden": True}, "bad": "nobody"},
        },
    }
    made = imported(source)
    routings = made.values["routings"]
    assert routings["a"] == {"targets": ["a@openai"], "fallback": ["b@anthropic"]} | {"fallback": ["the-b"]}
    assert routings["b"]["fallback"] == ["c"]
    assert routings["alias"] == {"targets": ["a"]}
    assert routings["hidden"] == {"targets": ["b"]}
    assert made.values["retry"]["attempts"] == 3
    notes = {(row.field, row.grade) for row in made.rows}
    assert {("fallbacks.a", "manual"), ("router_settings.model_group_alias.bad", "manual")} <= notes
    assert ("router_settings.model_group_alias.hidden.hidden", "unsupported") in notes


def test_fallbacks_that_lead_back_end_somewhere() -> None:
    models = [entry("a", "openai/a"), entry("b", "openai/b1"), entry("b", "openai/b2"), entry("c", "openai/c")]
    fallbacks = [{"a": ["b"]}, {"b": ["c", "a"]}, {"c": ["a", "b"]}]
    made = imported({"model_list": models, "router_settings": {"fallbacks": fallbacks}})
    routings = made.values["routings"]
    assert all(len(routings[name]["fallback"]) == len(dict(each)[name]) for each in fallbacks for name in each)


def test_router_settings_become_the_files_retry() -> None:
    settings_ = {"timeout": 60, "allowed_fails": 3, "cooldown_time": 30, "retry_after": 2, "num_retries": 0}
    made = imported({"model_list": [entry("m", "openai/a")], "router_settings": settings_})
    assert made.values["retry"] == {
        "attempts": 1,
        "timeouts": {"first_byte": "60s", "idle": "60s"},
        "breaker": {"failures": 4, "window": "60s", "open": "30s"},
        "backoff": "2s",
    }
