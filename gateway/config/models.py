"""What providers' capability files say, read once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from gateway.abilities import Rows, abilities
from gateway.contract import Provider


@cache
def rows(resource: str) -> Rows:
    """The rows of a package resource such as `plugins/anthropic/models.yaml`."""
    package, _, path = resource.partition("/")
    return tuple(yaml.safe_load((files(package) / path).read_bytes()))


def abilities_of(provider: Provider, family: str) -> Mapping[str, Any]:
    """What a provider's capability file says about a model family."""
    return abilities(rows(provider.models), family) if provider.models else {}
