"""What becomes of LiteLLM's parameters and settings: each has its place here, or its reason."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.cli.litellm.known import GENERAL, LIBRARY, ROUTER, SECTIONS
from gateway.cli.yamltext import document
from tests.gateway.cli.imports import entry, env, grade, imported, one


def test_parameters_become_defaults_of_an_adapter_and_extra_body_is_set() -> None:
    made = one("openai/gpt-4o", temperature=0.2, max_tokens=50, extra_body={"top_k": 5})
    assert made.values["adapters"]["m"] == {
        "deployment": "m@openai",
        "set": {"top_k": 5},
        "default": {"temperature": 0.2, "max_tokens": 50},
    }
    assert list(made.values["deployments"]) == ["m@openai"]


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
    assert grade(made, "input_cost_per_token") == "exact"
    assert made.values["deployments"]["m"]["price"] == {"input": 2.5, "output": 10.0}
    assert grade(one("openai/gpt-4o", input_cost_per_token=1e-6), "input_cost_per_token") == "unsupported"


def test_dropping_is_said_only_where_it_is_forbidden() -> None:
    assert "unsupported_params" not in one("openai/a", drop_params=True).values["deployments"]["m"]
    strict = imported({"model_list": [entry("m", "openai/a")], "litellm_settings": {"drop_params": False}})
    assert strict.values["deployments"]["m"]["unsupported_params"] == "reject"


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
    assert made.values["state"] == {"store": "redis", "url": env("REDIS_URL")}
    assert grade(made, "redis_password") == "manual"


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


def test_sections_that_have_no_equivalent_are_told() -> None:
    rows = {
        row.field for row in imported({"model_list": [entry("m", "openai/a")], **dict.fromkeys(SECTIONS, "x")}).rows
    }
    assert set(SECTIONS) <= rows
