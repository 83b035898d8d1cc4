"""Which provider a path belongs to: the eight share one port."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from gateway.demo import anthropic, bedrock, google, openai_like
from gateway.demo.wire import Place
from gateway.hub import Json

MODELS = ("demo-model", "demo-slow", "demo-fail", "demo-overloaded", "demo-midstream")
# What stands before each provider's own paths: the end of its `base_url`.
PATHS = {
    "openai": "/openai/v1",
    "azure": "/azure",
    "together": "/together/v1",
    "fireworks": "/fireworks/inference/v1",
    "xai": "/xai/v1",
    "anthropic": "/anthropic",
    "google": "/google",
    "bedrock": "/bedrock",
    "generic": "/v1",
}
_LIKE = re.compile(r"/(azure|together|fireworks|xai|openai)(?=/)")
_GOOGLE = re.compile(r"/(?:models|tunedModels|endpoints)/([^/:]+):(generateContent|streamGenerateContent)$")
_BEDROCK = re.compile(r"/model/([^/]+)/(converse|converse-stream)$")
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/chat/completions$")


def find(method: str, path: str, alt: str = "") -> Place | None:
    """The place of a request by its raw path; None where nothing is."""
    if method == "GET":
        return _listing(path)
    if method != "POST":
        return None
    if found := _GOOGLE.search(path):
        provider = "vertex" if "/projects/" in path else "google"
        return Place(provider, google.WIRE, unquote(found[1]), found[2], alt)
    if found := _BEDROCK.search(path):
        return Place("bedrock", bedrock.WIRE, unquote(found[1]), found[2])
    if path.endswith("/v1/messages"):
        return Place("anthropic", anthropic.WIRE)
    if found := _DEPLOYMENT.search(path):
        return Place("azure", openai_like.WIRE, unquote(found[1]), "deployment")
    if path.endswith("/chat/completions"):
        return Place(_flavour(path), openai_like.WIRE)
    return None


def _flavour(path: str) -> str:
    found = _LIKE.search(path)
    return found[1] if found else "generic"


def _listing(path: str) -> Place | None:
    found = re.search(r"/models(?:/(.+))?$", path)
    if found is None:
        return None
    provider = "anthropic" if "/anthropic/" in path else "google" if "/google/" in path else _flavour(path)
    return Place(provider, None, unquote(found[1] or ""))


def listing(place: Place) -> object:
    """The models that the demo names, as this provider lists them, or the one asked for."""
    entry, page = LISTINGS.get(place.provider, USUAL)
    return entry(place.model) if place.model else page([entry(name) for name in MODELS])


def _usual(name: str) -> Json:
    return {"id": name, "object": "model", "created": 1767225600, "owned_by": "demo"}


def _anthropic(name: str) -> Json:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}


def _google(name: str) -> Json:
    methods = ["generateContent", "streamGenerateContent"]
    return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}


def _anthropic_page(entries: list[Json]) -> Json:
    return {"data": entries, "has_more": False, "first_id": entries[0]["id"], "last_id": entries[-1]["id"]}


# How one model is told, and how all are.
Listing = tuple[Callable[[str], Json], Callable[[list[Json]], object]]
USUAL: Listing = (_usual, lambda entries: {"object": "list", "data": entries})
LISTINGS: Mapping[str, Listing] = {
    "together": (_usual, list),
    "google": (_google, lambda entries: {"models": entries}),
    "anthropic": (_anthropic, _anthropic_page),
}
