"""Whether the checker of gateway.yaml takes what was converted; secrets and addresses stand in for references."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from gateway.cli.yamltext import document
from gateway.config.findings import Finding
from gateway.config.loader import load
from gateway.config.plugins import Registry

# What a reference may stand for, where not any text will do.
_SAMPLES = {
    "base_url": "https://upstream.example",
    "url": "redis://redis.example",
    "region": "eu-west-1",
    "project": "project",
    "location": "global",
    "api_version": "2024-10-21",
}


def errors(values: Mapping[str, Any]) -> list[Finding]:
    """What the checker says against a whole file, the environment aside."""
    loaded = load("gateway.yaml", {}, _registry(), text=document(_sampled(values)))
    return [finding for finding in loaded.findings if finding.level == "error"]


def refusals(entry: Mapping[str, Any], deployment: Mapping[str, Any]) -> list[str]:
    """Why this provider entry and a deployment of it cannot stand in the file."""
    name = "x/*" if deployment["model"] == "*" else "x"
    found = errors({"version": 1, "providers": {"x": entry}, "deployments": {name: {**deployment, "provider": "x"}}})
    return [f"{finding.where.split('.')[-1]}: {finding.message}" for finding in found]


def refused(values: Mapping[str, Any]) -> str:
    """Why an option cannot stand in the file yet; empty when it can."""
    return "; ".join(finding.message for finding in errors({"version": 1, **values}))


@cache
def _registry() -> Registry:
    return Registry()


def _sampled(value: Any, name: str = "") -> Any:
    """The value with a text for every reference to the environment."""
    if isinstance(value, Mapping):
        if set(value) == {"env"}:
            return _SAMPLES.get(name, "sample")
        return {key: _sampled(each, key) for key, each in value.items()}
    return value
