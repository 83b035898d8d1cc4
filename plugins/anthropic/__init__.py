"""Anthropic: Claude through the Messages API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.auth import header
from gateway.contract import Problem, Provider, Translation
from plugins.anthropic.reading import read_error
from plugins.anthropic.request import beta_header, build_body, build_request
from plugins.anthropic.response import read_response
from plugins.anthropic.stream import open_stream
from plugins.anthropic.table import table

__all__ = ["PROVIDER", "beta_header", "build_body", "open_stream", "read_error", "read_response", "table"]

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def check(options: Mapping[str, Any], model: str) -> Sequence[Problem]:
    """What is wrong with `api_version` and `beta`."""
    problems = []
    version = options.get("api_version")
    if version is not None and not _DATE.fullmatch(str(version)):
        problems.append(Problem("api_version", f"must be a date like 2023-06-01, not {version!r}"))
    beta = options.get("beta")
    items = beta if isinstance(beta, list | tuple) else [] if beta is None else [beta]
    if not all(isinstance(item, str) for item in items):
        problems.append(Problem("beta", "must be a name or a list of names"))
    return problems


PROVIDER = Provider(
    name="anthropic",
    chat=Translation(build_request, read_response, open_stream),
    table=table,
    read_error=read_error,
    authorize=header("x-api-key"),
    base_url="https://api.anthropic.com",
    options=frozenset(("api_version", "beta")),
    check=check,
    models="plugins/anthropic/models.yaml",
    env="ANTHROPIC_API_KEY",
)
