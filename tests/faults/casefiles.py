"""The case files of the specification, read where they lie, and the words that stand for bytes in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.known import KNOWN
from faults.serving import KEY, KEY_A_ONLY, PROVIDER_KEY
from upstreams import NAMES, OK_BODY, chunk

FAULTS = Path(__file__).resolve().parents[3] / "shared" / "faults"
TOKEN = re.compile(r"\{\{(?!\{)(.*?)\}\}")
REPEATED = re.compile(r"(.)\*(\d+)", re.DOTALL)
COUNTED = re.compile(r"(\d+)(a|sp)")

Case = dict[str, Any]


@cache
def cases(name: str) -> dict[str, Case]:
    """The cases of a file by their ids, in order; none where the specification is absent."""
    if not FAULTS.is_dir():
        return {}
    loaded = yaml.safe_load((FAULTS / f"{name}.yaml").read_text(encoding="utf-8"))
    return {case["id"]: case for case in loaded["cases"]}


def parameters(ids: list[str], slow: Callable[[str], bool] = lambda _: False) -> list[Any]:
    """Ids as pytest parameters; one that is skipped with a message where the specification is absent."""
    if not FAULTS.is_dir():
        return [pytest.param("absent", marks=pytest.mark.skip(reason="the fault cases are not beside the project"))]
    return [pytest.param(each, id=each, marks=_marks(each, slow(each))) for each in ids]


def _marks(name: str, slow: bool) -> list[Any]:
    marks = [pytest.mark.slow] if slow else []
    return [*marks, pytest.mark.xfail(reason=KNOWN[name], strict=True)] if name in KNOWN else marks


def body(model: str, *, stream: bool = False, **more: Any) -> bytes:
    """A small valid request body."""
    value = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    return json.dumps({**value, "stream": True} if stream else value, separators=(",", ":")).encode()


def call(model: str, *, stream: bool = False, key: str = KEY, extra: str = "", **more: Any) -> bytes:
    """A whole valid request; `extra` are header lines."""
    content = body(model, stream=stream, **more)
    return f"{head(key)}{extra}Content-Length: {len(content)}\r\n\r\n".encode("latin-1") + content


def head(key: str = KEY) -> str:
    """The first lines of a valid request."""
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gw.test\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    )


def piece(content: str | None = None, *, finish: str | None = None) -> str:
    """A chat.completion.chunk as JSON text."""
    value = chunk() if content is None else chunk(content=content)
    value["choices"][0]["finish_reason"] = finish
    return json.dumps(value, ensure_ascii=False)


_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
WORDS: Mapping[str, str] = {
    **NAMES,
    "KEY": KEY,
    "KEY:-1": KEY[:-1],
    "KEY_A_ONLY": KEY_A_ONLY,
    "PROVIDER_KEY": PROVIDER_KEY,
    "PROVIDER_KEY_A": PROVIDER_KEY,
    "okbody": OK_BODY,
    "stop": piece(finish="stop"),
    "usage": json.dumps({**chunk(), "choices": [], "usage": _USAGE}),
    '"{{"': "{{",
}


def words(model: str, **more: str) -> dict[str, str]:
    """What stands for {{WORDS}} in a case that asks for this model."""
    plain, streamed = body(model).decode(), body(model, stream=True).decode()
    own = {"B": plain, "BL": str(len(plain)), "BL:x": f"{len(plain):x}", "BS": streamed, "BLS": str(len(streamed))}
    return {**WORDS, "H": head(), **own, **more}


def fill(text: str, known: Mapping[str, str] = WORDS) -> str:
    """The text with every {{WORD}} replaced; an unknown word is an error."""

    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        if name in known:
            return known[name]
        if name.startswith("c:"):
            return piece(name[2:])
        if many := REPEATED.fullmatch(name):
            return many[1] * int(many[2])
        if many := COUNTED.fullmatch(name):
            return {"a": "a", "sp": " "}[many[2]] * int(many[1])
        raise LookupError(f"unknown word in a case: {found[0][:80]}")

    return TOKEN.sub(replaced, text)


def filled(value: Any, known: Mapping[str, str] = WORDS) -> Any:
    """A case's value with every word in it replaced."""
    if isinstance(value, str):
        return fill(value, known)
    if isinstance(value, list):
        return [filled(each, known) for each in value]
    if isinstance(value, dict):
        return {name: filled(each, known) for name, each in value.items()}
    return value
