"""The providers whose bytes pass through, and the recorded traffic of each of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from gateway.abilities import abilities
from gateway.contract import ChatRequest, Mender, Provider, Target
from gateway.envelope import open_envelope
from gateway.sse import EventReader
from plugins import azure, fireworks, openai, together, xai
from tests.corpus import cases

PROVIDERS = {module.PROVIDER.name: module.PROVIDER for module in (openai, azure, together, fireworks, xai)}
ROOT = Path(__file__).resolve().parents[2]


@cache
def rows_of(resource: str) -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / resource).read_text())


def target(name: str, model: str = "m", **more: Any) -> Target:
    provider = PROVIDERS[name]
    known = abilities(rows_of(provider.models), model)
    base = provider.base_url.replace("{resource}", "acme")
    return Target(**{"provider": name, "model": model, "base_url": base, "family": model, "abilities": known, **more})


def families(provider: Provider) -> list[str]:
    patterns = [row["match"] for row in rows_of(provider.models)]
    return [
        "unknown",
        *(
            name.replace("*", "x").replace("[", "").replace("]", "")
            for p in patterns
            for name in ([p] if isinstance(p, str) else p)
        ),
    ]


def request(**fields: Any) -> ChatRequest:
    return open_envelope(orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}))


def mender_of(name: str, chat: ChatRequest) -> Mender | None:
    opened = PROVIDERS[name].native["openai.chat"].open_mender
    return opened(chat, target(name)) if opened else None


def mended(name: str, pieces: list[bytes], chat: ChatRequest) -> list[bytes]:
    """The payloads that a client gets, [DONE] left out."""
    mender, reader = mender_of(name, chat), EventReader()
    payloads = [payload for piece in pieces for payload in reader.feed(piece)] + reader.finish()
    payloads = [payload for payload in payloads if payload != b"[DONE]"]
    if mender is None:
        return payloads
    kept = [new for payload in payloads if (new := mender.chunk(payload)) is not None]
    return kept + mender.finish()


def asked(case: dict[str, Any]) -> ChatRequest:
    sent = (case.get("request") or {}).get("body") or {}
    return request(**{name: sent[name] for name in ("n", "stream_options") if name in sent})


ALL = [pytest.param(name, id=name) for name in PROVIDERS]
MISFILED = ("openai-044-stream-stream-unknown-error-responses-1",)  # a stream of the Responses API
STREAMS = [
    pytest.param(name, *case.values, id=case.id, marks=case.marks)
    for name in PROVIDERS
    for case in cases(name, kind="stream", framing="sse", endpoint="chat")
    if case.id not in MISFILED
]
ANSWERS = [
    pytest.param(name, *case.values, id=case.id, marks=case.marks)
    for name in PROVIDERS
    for case in cases(name, kind="chat", framing="json", endpoint="chat")
] + [
    pytest.param("openai", *case.values, id=case.id, marks=case.marks)
    for name in ("bedrock", "gemini")  # their OpenAI-compatible addresses
    for case in cases(name, endpoint="openai-compat")
]
