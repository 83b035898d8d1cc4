"""LiteLLM configurations for the tests, and what the import makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.cli.litellm.convert import Imported, convert
from gateway.cli.yamltext import document
from gateway.config.loader import load
from gateway.config.plugins import Registry

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
    """A member of `model_list`."""
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def one(model: str, **params: Any) -> Imported:
    """What comes of a single deployment `m`."""
    return imported({"model_list": [entry("m", model, **params)]})


def provider(made: Imported, name: str = "m") -> Any:
    """The provider entry behind a deployment."""
    return made.values["providers"][made.values["deployments"][name]["provider"]]


def grade(made: Imported, field: str) -> str:
    """How well a field was taken over."""
    (row,) = (row for row in made.rows if row.field.endswith(field))
    return row.grade


def env(name: str) -> dict[str, str]:
    """A value that the environment holds."""
    return {"env": name}
