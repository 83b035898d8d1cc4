"""What a routing may ask about a request before it chooses: images, tools, size, and whom or what it belongs to."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from gateway.contract import ChatRequest
from gateway.envelope import Envelope

# What one token takes of a request body, roughly; English text has four characters to a token.
BYTES_PER_TOKEN = 4
# What an answer is thought to take when the client sets no bound to it.
ANSWER_TOKENS = 1000
MOST_CHOICES = 128
# No model's answer is longer; a client that names a larger bound must not break anybody's arithmetic.
MOST_TOKENS = 10_000_000
# Who a request belongs to, the first that the client sent.
WHO = ("user", "safety_identifier", "prompt_cache_key")
_IMAGE = b'"image_url"'


class Size(NamedTuple):
    """About how many tokens a request has, and how many its answer may have."""

    prompt: int
    answer: int


NO_SIZE = Size(0, 0)


class _Speaker(msgspec.Struct):
    role: Any = None


_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])
_SPEAKER = msgspec.json.Decoder(_Speaker)


def has_tools(chat: ChatRequest) -> bool:
    """Does it offer tools?"""
    return bool(chat.get("tools"))


def has_images(chat: ChatRequest) -> bool:
    """Does any message hold an image?"""
    if isinstance(chat, Envelope) and _IMAGE not in memoryview(chat.fields.get("messages", b"")).tobytes():
        return False
    messages = chat.parsed().get("messages")
    return isinstance(messages, list) and any(_shows(message) for message in messages)


def input_tokens(chat: ChatRequest) -> int:
    """About how many tokens it is, by the size of its body."""
    return chat.size // BYTES_PER_TOKEN if isinstance(chat, Envelope) else 0


def size_of(chat: ChatRequest) -> Size:
    """How large a request is by the size of its body, and its answer at most, as far as the client says so."""
    most = chat.get("max_completion_tokens")
    if not isinstance(most, int):
        most = chat.get("max_tokens")
    choices = chat.get("n")
    each = min(max(0, most), MOST_TOKENS) if isinstance(most, int) else ANSWER_TOKENS
    return Size(input_tokens(chat), each * (min(max(1, choices), MOST_CHOICES) if isinstance(choices, int) else 1))


def sticky_key(rule: str, chat: ChatRequest) -> bytes | None:
    """What requests that belong together have in common, by `user`, `prefix` or `header:NAME`; None for nothing."""
    if rule == "user":
        said = next((value for name in WHO if isinstance(value := chat.get(name), str) and value), None)
        return said.encode("utf-8", "surrogatepass") if said else None
    if rule == "prefix":
        return _prefix(chat)
    value = chat.headers.get(rule.removeprefix("header:").lower())
    return value.encode("utf-8", "surrogateescape") if value else None


def _shows(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "image_url" for part in content
    )


def _prefix(chat: ChatRequest) -> bytes | None:
    """The model and the messages up to the first of the user: what every turn of a conversation begins with."""
    raw = chat.fields.get("messages") if isinstance(chat, Envelope) else None
    if raw is None:
        return None
    pieces = [chat.model.encode("utf-8", "surrogatepass")]
    try:
        for message in _MESSAGES.decode(raw):
            pieces.append(bytes(message))
            if _SPEAKER.decode(message).role == "user":
                break
    except msgspec.DecodeError:
        # No list of messages: whoever serves the request will say so.
        return None
    return b"\n".join(pieces)
