"""What OpenAI-like providers say when they refuse, in whichever of their shapes, as our error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from gateway.errors import UpstreamError
from gateway.refusals import plain_text, refusal

ReadError = Callable[[int, Mapping[str, str], bytes], UpstreamError]


class Refusal(NamedTuple):
    """The parts of an error object, as they came; `error` is the object itself where there was one."""

    message: str = ""
    code: Any = None
    kind: Any = None
    param: Any = None
    error: Mapping[str, Any] = {}


def error_reader(provider: str, account: frozenset[int] = frozenset()) -> ReadError:
    """A provider's `read_error`; `account` are statuses that speak of our account like a 403."""

    def read_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        said = read_refusal(body)
        return refusal(
            403 if status in account else status,
            said.message,
            provider=provider,
            headers=headers,
            code=said.code,
            kind=said.kind,
            param=said.param,
        )

    return read_error


def read_refusal(body: bytes) -> Refusal:
    """Take an error apart: OpenAI's object, a plain string, FastAPI's `detail`, a gateway's `fault`, or text."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Refusal(plain_text(body))
    if isinstance(said, list) and said:
        said = said[0]
    if not isinstance(said, dict):
        return Refusal(said if isinstance(said, str) else "")
    error = said.get("error")
    if isinstance(error, dict):
        return Refusal(_message(error), error.get("code"), error.get("type"), error.get("param"), error)
    return Refusal(_message(said), said.get("code"), said.get("type"), said.get("param"), said)


def _message(said: Mapping[str, Any]) -> str:
    """The most telling text: some providers send a sentence as `error` and a longer one as `message`."""
    texts = [said.get("message"), said.get("error"), said.get("detail"), said.get("fault")]
    return next((text for value in texts if (text := _text(value))), "")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_text, value[:5])))
    if isinstance(value, dict):
        return next((text for name in ("msg", "message", "faultstring") if (text := _text(value.get(name)))), "")
    return ""
