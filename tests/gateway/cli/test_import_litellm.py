"""A LiteLLM configuration becomes a file that `check` takes, no field is lost, and no secret is written down."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from livegateway import command, free_port, process

from gateway.cli.litellm.convert import Imported, convert
from gateway.cli.litellm.known import GENERAL, LIBRARY, ROUTER, SECTIONS
from gateway.cli.litellm.vendors import FOREIGN, VENDORS
from gateway.cli.litellm.verify import errors
from gateway.cli.yamltext import document
from gateway.config.loader import load
from gateway.config.plugins import BUILT_IN, Registry

REGISTRY = Registry()
# What a variable holds, where not any text will do.
VALUES = {"AWS_REGION_NAME": "eu-west-1", "REDIS_URL": "redis://127.0.0.1", "VERTEXAI_PROJECT": "project"}


def imported(source: Mapping[str, Any], **environ: str) -> Imported:
    """What comes of a source; it is checked as `sluiceway check` would."""
    made = convert(source, environ)
    names = dict.fromkeys(made.variables, "a-value") | VALUES | environ
    names |= {name: "https://upstream.test" for name in made.variables if name.endswith("_BASE")}
    loaded = load("gateway.yaml", names, REGISTRY, text=document(made.values))
    assert [str(each) for each in loaded.findings if each.level == "error"] == []
    return made


def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def one(model: str, **params: Any) -> Imported:
    """What comes of a single deployment `m`."""
    return imported({"model_list": [entry("m", model, **params)]})


def provider(made: Imported, name: str = "m") -> Any:
    """The provider entry behind a deployment."""
    return made.values["providers"][made.values["deployments"][name]["provider"]]


def grade(made: Imported, field: str) -> str:
    (row,) = (row for row in made.rows if row.field.endswith(field))
    return row.grade


def env(name: str) -> dict[str, str]:
    return {"env": name}


@pytest.mark.parametrize(
    ("model", "params", "expected", "own"),
    [
        ("openai/gpt-4o", {}, {"type": "openai", "api_key": env("OPENAI_API_KEY")}, "gpt-4o"),
        ("gpt-4o-mini", {"api_key": "os.environ/K"}, {"type": "openai", "api_key": env("K")}, "gpt-4o-mini"),
        ("claude-sonnet-4-5", {}, {"type": "anthropic", "api_key": env("ANTHROPIC_API_KEY")}, "claude-sonnet-4-5"),
        ("gemini/gemini-2.5-flash", {}, {"type": "google", "api_key": env("GEMINI_API_KEY")}, "gemini-2.5-flash"),
        (
            "azure/eu-prod",
            {"api_base": "https://acme.openai.azure.com/", "api_key": "os.environ/K", "api_version": "2024-10-21"},
            {
                "type": "azure",
                "base_url": "https://acme.openai.azure.com/",
                "api_key": env("K"),
                "api_version": "2024-10-21",
            },
            "eu-prod",
        ),
        (
            "azure/eu-prod",
            {"api_base": "os.environ/AZURE_BASE", "tenant_id": "t", "client_id": "c", "client_secret": "os.environ/S"},
            {
                "type": "azure",
                "base_url": env("AZURE_BASE"),
                "entra": {"tenant_id": "t", "client_id": "c", "client_secret": env("S")},
            },
            "eu-prod",
        ),
        (
            "bedrock/converse/us-west-2/anthropic.claude-3-haiku-20240307-v1:0",
            {"aws_access_key_id": "os.environ/A", "aws_secret_access_key": "os.environ/B"},
            {"type": "bedrock", "access_key_id": env("A"), "secret_access_key": env("B"), "region": "us-west-2"},
            "anthropic.claude-3-haiku-20240307-v1:0",
        ),
        (
            "bedrock/amazon.nova-pro-v1:0",
            {"aws_region_name": "os.environ/AWS_REGION_NAME"},
            {"type": "bedrock", "region": env("AWS_REGION_NAME")},
            "amazon.nova-pro-v1:0",
        ),
        (
            "vertex_ai/gemini-2.5-pro",
            {"vertex_project": "acme-prod", "vertex_location": "europe-west4", "vertex_credentials": "/etc/sa.json"},
            {"type": "google", "project": "acme-prod", "location": "europe-west4", "credentials": "/etc/sa.json"},
            "gemini-2.5-pro",
        ),
        ("together_ai/meta-llama/L", {}, {"type": "together", "api_key": env("TOGETHERAI_API_KEY")}, "meta-llama/L"),
        (
            "fireworks_ai/deepseek-v3",
            {},
            {"type": "fireworks", "api_key": env("FIREWORKS_AI_API_KEY")},
            "accounts/fireworks/models/deepseek-v3",
        ),
        ("openai/a", {"api_key": "${KEY}"}, {"type": "openai", "api_key": env("KEY")}, "a"),
        ("xai/grok-4", {}, {"type": "xai", "api_key": env("XAI_API_KEY")}, "grok-4"),
        (
            "groq/llama-3",
            {"api_key": "os.environ/G"},
            {"type": "openai", "base_url": "https://api.groq.com/openai/v1", "api_key": env("G")},
            "llama-3",
        ),
        (
            "hosted_vllm/facebook/opt",
            {"api_base": "http://127.0.0.1:8000/v1", "api_key": "none"},
            {"type": "openai", "base_url": "http://127.0.0.1:8000/v1"},
            "facebook/opt",
        ),
        ("ollama_chat/mistral", {}, {"type": "openai", "base_url": "http://localhost:11434/v1"}, "mistral"),
        (
            "somebody/model",
            {"api_base": "https://somebody.test/v1/chat/completions", "api_key": "os.environ/S"},
            {"type": "openai", "base_url": "https://somebody.test/v1", "api_key": env("S")},
            "somebody/model",
        ),
        (
            "model-x",
            {"custom_llm_provider": "deepseek"},
            {"type": "openai", "base_url": "https://api.deepseek.com/v1", "api_key": env("DEEPSEEK_API_KEY")},
            "model-x",
        ),
    ],
)
def test_a_model_leads_to_its_provider(model: str, params: Any, expected: Any, own: str) -> None:
    made = one(model, **params)
    assert provider(made) == expected
    assert made.values["deployments"]["m"]["model"] == own


@pytest.mark.parametrize("prefix", sorted(VENDORS))
def test_every_known_prefix_gives_a_file_that_is_taken(prefix: str) -> None:
    made = one(f"{prefix}/amazon.some-model-v1:0" if prefix == "bedrock" else f"{prefix}/some-model")
    assert provider(made)["type"] in BUILT_IN


def test_nothing_that_needs_an_address_goes_to_openai_without_one() -> None:
    for prefix in ("hosted_vllm", "lm_studio", "custom_openai", "litellm_proxy"):
        assert provider(one(f"{prefix}/model"))["base_url"]["env"].endswith("_API_BASE")


@pytest.mark.parametrize(
    ("model", "params", "why"),
    [
        *((f"{prefix}/some-model", {"api_base": "https://x.test"}, "dialect of its own") for prefix in sorted(FOREIGN)),
        ("openai/text-embedding-3-small", {}, "no chat"),
        ("openai/whisper-1", {}, "no chat"),
        ("vertex_ai/claude-sonnet-4", {}, "Google's own"),
        ("bedrock/agent/ABC/DEF", {}, "chat models"),
        ("nobody-knows-this", {}, "no provider that is known"),
        ("openai/gpt-*", {}, "wildcard"),
        ("azure/no such deployment", {"api_base": "https://x.test"}, "no deployment name"),
        ("openai/gpt", {"api_base": "https://user:hunter2@x.test"}, "credentials"),
        ("bedrock/amazon.nova-pro-v1:0", {"aws_region_name": "nowhere"}, "region"),
    ],
)
def test_what_cannot_be_served_is_left_out_with_a_reason(model: str, params: Any, why: str) -> None:
    made = imported({"model_list": [entry("m", model, **params), entry("good", "openai/gpt-4o")]})
    assert list(made.values["deployments"]) == ["good"]
    about = [row for row in made.rows if row.field.startswith("model_list[0]")]
    assert {row.grade for row in about} == {"unsupported"}
    assert any(why in row.note for row in about)
    assert "hunter2" not in str(made)


def test_a_mode_that_is_not_chat_is_left_out() -> None:
    source = {"model_list": [{**entry("m", "openai/x"), "model_info": {"mode": "embedding"}}]}
    made = imported({"model_list": [*source["model_list"], entry("good", "openai/gpt-4o")]})
    assert list(made.values["deployments"]) == ["good"]


def test_deployments_of_one_account_share_its_entry_and_others_get_their_own() -> None:
    models = [
        entry("a", "openai/a", api_key="os.environ/K"),
        entry("b", "openai/b", api_key="os.environ/K"),
        entry("c", "openai/c", api_key="os.environ/OTHER"),
    ]
    made = imported({"model_list": models})
    assert [each["provider"] for each in made.values["deployments"].values()] == ["openai", "openai", "openai-2"]


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


def test_parameters_become_defaults_of_an_adapter_and_extra_body_is_set() -> None:
    made = one("openai/gpt-4o", temperature=0.2, max_tokens=50, extra_body={"top_k": 5})
    assert made.values["adapters"]["m"] == {
        "deployment": "m@openai",
        "set": {"top_k": 5},
        "default": {"temperature": 0.2, "max_tokens": 50},
    }
    assert list(made.values["deployments"]) == ["m@openai"]


def test_a_group_with_parameters_keeps_them_apart() -> None:
    made = imported({"model_list": [entry("m", "openai/a", temperature=0), entry("m", "openai/b", temperature=1)]})
    targets = made.values["routings"]["m"]["targets"]
    assert [made.values["adapters"][name]["default"] for name in targets] == [{"temperature": 0}, {"temperature": 1}]


def test_timers_retries_and_the_rest_of_a_deployment() -> None:
    params = {"timeout": 30, "stream_timeout": 7.5, "max_retries": 1, "max_parallel_requests": 9, "cooldown_time": 5}
    source = {
        **entry("m", "azure/x", api_base="https://a.test", **params),
        "model_info": {"base_model": "azure/gpt-4o"},
    }
    made = imported({"model_list": [source]})
    assert made.values["deployments"]["m"] == {
        "provider": "azure",
        "model": "x",
        "limits": {"parallel": 9},
        "timeouts": {"first_byte": "30s", "idle": "7.5s"},
        "retry": {"attempts": 2},
        "breaker": {"open": "5s"},
        "base_model": "gpt-4o",
    }


def test_prices_are_per_million_tokens() -> None:
    made = one("openai/gpt-4o", input_cost_per_token=0.0000025, output_cost_per_token=1e-5)
    if grade(made, "input_cost_per_token") == "exact":
        assert made.values["deployments"]["m"]["price"] == {"input": 2.5, "output": 10.0}
    else:
        assert "price" not in made.values["deployments"]["m"]
    assert grade(one("openai/gpt-4o", input_cost_per_token=1e-6), "input_cost_per_token") == "unsupported"


def test_dropping_is_said_only_where_it_is_forbidden() -> None:
    assert "unsupported_params" not in one("openai/a", drop_params=True).values["deployments"]["m"]
    strict = imported({"model_list": [entry("m", "openai/a")], "litellm_settings": {"drop_params": False}})
    assert strict.values["deployments"]["m"]["unsupported_params"] == "reject"


def test_organizations_and_headers() -> None:
    made = one(
        "openai/a", organization="org-1", extra_headers={"X-Team": "search", "X-Api-Key": "hunter2", "Host": "h"}
    )
    assert provider(made)["headers"] == {
        "openai-organization": "org-1",
        "X-Team": "search",
        "X-Api-Key": env("OPENAI_X_API_KEY"),
    }
    assert grade(made, "extra_headers.Host") == "unsupported"
    several = one("openai/a", organization=["org-1", "org-2"])
    assert len(several.values["routings"]["m"]["targets"]) == 2


def test_named_credentials_are_filled_in() -> None:
    values = {"api_key": "os.environ/AZ", "api_base": "https://a.test", "api_version": "2024-10-21"}
    source = {
        "model_list": [entry("m", "azure/x", litellm_credential_name="eu")],
        "credential_list": [{"credential_name": "eu", "credential_values": values, "credential_info": {}}],
    }
    made = imported(source)
    assert provider(made) == {
        "type": "azure",
        "base_url": "https://a.test",
        "api_key": env("AZ"),
        "api_version": "2024-10-21",
    }
    assert grade(made, "litellm_credential_name") == "exact"


def test_wildcards() -> None:
    models = [
        entry("anthropic/*", "anthropic/*"),
        entry("*", "openai/*", api_key="os.environ/K"),
        entry("claude-*", "anthropic/claude-*"),
        entry("anthropic/*", "anthropic/*", api_key="os.environ/SECOND"),
    ]
    made = imported({"model_list": models})
    assert {name: each["model"] for name, each in made.values["deployments"].items()} == {"anthropic/*": "*", "*": "*"}
    assert grade(made, "model_list[2].model_name") == "unsupported"
    assert grade(made, "model_list[3].model_name") == "unsupported"


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


def test_a_master_key_stays_valid_and_is_not_written_down() -> None:
    source = {"model_list": [entry("m", "openai/a", temperature=0)], "general_settings": {"master_key": "sk-1234"}}
    made = imported(source)
    digest = "sha256:88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"
    assert made.values["keys"]["master"] == {"hash": digest, "models": ["m"]}
    assert "sk-1234" not in document(made.values)
    source["general_settings"]["master_key"] = "os.environ/MASTER"
    assert imported(source, MASTER="sk-1234").values["keys"] == made.values["keys"]
    unset = imported(source)
    assert "keys" not in unset.values
    assert grade(unset, "master_key") == "manual"


def test_redis_is_one_address_in_the_environment() -> None:
    source = {
        "model_list": [entry("m", "openai/a")],
        "router_settings": {"redis_host": "r.test", "redis_port": 6379, "redis_password": "hunter2"},
    }
    made = imported(source)
    assert "hunter2" not in str(made)
    if "state" in made.values:
        assert made.values["state"] == {"store": "redis", "url": env("REDIS_URL")}
        assert grade(made, "redis_password") == "manual"


def test_the_same_secret_gets_one_name_and_none_that_the_source_uses_otherwise() -> None:
    models = [
        entry("a", "openai/a", api_key="sk-first"),
        entry("b", "openai/b", api_key="sk-first"),
        entry("c", "openai/c", api_key="sk-other"),
        entry("d", "openai/d"),
        entry("e", "groq/e", api_key="os.environ/OPENAI_API_KEY_2"),
    ]
    made = imported({"model_list": models})
    keys = [each["api_key"]["env"] for each in made.values["providers"].values()]
    assert len(keys) == len(set(keys))
    assert provider(made, "a") == provider(made, "b")
    assert provider(made, "d")["api_key"] == env("OPENAI_API_KEY")
    assert provider(made, "e")["api_key"] == env("OPENAI_API_KEY_2")
    assert not re.search(r"sk-(first|other)", str(made))


def test_numbers_from_the_environment_are_looked_up_and_missed_ones_reported() -> None:
    source = {"model_list": [entry("m", "openai/a", rpm="os.environ/RPM")], "environment_variables": {"RPM": "7"}}
    assert imported(source).values["deployments"]["m"]["limits"] == {"rpm": 7}
    del source["environment_variables"]
    assert grade(imported(source), "rpm") == "manual"
    assert imported(source, RPM="8").values["deployments"]["m"]["limits"] == {"rpm": 8}


@pytest.mark.parametrize(
    ("section", "known"), [("litellm_settings", LIBRARY), ("router_settings", ROUTER), ("general_settings", GENERAL)]
)
def test_every_setting_without_an_equivalent_has_its_reason(section: str, known: Mapping[str, str]) -> None:
    source = {"model_list": [entry("m", "openai/a")], section: dict.fromkeys(known, "x")}
    rows = {row.field: row for row in imported(source).rows}
    assert all(rows[f"{section}.{name}"].note for name in known)


NAMES = st.text("abcdefgh_-/.:*@ é0", min_size=1, max_size=12)
SECRET = "hunter2-very-secret"
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**9), st.floats(0, 1e6), NAMES, st.just("os.environ/SOME_NAME")
)
ANY = st.one_of(PLAIN, st.lists(PLAIN, max_size=2), st.dictionaries(NAMES, PLAIN, max_size=2))
PARAM = st.sampled_from(
    [
        *("rpm", "tpm", "weight", "order", "timeout", "stream_timeout", "max_retries", "drop_params", "tags"),
        *("api_base", "api_version", "organization", "extra_headers", "aws_region_name", "vertex_project"),
        *("temperature", "max_tokens", "extra_body", "base_model", "cooldown_time", "max_budget", "budget_duration"),
        *("input_cost_per_token", "output_cost_per_token", "vertex_credentials", "brand_new", "custom_llm_provider"),
    ]
)
MODEL = st.builds(
    lambda prefix, model: f"{prefix}{model}",
    st.sampled_from(["", "nobody/", *(f"{name}/" for name in sorted(VENDORS))]),
    st.sampled_from(["gpt-4o", "*", "claude-3", "amazon.nova-pro-v1:0", "a b", "", "x/y"]),
)
ENTRY = st.builds(
    lambda name, model, params, info: {
        "model_name": name,
        "litellm_params": {**params, "model": model, "api_key": SECRET},
        "model_info": info,
    },
    st.one_of(st.sampled_from(["a", "b", "c"]), NAMES),
    MODEL,
    st.dictionaries(PARAM, ANY, max_size=5),
    st.dictionaries(st.sampled_from(["id", "mode", "base_model", "max_tokens", "news"]), ANY, max_size=2),
)
FALLBACKS = st.lists(st.dictionaries(NAMES | st.sampled_from("abc"), st.lists(st.sampled_from("abcd"))), max_size=3)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "fallbacks": FALLBACKS | ANY,
        "default_fallbacks": st.lists(st.sampled_from("abc")) | ANY,
        "model_group_alias": st.dictionaries(NAMES, st.sampled_from("abc")) | ANY,
        "num_retries": ANY,
        "timeout": ANY,
        "allowed_fails": ANY,
        "cooldown_time": ANY,
        "routing_strategy": ANY,
        "default_litellm_params": ANY,
        "redis_password": st.just(SECRET),
        "brand_new": ANY,
    },
)
SOURCE = st.fixed_dictionaries(
    {"model_list": st.lists(ENTRY, max_size=4)},
    optional={
        "router_settings": SETTINGS | ANY,
        "litellm_settings": SETTINGS | ANY,
        "general_settings": st.fixed_dictionaries({"master_key": st.just(SECRET)}, optional={"brand_new": ANY}),
        "brand_new": ANY,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(SOURCE)
def test_whatever_the_source_the_file_is_taken_no_field_is_lost_and_no_secret_told(source: dict[str, Any]) -> None:
    made = convert(source, {})
    assert [str(each) for each in errors(made.values)] == []
    assert SECRET not in document(made.values)
    assert SECRET not in str(made.rows)
    told = {row.field for row in made.rows}
    for section, fields in source.items():
        if section.endswith("_settings") and isinstance(fields, dict):
            assert {f"{section}.{name}" for name in fields} <= told
        elif section != "model_list":
            assert section in told
    for index, each in enumerate(source["model_list"]):
        for part in ("litellm_params", "model_info"):
            for name in each[part]:
                where = f"model_list[{index}].{part}.{name}"
                assert any(field == where or field.startswith(f"{where}.") for field in told), where


FILE = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      {model: azure/x, api_base: "https://a.test", api_key: os.environ/AZ, api_version: 2024-10-21, rpm: 6}
  - model_name: gpt-4o
    litellm_params: {model: gpt-4o, api_key: sk-very-secret, cool_new_field: 1}
litellm_settings: {drop_params: yes, success_callback: [langfuse]}
general_settings: {master_key: sk-1234, database_url: "postgresql://u:pw-secret@h/db"}
"""


