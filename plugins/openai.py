"""OpenAI, and any server that speaks its dialect at another address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gateway.contract import Problem, Target
from plugins.openai_families import Family, family, family_rows, family_steps
from plugins.openai_like import (
    Rules,
    no_open_model_extras,
    one_limit,
    provider,
    sound_model,
    without_cache_control,
)

# OpenAI's own service: its main and regional hosts, and its models on Bedrock and Vertex.
_OWN_HOST = re.compile(
    r"https?://(?:(?:[a-z]{2}\.)?api\.openai\.com|bedrock-mantle\.[a-z0-9-]+\.api\.aws"
    r"|bedrock-runtime\.[a-z0-9-]+\.amazonaws\.com|[a-z0-9-]*aiplatform\.googleapis\.com)(?::\d+)?(?:/|$)"
)

# Any other server (vLLM, llama.cpp, ...) knows best what it takes.
GENERIC = Rules.of({})


@lru_cache(maxsize=256)
def own_host(base_url: str) -> bool:
    """Is this OpenAI itself, whose rules are known and whose bodies are strict?"""
    return _OWN_HOST.match(base_url) is not None


def rules(target: Target) -> Rules:
    """How a target's requests are edited: by its family at OpenAI, not at all elsewhere."""
    return _rules(family(target)) if own_host(target.base_url) else GENERIC


@lru_cache(maxsize=256)
def _rules(kind: Family) -> Rules:
    steps = family_steps(kind)
    if kind.limit == "max_completion_tokens":
        steps |= one_limit("max_completion_tokens")
    rows = {**no_open_model_extras(), **family_rows(kind)}
    return Rules.of(rows, steps, message=without_cache_control, hints=(b'"cache_control"',))


def check(options: Mapping[str, Any], model: str) -> Sequence[Problem]:
    """What is wrong with a deployment's model. A server of open models may name them by a path."""
    generic = bool(options.get("base_url")) and not own_host(str(options["base_url"]))
    if model in ("", "*") or sound_model(model) or (generic and model.isprintable() and len(model) <= 500):
        return ()
    return (Problem("model", f"'{model[:80]}' is no model name"),)


PROVIDER = replace(
    provider(
        "openai",
        rules,
        base_url="https://api.openai.com/v1",
        env="OPENAI_API_KEY",
        models="plugins/openai_models.yaml",
    ),
    check=check,
)
