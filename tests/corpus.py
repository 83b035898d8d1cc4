"""Recorded provider traffic, read from the folder `shared` beside the project; tests skip where it is absent."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"

Case = dict[str, Any]


def cases(provider: str, *, kind: str = "", framing: str = "", endpoint: str = "") -> list[Any]:
    """The cases of one provider, those of `_reported` included, as pytest parameters named by their ids.

    Where the corpus is absent there is one parameter, marked to be skipped with the reason.
    """
    if not CORPUS.is_dir():
        return [pytest.param({}, id="corpus", marks=pytest.mark.skip(reason=f"no recorded traffic at {CORPUS.name}"))]
    wanted = {"provider": provider, "kind": kind, "framing": framing, "endpoint": endpoint}
    rows = [row for row in _index() if all(row[name] == value for name, value in wanted.items() if value)]
    return [pytest.param(case(row["file"]), id=row["id"]) for row in rows]


@cache
def _index() -> list[Case]:
    rows: list[Case] = json.loads((CORPUS / "index.json").read_bytes())
    return rows


@cache
def case(file: str) -> Case:
    """One case by its path inside the corpus."""
    loaded: Case = json.loads((CORPUS / file).read_bytes())
    return loaded


def body(case: Case) -> bytes:
    """The bytes of the case's answer, whichever way they were kept."""
    response = case["response"]
    if "body_base64" in response:
        return base64.b64decode(response["body_base64"])
    if "body_text" in response:
        return str(response["body_text"]).encode()
    return json.dumps(response["body"], ensure_ascii=False).encode()


@cache
def schema(name: str) -> Case:
    """A JSON Schema of the corpus: `chat-strict`, `chat-real` or `chat`; skips where the corpus is absent."""
    if not CORPUS.is_dir():
        pytest.skip(f"no recorded traffic at {CORPUS.name}")
    loaded: Case = json.loads((CORPUS / "schema" / f"{name}.schema.json").read_bytes())
    return loaded