def run(folder: Path, text: str | bytes, *words: str) -> Any:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return command("import", "litellm", str(path), *words)


def test_the_command_prints_the_file_and_tells_about_every_field(tmp_path: Path) -> None:
    done = run(tmp_path, FILE)
    assert done.returncode == 0
    values = yaml.safe_load(done.stdout)
    assert set(values["deployments"]) == {"gpt-4o@azure", "gpt-4o@openai"}
    assert values["providers"]["azure"]["api_version"] == "2024-10-21"
    for secret in ("sk-very-secret", "sk-1234", "pw-secret"):
        assert secret not in done.stdout + done.stderr
    assert "unsupported: model_list[1].litellm_params.cool_new_field" in done.stderr
    assert "# unsupported: model_list[1].litellm_params.cool_new_field" in done.stdout
    assert re.search(
        r"^  # manual: model_list\[1\]\.litellm_params\.api_key -> providers\.openai\.api_key", done.stdout, re.M
    )
    assert re.search(r"^ +\d+ exact: ", done.stderr, re.M)
    (tmp_path / "gateway.yaml").write_text(done.stdout)
    checked = command("check", "-c", str(tmp_path / "gateway.yaml"), env={"AZ": "x", "OPENAI_API_KEY": "x"})
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_command_tells_it_to_programs(tmp_path: Path) -> None:
    done = run(tmp_path, FILE, "--format", "json")
    told = json.loads(done.stdout)
    assert {"exact", "approximate", "manual", "unsupported"} == {row["grade"] for row in told["fields"]}
    assert set(told["environment"]) == {"AZ", "OPENAI_API_KEY"}
    assert yaml.safe_load(told["gateway_yaml"])["routings"]["gpt-4o"]["targets"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must be a map"),
        ("", "must be a map"),
        ("a: [", "not valid YAML"),
        (b"a: \xff", "not UTF-8"),
        ("a: &x [*x]", "nested deeper"),
        ("a: !!python/object:os.system x", "not valid YAML"),
    ],
)
def test_a_source_that_cannot_be_read_is_a_finding(tmp_path: Path, text: str | bytes, message: str) -> None:
    done = run(tmp_path, text)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_without_a_model_is_a_finding(tmp_path: Path) -> None:
    assert run(tmp_path, "model_list: []\n").returncode == 1


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = command("import", "litellm", str(tmp_path / "nowhere.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such file" in done.stderr


def test_a_key_that_is_written_twice_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, FILE + "general_settings: {master_key: sk-1234}\n")
    assert "unsupported: general_settings (written again in line" in done.stderr


def test_sections_that_have_no_equivalent_are_told() -> None:
    rows = {
        row.field for row in imported({"model_list": [entry("m", "openai/a")], **dict.fromkeys(SECTIONS, "x")}).rows
    }
    assert set(SECTIONS) <= rows


def test_what_was_imported_serves_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_SECRET", "demo")
    port = free_port()
    source = {
        "model_list": [
            entry("gpt", "openai/demo-fail", api_base=f"http://127.0.0.1:{port}/openai/v1", order=1),
            entry("gpt", "azure/gpt-4o", api_base=f"http://127.0.0.1:{port}/azure", order=2),
            entry("claude", "anthropic/claude-sonnet-4-5", api_base=f"http://127.0.0.1:{port}/anthropic", max_tokens=9),
        ],
        "router_settings": {"fallbacks": [{"gpt": ["claude"]}], "num_retries": 1},
        "general_settings": {"master_key": "sk-1234"},
    }
    for each in source["model_list"]:
        each["litellm_params"]["api_key"] = "os.environ/UPSTREAM_SECRET"
    made = convert(source, {})
    with process(tmp_path, {**made.values, "server": {"demo": f"127.0.0.1:{port}"}}) as running:
        for model, deployment in (("gpt", "gpt@azure"), ("claude", "claude")):
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]}).encode()
            headers = {"authorization": "Bearer sk-1234", "content-type": "application/json"}
            asked = Request(f"http://127.0.0.1:{running.port}/v1/chat/completions", body, headers)
            with urlopen(asked, timeout=30) as answer:
                assert answer.headers["x-gateway-deployment"] == deployment
                assert json.load(answer)["choices"]
