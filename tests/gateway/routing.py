"""Routers for the tests: two providers, four deployments, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.config.secrets import Secret
from gateway.config.types import Config, Deployment, ProviderEntry, Retry, RouteTarget
from gateway.contract import ChatRequest, Provider
from gateway.envelope import open_envelope
from gateway.router import Router
from plugins.openai import PROVIDER as OPENAI
from plugins.xai import PROVIDER as XAI

ONCE = Retry(attempts=1)
TWICE = Retry(attempts=2)


def names_of(provider: Provider, family: str) -> Mapping[str, Any]:
    """Abilities that tell what they were looked up for."""
    return {"asked": f"{provider.name}/{family}", "tools": True}


def router(**config: Any) -> Router:
    providers = {
        "oa": ProviderEntry(type="openai", base_url="https://oa.test/v1/", options={"organization": "o"}),
        "x": ProviderEntry(type="xai", base_url="https://x.test", api_key=Secret("s3cret")),
    }
    return Router(Config(**{"providers": providers, **config}), {"openai": OPENAI, "xai": XAI}, names_of)


DEPLOYMENTS = {name: Deployment(provider="oa", model=f"real-{name}") for name in ("a", "b", "c", "d")}


def use(**weights: float) -> tuple[RouteTarget, ...]:
    return tuple(RouteTarget(use=name, weight=weight) for name, weight in weights.items())


def order(routes: Router, name: str, chance: float = 0.0) -> list[str]:
    return [attempt.name for attempt in routes.resolve(name, lambda: chance).attempts]


def asked(**body: Any) -> ChatRequest:
    return open_envelope(orjson.dumps({"model": "r", "messages": [{"role": "user", "content": "Hi"}], **body}))
