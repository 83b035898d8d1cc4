"""What whole answers and streams of Claude have in common: reasons, counts, names, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.contract import ChatRequest, Target, Usage
from gateway.conversation import ToolNames, carry, modern
from gateway.errors import UpstreamError
from gateway.hub import Json
from gateway.refusals import plain_text, refusal
from plugins.anthropic.blocks import THOUGHTS_KEY
from plugins.anthropic.job import book_of, json_tool, wanted_schema, wrapped

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "compaction": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# Reasons that the hub's word says completely: a stream need not repeat them in the provider's words.
PLAIN = frozenset(("end_turn", "max_tokens", "tool_use"))
DECLINED = "The model declined to answer."
# A deployment that lists this under `emulate` gets signed thoughts inside tool-call ids as well, for clients that drop
# unknown fields. Not by itself: such ids are longer than the 40 characters that OpenAI takes when a routing falls back.
CARRIED = "thinking"
_SHAPES = ("tools", "functions", "response_format", "guided_json")


@dataclass(frozen=True, slots=True)
class Reading:
    """How one answer is read, given what was asked.

    `json` is the tool whose input is the content, `unwrap` says that it stands under `values`. `custom` are the
    client's tools that take free text. `legacy` clients get one function_call. `carries`: signed thoughts go into ids.
    """

    names: ToolNames | None = None
    json: str = ""
    unwrap: bool = False
    custom: frozenset[str] = frozenset()
    legacy: bool = False
    carries: bool = False

    def name(self, native: str) -> str:
        """The client's name of a tool."""
        return self.names.client(native) if self.names else native

    def call_id(self, native: str, thoughts: Sequence[Json]) -> str:
        """The id of a turn's first call, with the thoughts before it inside where the deployment wants that."""
        return carry(native, {THOUGHTS_KEY: list(thoughts)}) if self.carries and thoughts else native

    def content(self, text: str) -> str:
        """The content that the JSON tool's input stands for; what is cut short stays as it is."""
        if not self.unwrap:
            return text
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return compact(found["values"]) if isinstance(found, dict) and "values" in found else text


def reading_of(chat: ChatRequest, target: Target) -> Reading:
    """How the answer to this request is read."""
    carries = CARRIED in target.emulate
    parsed = chat.parsed()
    if not any(parsed.get(name) for name in _SHAPES):
        return Reading(carries=carries)
    request = modern({name: value for name, value in parsed.items() if name not in target.without})
    tools = [tool for tool in request.get("tools") or () if isinstance(tool, dict)]
    custom = [tool["custom"] for tool in tools if isinstance(tool.get("custom"), dict)]
    schema = wanted_schema(request)
    name = json_tool(request, target)
    return Reading(
        names=book_of(request),
        json=name,
        unwrap=bool(name and schema and wrapped(schema[1])),
        custom=frozenset(str(one.get("name")) for one in custom),
        legacy=bool(parsed.get("functions")) and not parsed.get("tools"),
        carries=carries,
    )


def compact(value: Any) -> str:
    """JSON without white space."""
    return orjson.dumps(value).decode()


def custom_input(arguments: str) -> str:
    """The free text inside a custom tool's arguments."""
    try:
        found = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    return str(found.get("input", arguments)) if isinstance(found, dict) else arguments


def url_citation(citation: Mapping[str, Any], start: int, end: int) -> Json | None:
    """The annotation for a citation of a web page; None for one of the client's own documents."""
    url = citation.get("url")
    if not isinstance(url, str):
        return None
    place = {"start_index": start, "end_index": end, "url": url, "title": citation.get("title") or ""}
    return {"type": "url_citation", "url_citation": place}


def usage_of(native: Mapping[str, Any]) -> Usage | None:
    """The provider's counts by the hub's rules; None when it gave none.

    Where the answer took several iterations (compaction), what was billed is their sum.
    """
    rounds = native.get("iterations")
    if isinstance(rounds, list) and rounds and all(isinstance(one, dict) for one in rounds):
        kinds = {one.get("type") for one in rounds}
        if "compaction" in kinds and "fallback_message" not in kinds:
            billed = [one for one in rounds if one.get("type") in ("compaction", "message")]
            native = {**native, **{name: sum(one.get(name) or 0 for one in billed) for name in _COUNTS}}
    read, fresh, cached, written = (_count(native.get(name)) for name in _COUNTS)
    if read is None and fresh is None:
        return None
    details = native.get("output_tokens_details")
    return Usage(
        prompt=None if fresh is None else fresh + (cached or 0) + (written or 0),
        completion=read,
        cached=cached,
        cache_written=written or None,
        reasoning=_count(details.get("thinking_tokens")) if isinstance(details, dict) else None,
    )


_COUNTS = ("output_tokens", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def error_of(status: int, headers: Mapping[str, str], answer: Any, text: str = "") -> UpstreamError:
    """Our error for an error object of the provider, which may have come inside a 200."""
    answer = answer if isinstance(answer, dict) else {}
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    message = error.get("message")
    message = message if isinstance(message, str) else text
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    if status == 400 and "exceed context limit" in message:
        code = "context_length_exceeded"
    found = refusal(status, message, provider="anthropic", headers=headers, code=code, kind=error.get("type"))
    request_id = answer.get("request_id") or headers.get("request-id")
    if isinstance(request_id, str):
        found.details = {**found.details, "request_id": request_id[:100]}
    return found


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """An answer that is an error, as ours."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return error_of(status, headers, None, plain_text(body))
    return error_of(status, headers, answer)
