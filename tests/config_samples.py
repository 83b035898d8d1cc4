"""Small provider records and short ways to check a gateway.yaml, for the tests of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.auth import bearer
from gateway.config.loader import Loaded, load
from gateway.contract import Problem, Provider
from gateway.errors import UpstreamError

ENVIRON = {"OPENAI_API_KEY": "sk-from-the-environment", "EMPTY_VAR": ""}


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    return UpstreamError("refused")


def check_options(options: Mapping[str, Any], model: str) -> Sequence[Problem]:
    problems = []
    if not re.fullmatch(r"[\w-]+", options.get("api_version", "v1")):
        problems.append(Problem("api_version", "is a date"))
    if ".." in model:
        problems.append(Problem("model", "is no path"))
    return problems


def record(name: str, base_url: str, *options: str, env: str = "") -> Provider:
    return Provider(
        name=name,
        read_error=read_error,
        authorize=bearer,
        table=lambda target: {},
        base_url=base_url,
        options=frozenset(options),
        check=check_options,
        env=env,
    )


PROVIDERS = {
    "openai": record("openai", "https://api.openai.com/v1", env="OPENAI_API_KEY"),
    "azure": record(
        "azure", "https://{resource}.openai.azure.com", "resource", "api_version", "entra", env="AZURE_KEY"
    ),
    "bedrock": record(
        "bedrock", "https://bedrock-runtime.{region}.amazonaws.com", "region", "access_key_id", "secret_access_key"
    ),
    "google": record("google", "https://generativelanguage.googleapis.com", "project", "credentials", env="GEMINI_KEY"),
    "nowhere": record("nowhere", ""),
}

# A valid file to add to.
BASE = """\
providers:
  openai: {type: openai, api_key: {env: OPENAI_API_KEY}}
deployments:
  gpt: {provider: openai, model: gpt-4o-mini}
"""


def loaded(text: str | bytes, environ: Mapping[str, str] = ENVIRON, *, strict: bool = False) -> Loaded:
    return load("g.yaml", environ, PROVIDERS, strict, text)


def loaded_file(path: Path, environ: Mapping[str, str] = ENVIRON, *, strict: bool = False) -> Loaded:
    return load(str(path), environ, PROVIDERS, strict)


def messages(text: str | bytes, environ: Mapping[str, str] = ENVIRON) -> list[str]:
    return [str(finding) for finding in loaded(text, environ).findings]


def config(text: str, environ: Mapping[str, str] = ENVIRON) -> Any:
    result = loaded(text, environ)
    assert result.config is not None, [str(finding) for finding in result.findings]
    return result.config
