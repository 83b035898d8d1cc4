"""Recorded streams as the gateway passes them on."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from gateway.config.models import abilities_of
from gateway.config.plugins import Registry
from gateway.contract import Relay, Stamp, Target
from gateway.dialects.openai_chat import DIALECT, chunks_of
from gateway.envelope import open_envelope
from gateway.errors import UpstreamError
from gateway.relay import Passthrough, Translated
from gateway.sse import DONE, EventReader
from tests.corpus import Case, body

TRANSLATED = {"anthropic": "claude-sonnet-4-5", "bedrock": "anthropic.claude-sonnet-4-5", "google": "gemini-2.5-flash"}
FOLDERS = {"google": "gemini"}
NATIVE = ("openai", "azure", "together", "fireworks", "xai")
# Filed as chat, but a stream of the Responses API.
OTHER_API = ("openai-044",)
CHAT = open_envelope(
    b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}'
)


def relay(name: str) -> Relay:
    provider = Registry()[name]
    model = TRANSLATED.get(name, "m")
    target = Target(name, model, "http://upstream", model, abilities=abilities_of(provider, model))
    if provider.chat is not None:
        decoder = provider.chat.open_stream(CHAT, target, Stamp("x", 1))
        return Translated(decoder, DIALECT.open_stream(CHAT))
    opened = provider.native[DIALECT.name].open_mender
    mender = opened(CHAT, target) if opened else None
    return Passthrough(partial(provider.read_error, 200, {}), chunks_of, mender)


def passed_on(name: str, case: Case) -> list[Any] | None:
    """The chunks that a client gets; None for a stream that fails, as it should."""
    way = relay(name)
    try:
        out = way.feed(body(case)) + way.finish()
    except UpstreamError:
        return None
    if way.failure is not None:
        return None
    payloads = EventReader().feed(out)
    assert payloads[-1] == DONE
    return [json.loads(payload) for payload in payloads[:-1]]
