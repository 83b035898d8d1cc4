"""Google Gemini: the Developer API with a key, or Vertex AI with a project's credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.auth import header
from gateway.contract import Provider, Translation
from plugins.google.address import BASE_URL, check
from plugins.google.answer import read_error
from plugins.google.media import OWN_URLS
from plugins.google.parameters import table
from plugins.google.request import build_request
from plugins.google.response import read_response
from plugins.google.stream import open_stream


def _credential(options: Mapping[str, Any]) -> str:
    """Vertex AI takes OAuth tokens that expire; the Developer API takes a key as it is."""
    return "google" if options.get("credentials") is not None or options.get("project") is not None else "key"


PROVIDER = Provider(
    name="google",
    chat=Translation(build_request, read_response, open_stream),
    table=table,
    read_error=read_error,
    # A key in the query would end up in logs.
    authorize=header("x-goog-api-key"),
    base_url=BASE_URL,
    options=frozenset(("project", "location", "credentials")),
    check=check,
    credential=_credential,
    models="plugins/google/models.yaml",
    env="GEMINI_API_KEY",
    own_urls=OWN_URLS,
)
