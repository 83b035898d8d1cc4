"""Every recorded stream, as the gateway passes it on, through openai-node's accumulator."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from livegateway import ROOT

from gateway.config.models import abilities_of
from gateway.config.plugins import Registry
from gateway.contract import Relay, Stamp, Target
from gateway.dialects.openai_chat import DIALECT, chunks_of
from gateway.envelope import open_envelope
from gateway.errors import UpstreamError
from gateway.relay import Passthrough, Translated
from gateway.sse import DONE, EventReader
from tests.corpus import Case, body, cases

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


def streams() -> Iterator[tuple[str, list[Any]]]:
    for name in (*TRANSLATED, *NATIVE):
        for row in cases(FOLDERS.get(name, name), kind="stream"):
            case: Case = row.values[0]
            if case["id"] not in OTHER_API and (chunks := passed_on(name, case)) is not None:
                yield case["id"], chunks


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_openai_node_accumulates_every_recorded_stream(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path / "node"
    shutil.copytree(ROOT / "tests" / "node", folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install openai: {installed.stderr[-300:]}")
    told = dict(streams())
    for name, chunks in told.items():
        (folder / f"{name}.json").write_text(json.dumps({"events": chunks}))
    line = ["node", "accumulate.mjs", *(f"{name}.json" for name in told)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=100, check=True)
    answers = [json.loads(row) for row in done.stdout.splitlines()]
    assert len(answers) == len(told) > 100
    failed = {answer["file"]: answer["error"] for answer in answers if "error" in answer}
    assert failed == {}
    for answer in answers:
        chunks = told[answer["file"].removesuffix(".json")]
        for choice in answer["final"]["choices"]:
            text = "".join(
                part["delta"].get("content") or ""
                for chunk in chunks
                for part in chunk["choices"]
                if part["index"] == choice["index"] and part.get("delta")
            )
            assert (choice["message"]["content"] or "") == text
