"""A configuration for somebody who has no file: one wildcard deployment per provider key in the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import yaml

from gateway.config.plugins import BUILT_IN, NoProvider
from gateway.contract import Provider


def from_environment(
    environ: Mapping[str, str], providers: Mapping[str, Provider], types: Iterable[str] = BUILT_IN
) -> str:
    """The text of a gateway.yaml on loopback, with `TYPE/*` for each type whose key is set; empty when none is."""
    found = [(name, provider.env) for name, provider in _usable(types, providers) if environ.get(provider.env)]
    if not found:
        return ""
    document = {
        "version": 1,
        "providers": {name: {"type": name, "api_key": {"env": variable}} for name, variable in found},
        "deployments": {f"{name}/*": {"provider": name, "model": "*"} for name, _ in found},
    }
    return yaml.safe_dump(document, sort_keys=False)


def _usable(types: Iterable[str], providers: Mapping[str, Provider]) -> Iterable[tuple[str, Provider]]:
    """The types that work with nothing but a key; one whose address needs an option (a resource) does not."""
    for name in types:
        try:
            provider = providers[name]
        except (KeyError, NoProvider):
            continue
        if provider.env and provider.base_url and "{" not in provider.base_url:
            yield name, provider
