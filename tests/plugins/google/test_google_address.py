"""Where requests go, with which credential, and which names may stand in a URL."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.contract import Credential
from gateway.errors import InvalidRequest
from plugins.google import PROVIDER
from tests.plugins.google.samples import chat, target

BASE = "https://generativelanguage.googleapis.com"


def url(model: str, stream: bool = False, **changes: Any) -> str:
    assert PROVIDER.chat is not None
    return PROVIDER.chat.build_request(chat(stream=stream), target(model, **changes)).url


def vertex(location: str | None = None, model: str = "gemini-2.5-pro", **changes: Any) -> str:
    options = {"project": "acme-1", **({"location": location} if location else {})}
    return url(model, options=options, **changes)


@pytest.mark.parametrize("name", ["gemini-2.5-pro", "models/gemini-2.5-pro"])
def test_the_developer_api_is_the_default(name: str) -> None:
    assert url(name) == f"{BASE}/v1beta/models/gemini-2.5-pro:generateContent"
    assert url(name, stream=True) == f"{BASE}/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"


def test_a_tuned_model_has_its_own_collection() -> None:
    assert url("tunedModels/ours-1") == f"{BASE}/v1beta/tunedModels/ours-1:generateContent"


def test_another_base_url_keeps_its_prefix() -> None:
    assert url("m", base_url="http://127.0.0.1:9/g/") == "http://127.0.0.1:9/g/v1beta/models/m:generateContent"


@pytest.mark.parametrize(
    ("location", "host", "place"),
    [
        (None, "aiplatform.googleapis.com", "global"),
        ("global", "aiplatform.googleapis.com", "global"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com", "europe-west4"),
        ("eu", "aiplatform.eu.rep.googleapis.com", "eu"),
    ],
)
def test_a_project_means_vertex_at_the_host_of_its_location(location: str | None, host: str, place: str) -> None:
    path = f"/v1/projects/acme-1/locations/{place}"
    assert vertex(location) == f"https://{host}{path}/publishers/google/models/gemini-2.5-pro:generateContent"
    assert vertex(location, "endpoints/77") == f"https://{host}{path}/endpoints/77:generateContent"


def test_a_base_url_of_ones_own_stands_before_vertex_paths_too() -> None:
    assert vertex("global", base_url="https://psc.test").startswith(
        "https://psc.test/v1/projects/acme-1/locations/global/"
    )


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a?b", "a#b", "a%2fb", "a b", "a:b", "é", ".", "..", "", "models/", "a" * 300, "a\n"]
)
def test_a_name_that_is_no_path_segment_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        url(name)
    if name:
        assert [problem.option for problem in PROVIDER.check({}, name)] == ["model"]


@pytest.mark.parametrize(
    "name", ["*", "", "gemini-2.5-pro", "models/gemma-3-27b-it", "tunedModels/a", "gemini-1.5-pro@001"]
)
def test_a_name_that_is_one_is_not(name: str) -> None:
    assert PROVIDER.check({}, name) == []


@pytest.mark.parametrize("name", ["gemini-2.5-pro", "publishers/google/models/gemini-2.5-pro", "endpoints/77"])
def test_a_name_that_is_one_on_vertex_is_not(name: str) -> None:
    assert PROVIDER.check({"project": "acme-1", "location": "us-central1"}, name) == []
    assert vertex(model=name).endswith(":generateContent")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"project": "a/b"}, "project"),
        ({"project": "acme-1", "location": "evil.test/"}, "location"),
        ({"location": "global"}, "location"),
        ({"credentials": "x.json"}, "credentials"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], wrong: str) -> None:
    assert [problem.option for problem in PROVIDER.check(options, "m")] == [wrong]


def test_a_key_and_a_token_travel_in_headers_only() -> None:
    assert PROVIDER.chat is not None
    request = PROVIDER.chat.build_request(chat(), target())
    assert PROVIDER.authorize(request, Credential("key", "K"), 0) == {"x-goog-api-key": "K"}
    assert PROVIDER.authorize(request, Credential("bearer", "T"), 0) == {"authorization": "Bearer T"}
    assert "key=" not in request.url


@pytest.mark.parametrize(
    ("options", "source"), [({}, "key"), ({"project": "acme-1"}, "google"), ({"credentials": "c.json"}, "google")]
)
def test_a_project_needs_tokens_that_are_renewed(options: dict[str, Any], source: str) -> None:
    assert PROVIDER.credential(options) == source
