"""The demo refuses nothing that the providers accepted: every recorded request with a good answer passes its rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from gateway.demo import anthropic_rules, bedrock_rules, google_rules, openai_rules
from gateway.demo.wire import Refused
from gateway.hub import Json

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus"
pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the recorded traffic is not beside this checkout")

# The demo knows only its own signatures, no retired names, and no enums written as numbers.
EXPECTED = ("Invalid `signature`", "Thought signature is not valid", "output_format: Extra inputs")
ODD = frozenset(
    ("gemini/gemini-021-chat-testgoogleaiwithjsonmode", "gemini/gemini-049-stream-testgoogleaitoolcallresponse")
)


def _model(path: str) -> str:
    found = re.search(r"/models?/([^:/]+)", path)
    return unquote(found[1]) if found else ""


def _like(flavour: str) -> Callable[[Json, Json], None]:
    return lambda body, request: openai_rules.check({"model": "a deployment", **body}, flavour)


def _anthropic(body: Json, request: Json) -> None:
    anthropic_rules.check(body, (request.get("headers") or {}).get("anthropic-version", "2023-06-01"))


CHECKS: dict[tuple[str, str], Callable[[Json, Json], None]] = {
    **{(flavour, "chat"): _like(flavour) for flavour in ("openai", "azure", "together", "fireworks", "xai")},
    ("anthropic", "messages"): _anthropic,
    **{
        ("gemini", verb): lambda body, request: google_rules.check(google_rules.camel(body), _model(request["path"]))
        for verb in ("generateContent", "streamGenerateContent")
    },
    **{
        ("bedrock", verb): lambda body, request: bedrock_rules.check(body, _model(request["path"]))
        for verb in ("converse", "converse-stream")
    },
}


def accepted() -> Iterator[Any]:
    """Every accepted request: provider and endpoint, and the request."""
    for file in sorted(CORPUS.glob("*/*.json")):
        name = f"{file.parent.name}/{file.stem}"
        if file.parent.name in ("schema", "_reported") or name in ODD:
            continue
        case = json.loads(file.read_bytes())
        if "members" in case:
            for provider, member in case["members"].items():
                yield pytest.param((provider, member["endpoint"]), member, id=f"{name}-{provider}")
        elif case["request"] and case["response"]["status"] == 200:
            yield pytest.param((case["provider"], case["endpoint"]), case["request"], id=name)


@pytest.mark.parametrize(("place", "request_"), list(accepted()))
def test_what_a_provider_accepted_is_accepted(place: tuple[str, str], request_: Json) -> None:
    if place not in CHECKS or not isinstance(request_.get("body"), dict):
        pytest.skip("another endpoint, or the body was not kept")
    try:
        CHECKS[place](request_["body"], request_)
    except Refused as refused:
        assert any(each in refused.message for each in EXPECTED), refused.message
