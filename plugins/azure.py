"""Azure OpenAI: OpenAI's dialect, the deployment in the path or in `model`, and content filters in the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from gateway.auth import header
from gateway.contract import Problem, Row, Target
from gateway.errors import InvalidRequest, UpstreamError
from gateway.fields import Unfit, convert, drop, elsewhere
from gateway.refusals import refusal
from plugins.openai_errors import read_refusal
from plugins.openai_families import Family, family, family_rows, family_steps
from plugins.openai_like import (
    Rules,
    Step,
    completions_url,
    no_open_model_extras,
    one_limit,
    only_with_tools,
    provider,
    without_cache_control,
)
from plugins.openai_mender import ChunkMender

_VERSION = re.compile(r"20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?:-preview)?")
_RESOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_DEPLOYMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

# The api_version that first took a parameter on the deployments path; the v1 path takes all.
_SINCE = {
    "tool_choice": "2023-12",
    "parallel_tool_calls": "2024-08",
    "stream_options": "2024-09",
    "store": "2024-10",
    "metadata": "2024-10",
    "reasoning_effort": "2024-12",
    "safety_identifier": "2025-01",
}
_TIERS = ("auto", "default", "priority")


def url(target: Target) -> str:
    """The deployments path where the entry has an `api_version`, else the v1 path."""
    base = target.base_url.rstrip("/").removesuffix("/v1").removesuffix("/openai")
    version = target.options.get("api_version")
    if not version:
        return completions_url(replace(target, base_url=f"{base}/openai/v1"))
    if target.model in (".", ".."):
        raise InvalidRequest(f"'{target.model}' is no deployment name.", param="model")
    path = f"{base}/openai/deployments/{quote(target.model, safe='')}/chat/completions"
    return f"{path}?api-version={quote(str(version), safe='')}"


def rules(target: Target) -> Rules:
    """OpenAI's rules for the family behind the deployment, and Azure's own."""
    return _rules(family(target, "azure_limit"), str(target.options.get("api_version") or ""))


@lru_cache(maxsize=256)
def _rules(kind: Family, version: str) -> Rules:
    old = {name: drop(f"not in api_version {version}") for name, since in _SINCE.items() if version and version < since}
    steps: dict[str, Step] = {
        **family_steps(kind),
        "tool_choice": only_with_tools("tool_choice"),
        "parallel_tool_calls": only_with_tools("parallel_tool_calls"),
    }
    if kind.limit == "max_completion_tokens":
        steps |= one_limit("max_completion_tokens")
    dropped = {**family_rows(kind), **old}
    steps = {name: step for name, step in steps.items() if name not in old and name not in kind.refuses}
    rows = {**no_open_model_extras(), **_own_rows(), **dropped}
    return Rules.of(rows, steps, message=without_cache_control, hints=(b'"cache_control"',))


def _own_rows() -> dict[str, Row]:
    with_tools = elsewhere("only beside tools: Azure answers 400 to it alone")
    return {
        "tool_choice": with_tools,
        "parallel_tool_calls": with_tools,
        "service_tier": convert("service_tier", _tier, f"one of {', '.join(_TIERS)}"),
        "web_search_options": drop("not on Azure"),
        "prompt_cache_options": drop("not on Azure"),
        "moderation": drop("not on Azure, which filters by its own policy"),
    }


def _tier(value: Any) -> Any:
    if value not in _TIERS:
        raise Unfit("has a value that Azure does not take")
    return value


def usage_on_request(target: Target) -> bool:
    """Streams tell their usage when asked; versions before 2024-09 answer 400 to the question."""
    version = str(target.options.get("api_version") or "")
    return not version or version >= _SINCE["stream_options"]


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Azure's refusals: the filter's verdict is kept, and a 404 says what is usually wrong."""
    said = read_refusal(body)
    message = said.message
    if status == 404:
        message = f"{message} (No such deployment, or an api_version that Azure does not know.)".lstrip()
    error = refusal(
        status, message, provider="azure", headers=headers, code=said.code, kind=said.kind, param=said.param
    )
    verdict = said.error.get("innererror") or said.error.get("inner_error")
    if error.code == "content_filter" and isinstance(verdict, dict):
        error.details = {**error.details, "innererror": verdict}
    return error


def check(options: Mapping[str, Any], model: str) -> Sequence[Problem]:
    """What is wrong with `api_version`, `resource` or a deployment's name: all go into the address."""
    problems = []
    version = options.get("api_version")
    if version is not None and not (isinstance(version, str) and _VERSION.fullmatch(version)):
        problems.append(
            Problem("api_version", f"'{str(version)[:40]}' is no version such as 2024-10-21 or 2024-10-21-preview")
        )
    resource = options.get("resource")
    if resource is not None and not (isinstance(resource, str) and _RESOURCE.fullmatch(resource)):
        problems.append(Problem("resource", f"'{str(resource)[:40]}' is no resource name"))
    if model not in ("", "*") and (not _DEPLOYMENT.fullmatch(model) or ".." in model):
        problems.append(Problem("model", f"'{model[:80]}' is no deployment name"))
    return problems


PROVIDER = replace(
    provider(
        "azure",
        rules,
        base_url="https://{resource}.openai.azure.com",
        env="AZURE_OPENAI_API_KEY",
        url=url,
        usage_on_request=usage_on_request,
        open_mender=ChunkMender,
        models="plugins/openai_models.yaml",
    ),
    read_error=read_error,
    authorize=header("api-key"),
    options=frozenset(("api_version", "entra", "resource")),
    check=check,
    credential=lambda options: "entra" if options.get("entra") else "key",
)
