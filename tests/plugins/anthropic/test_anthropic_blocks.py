"""Parts of messages as content blocks, and the cache marks on them."""

from __future__ import annotations

import json

import pytest

from gateway.errors import InvalidRequest, UnsupportedParameter
from plugins.anthropic import build_body
from tests.plugins.anthropic.anthropic_support import USER, build, chat, sent, target
from tests.plugins.anthropic.conversations import TOOL, calls, result, system, text


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,aa"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "aa"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example/x.png", "detail": "low"}},
            {"type": "image", "source": {"type": "url", "url": "https://a.example/x.png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:application/pdf;base64,aa"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aa"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,aa", "filename": "a.pdf"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "aa"},
                "title": "a.pdf",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/octet-stream;base64,aa", "filename": "A.PDF"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "aa"},
                "title": "A.PDF",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/csv;base64,YSxi", "filename": "a.csv"}},
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "a,b"},
                "title": "a.csv",
            },
        ),
        (
            {"type": "file", "file": {"file_data": "https://a.example/x.pdf"}},
            {"type": "document", "source": {"type": "url", "url": "https://a.example/x.pdf"}},
        ),
        (
            {"type": "file", "file": {"file_id": "file_1"}},
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        ),
        (
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                "cache_control": None,
            },
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
        ),
        ({"type": "refusal", "refusal": "no"}, {"type": "text", "text": "no"}),
    ],
)
def test_a_part_becomes_a_block(part, block):
    assert sent(messages=[{"role": "user", "content": [part]}])["messages"][0]["content"] == [block]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "aa", "format": "mp3"}},
        {"type": "video_url", "video_url": {"url": "https://a.example/v"}},
        {"type": "image_url", "image_url": {"url": "http://a.example/x.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,aa"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,####"}},
    ],
)
def test_a_part_that_claude_cannot_read_is_refused(part):
    with pytest.raises(InvalidRequest) as caught:
        build(messages=[{"role": "user", "content": [part]}])
    assert caught.value.param == "messages"


def test_a_host_that_fetches_nothing_is_not_given_addresses():
    where = target()
    hosted = type(where)(
        **{name: getattr(where, name) for name in ("provider", "model", "base_url", "family")},
        abilities={**where.abilities, "url_sources": False},
    )
    part = {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}
    with pytest.raises(UnsupportedParameter):
        build_body(chat(messages=[{"role": "user", "content": [part]}]), hosted)


MARK = {"type": "ephemeral"}


def test_a_cache_mark_is_kept_at_every_place():
    body = sent(
        messages=[
            system("S", cache_control=MARK),
            {"role": "user", "content": [text("a"), text("b")], "cache_control": MARK},
            calls("x"),
            result("x", cache_control={"type": "ephemeral", "ttl": "1h"}),
        ],
        tools=[{**TOOL, "cache_control": MARK}],
    )
    assert body["system"][0]["cache_control"] == MARK
    assert body["tools"][0]["cache_control"] == MARK
    first, second = body["messages"][0]["content"]
    assert ("cache_control" in first, second["cache_control"]) == (False, MARK)
    assert body["messages"][2]["content"][0]["cache_control"]["ttl"] == "1h"


def test_a_mark_inside_a_result_stands_on_the_result():
    body = sent(messages=[USER, calls("x"), result("x", [text("a", cache_control=MARK)])])
    (block,) = body["messages"][2]["content"]
    assert block["cache_control"] == MARK
    assert block["content"] == [text("a")]


@pytest.mark.parametrize(("body", "kept"), [({}, 4), ({"cache_control": MARK}, 3)])
def test_the_last_four_marks_are_kept(body, kept):
    parts = [text(str(at), cache_control=MARK) for at in range(6)]
    request = build(messages=[{"role": "user", "content": parts}], **body)
    marks = ["cache_control" in block for block in json.loads(request.body)["messages"][0]["content"]]
    assert marks == [False] * (6 - kept) + [True] * kept
    assert "cache_control" in request.dropped
