"""The names are those of the semantic conventions, as OpenTelemetry's own package has them."""

from __future__ import annotations

import importlib
from pathlib import Path

import opentelemetry.semconv
import pytest

from gateway.config.plugins import BUILT_IN
from gateway.tracing import names


def conventional() -> set[str]:
    """Every name and value that the package knows."""
    found = set()
    root = Path(opentelemetry.semconv.__path__[0])
    # By files, as the folders of what is not settled are no packages.
    places = (
        "attributes/*.py",
        "metrics/*.py",
        "_incubating/*/gen_ai_*.py",
        "_incubating/*/service_*.py",
        "schemas.py",
    )
    for path in (path for place in places for path in root.glob(place)):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for value in vars(importlib.import_module(f"opentelemetry.semconv.{module}")).values():
            if isinstance(value, str):
                found.add(value)
            elif isinstance(value, type) and hasattr(value, "__members__"):
                found |= {member.value for member in value.__members__.values()}
    return found


def ours() -> set[str]:
    found = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    return found | {*names.PARAMETERS.values(), *names.PROVIDERS.values(), *names.HOSTS.values(), *names.METHODS}


def test_every_name_is_one_of_the_conventions_or_begins_with_ours() -> None:
    assert {name for name in ours() - conventional() if not name.startswith("sluiceway.")} == set()


@pytest.mark.parametrize(
    ("kind", "host", "name"),
    [
        ("openai", "api.openai.com", "openai"),
        ("google", "generativelanguage.googleapis.com", "gcp.gemini"),
        ("google", "europe-west4-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("google", "aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("google", "127.0.0.1", "gcp.gen_ai"),
        ("bedrock", "bedrock-runtime.eu-central-1.amazonaws.com", "aws.bedrock"),
        ("mine", "notaiplatform.googleapis.com", "mine"),
    ],
)
def test_a_provider_has_the_name_that_the_conventions_give_it(kind: str, host: str, name: str) -> None:
    assert names.provider_name(kind, host) == name


def test_only_providers_that_exist_are_renamed() -> None:
    assert set(names.PROVIDERS) <= set(BUILT_IN)


def test_the_bounds_are_those_that_are_advised() -> None:
    assert (names.SECONDS[0], names.SECONDS[-1], len(names.SECONDS)) == (0.01, 81.92, 14)
    assert (names.TOKENS[0], names.TOKENS[-1], len(names.TOKENS)) == (1, 67_108_864, 14)
