"""Provider types by name: the modules that come with the gateway, and what is installed beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec

from gateway.config.findings import nearest
from gateway.contract import Provider

BUILT_IN = ("anthropic", "azure", "bedrock", "fireworks", "google", "openai", "together", "xai")
GROUP = "gateway.providers"

_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class NoProvider(LookupError):
    """There is no usable provider of this type; the message says why."""


def provider(name: str) -> Provider:
    """The provider of a type: `plugins.NAME:PROVIDER`, else the entry point NAME; raises NoProvider."""
    if not _TYPE.fullmatch(name):
        raise NoProvider(f"'{name[:64]}' cannot be a provider type: it is the name of a plugin, never a path")
    # Any exception, because a plugin is foreign code and may raise anything while it is imported, or leave.
    try:
        found = _load(name)
    except NoProvider:
        raise
    except (Exception, SystemExit) as error:
        raise NoProvider(f"provider type '{name}' cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, Provider):
        raise NoProvider(f"provider type '{name}' is a {type(found).__name__}, not a gateway.contract.Provider")
    return found


def load_providers(types: Iterable[str]) -> dict[str, Provider]:
    """The providers of these types; raises NoProvider at the first that cannot be had."""
    return {name: provider(name) for name in types}


class Registry(Mapping[str, Provider]):
    """Every provider type, imported when it is first asked for; what cannot be imported raises NoProvider."""

    def __init__(self) -> None:
        self._loaded: dict[str, Provider] = {}

    def __getitem__(self, name: str) -> Provider:
        if name not in self._loaded:
            self._loaded[name] = provider(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_known())

    def __len__(self) -> int:
        return len(_known())


def _known() -> list[str]:
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def _load(name: str) -> object:
    module = f"plugins.{name}"
    if find_spec(module) is not None and hasattr(built_in := import_module(module), "PROVIDER"):
        return built_in.PROVIDER
    for point in entry_points(group=GROUP, name=name):
        return point.load()
    raise NoProvider(f"no provider type '{name}'{nearest(name, _known())}")
