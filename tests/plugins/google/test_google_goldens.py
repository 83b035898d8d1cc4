"""The translation that the specification gives as validated, read from the folder `shared` beside the project."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.corpus import CORPUS
from tests.plugins.google.samples import accept, built

GOLDENS = CORPUS.parent / "providers" / "goldens.md"


def blocks() -> dict[str, Any]:
    """The JSON under each heading."""
    if not GOLDENS.is_file():
        pytest.skip("no goldens beside the project")
    found = re.findall(r"^### (.+?)\n\n```json\n(.+?)\n```", GOLDENS.read_text(), re.M | re.S)
    return {name: json.loads(text) for name, text in found}


def test_the_golden_conversation_reaches_gemini_3_as_validated() -> None:
    known = blocks()
    asked = {name: value for name, value in known["Input (OpenAI)"].items() if name != "model"}
    body = built("gemini-3-flash-preview", **asked)
    assert body == known["Gemini 3"]
    accept(body)


def test_gemini_2_5_is_sent_the_same_without_ids_and_signatures() -> None:
    known = blocks()
    asked = {name: value for name, value in known["Input (OpenAI)"].items() if name != "model"}
    expected = known["Gemini 3"]
    for part in (part for turn in expected["contents"] for part in turn["parts"]):
        part.pop("thoughtSignature", None)
        for name in ("functionCall", "functionResponse"):
            part.get(name, {}).pop("id", None)
    assert built("gemini-2.5-flash", **asked) == expected
