"""gateway.capabilities: the tables as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from livegateway import MODELS, PROVIDERS

from gateway.capabilities import capabilities, decision
from gateway.config.loader import load
from gateway.config.models import abilities_of
from gateway.config.plugins import Registry
from gateway.contract import Row
from gateway.hub import PARAMS
from gateway.router import Router

OPTIONS: dict[str, Any] = {"bedrock": {"region": "eu-central-1"}, "azure": {"base_url": "https://a.openai.azure.com"}}


@pytest.fixture(scope="module")
def router() -> Router:
    document = {
        "version": 1,
        "providers": {
            name: {"type": name, "api_key": {"env": "SOME_KEY"}, **OPTIONS.get(name, {})} for name in PROVIDERS
        },
        "deployments": {
            **{name: {"provider": name, "model": model} for name, model in MODELS.items()},
            "emulating": {"provider": "anthropic", "model": "claude-sonnet-4-5", "emulate": ["n"]},
            "strict": {"provider": "xai", "model": "grok-4", "unsupported_params": "reject"},
            "wild/*": {"provider": "openai", "model": "*"},
        },
        "routings": {"r": {"strategy": "weighted", "targets": ["google", "xai"], "fallback": ["openai"]}},
    }
    loaded = load(str(Path("gateway.yaml")), {"SOME_KEY": "k"}, Registry(), text=json.dumps(document))
    assert loaded.config is not None, loaded.findings
    return Router(loaded.config, Registry(), abilities_of)


def found(router: Router, name: str) -> list[Any]:
    (entry,) = capabilities(router, [name])
    assert (entry["id"], entry["object"]) == (name, "model.capabilities")
    deployments: list[Any] = entry["deployments"]
    return deployments


@pytest.mark.parametrize("provider", PROVIDERS)
def test_there_is_a_decision_for_every_parameter(router: Router, provider: str) -> None:
    (entry,) = found(router, provider)
    assert set(entry["parameters"]) == PARAMS
    assert all(row["decision"] for row in entry["parameters"].values())
    assert (entry["provider"], entry["model"]) == (provider, MODELS[provider])


def test_a_routing_tells_of_all_that_it_may_lead_to(router: Router) -> None:
    assert [entry["deployment"] for entry in found(router, "r")] == ["google", "xai", "openai"]


def test_what_a_deployment_emulates_shows(router: Router) -> None:
    (plain,), (emulating,) = found(router, "anthropic"), found(router, "emulating")
    assert (plain["parameters"]["n"]["decision"], emulating["parameters"]["n"]["decision"]) == ("reject", "emulate")


def test_the_policy_for_unsupported_parameters_shows(router: Router) -> None:
    assert [found(router, name)[0]["unsupported_params"] for name in ("xai", "strict")] == ["drop", "reject"]


def test_a_wildcard_is_shown_as_it_is_written(router: Router) -> None:
    (entry,) = found(router, "wild/*")
    assert (entry["deployment"], entry["model"]) == ("wild/*", "*")


def test_it_is_json(router: Router) -> None:
    assert orjson.loads(orjson.dumps(capabilities(router, router.names)))


def test_a_row_shows_no_more_than_it_says() -> None:
    assert decision(Row("forward")) == {"decision": "forward"}
    assert decision(Row("rename", "a.b", note="why")) == {"decision": "rename", "as": "a.b", "note": "why"}
