"""gateway.traits: what a routing may ask about a request."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.envelope import Envelope, open_envelope
from gateway.traits import has_images, has_tools, input_tokens, size_of, sticky_key

SYSTEM = {"role": "system", "content": "Be brief."}
HI = {"role": "user", "content": "Hi"}
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}


def chat(*messages: Any, headers: dict[str, str] | None = None, **body: Any) -> Envelope:
    return open_envelope(orjson.dumps({"model": "m", "messages": list(messages), **body}), headers or {})


def test_an_image_is_a_part_of_a_message() -> None:
    assert has_images(chat(SYSTEM, PICTURE))
    assert not has_images(chat(HI))
    assert not has_images(chat({"role": "user", "content": "image_url"}))
    assert not has_images(chat({"role": "user", "content": [{"type": "text", "text": "image_url"}]}))
    assert not has_images(chat("image_url", None))
    assert not has_images(open_envelope(b'{"model":"m"}'))


def test_tools_are_offered_or_not() -> None:
    assert has_tools(chat(HI, tools=[{"type": "function", "function": {"name": "f"}}]))
    assert not has_tools(chat(HI, tools=[]))
    assert not has_tools(chat(HI))


def test_four_bytes_are_about_a_token() -> None:
    assert input_tokens(chat({"role": "user", "content": "x" * 40_000})) == pytest.approx(10_000, rel=0.01)


def test_an_answer_is_thought_no_longer_than_any_model_writes() -> None:
    assert size_of(chat(HI, max_tokens=2**63 - 1)).answer == 10_000_000
    assert size_of(chat(HI, max_tokens=-5)).answer == 0


@pytest.mark.parametrize("name", ["user", "safety_identifier", "prompt_cache_key"])
def test_a_user_is_known_by_any_of_three_fields(name: str) -> None:
    assert sticky_key("user", chat(HI, **{name: "u-1"})) == b"u-1"


@pytest.mark.parametrize("value", [None, "", 7, ["u"]])
def test_a_request_of_nobody_sticks_to_nothing(value: object) -> None:
    assert sticky_key("user", chat(HI, user=value)) is None


def test_a_header_is_found_however_it_is_written() -> None:
    assert sticky_key("header:X-Session", chat(HI, headers={"x-session": "s1"})) == b"s1"
    assert sticky_key("header:X-Session", chat(HI)) is None


def test_the_turns_of_a_conversation_begin_alike() -> None:
    first = sticky_key("prefix", chat(SYSTEM, HI))
    later = sticky_key("prefix", chat(SYSTEM, HI, {"role": "assistant", "content": "Hello"}, HI, temperature=1))
    assert first == later is not None
    assert sticky_key("prefix", chat(SYSTEM, {"role": "user", "content": "Ho"})) != first
    assert sticky_key("prefix", chat(HI)) != first


@pytest.mark.parametrize("messages", [b"7", b'"x"', b"[1]", b"null"])
def test_what_is_no_list_of_messages_sticks_to_nothing(messages: bytes) -> None:
    assert sticky_key("prefix", open_envelope(b'{"model":"m","messages":%b}' % messages)) is None
    assert sticky_key("prefix", open_envelope(b'{"model":"m"}')) is None
