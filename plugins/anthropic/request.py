"""A hub request as a Messages request."""

from __future__ import annotations

import re
from typing import Any

import orjson

from gateway.contract import ChatRequest, Target, UpstreamRequest
from gateway.conversation import modern
from gateway.errors import InvalidRequest
from gateway.fields import DETAIL, SPEAKER, Applied, apply, tell_losses
from gateway.hub import Json
from plugins.anthropic.job import Job, book_of
from plugins.anthropic.table import CLASSIC, meaningful, table, without_sampling
from plugins.anthropic.thoughts import think
from plugins.anthropic.tools import add_tools
from plugins.anthropic.turns import to_turns

MAX_MARKS = 4
FILES_BETA = "files-api-2025-04-14"
_LONG_OUTPUT = ("output-300k-2026-03-24", 300_000)
_EMAIL_OR_PHONE = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+|\+?[\d\s().-]{7,20}")


def build_request(chat: ChatRequest, target: Target) -> UpstreamRequest:
    """The POST to /v1/messages; a pure function of its arguments, the same bytes each time."""
    applied = build_body(chat, target)
    headers = {"content-type": "application/json", "anthropic-version": target.options.get("api_version", CLASSIC)}
    if betas := beta_header(chat, target, applied.values):
        headers["anthropic-beta"] = betas
    return UpstreamRequest(
        url=f"{target.base_url.rstrip('/')}/v1/messages",
        body=encoded(applied.values),
        headers=headers,
        dropped=tuple(applied.dropped),
        translated=tuple(applied.translated),
    )


def encoded(body: Json) -> bytes:
    """The body as bytes; a value that JSON cannot hold or that is nested too deeply is the client's mistake."""
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise InvalidRequest("The request is nested too deeply.") from error


def build_body(chat: ChatRequest, target: Target) -> Applied:
    """The Messages body in `values`, and the names to tell the client; for every host that takes such a body.

    It holds `model` and, for a stream, `stream`: a host that wants these elsewhere (Vertex, Bedrock) takes them out.
    """
    given = meaningful(chat.parsed(), target)
    applied = apply(table(target), given, target)
    tell_losses(given, applied, (SPEAKER, DETAIL))
    for name in ("functions", "function_call"):
        if given.get(name) is not None and name not in applied.dropped:
            applied.translate(name)
    asked = {name: value for name, value in given.items() if name not in target.without}
    request = modern(asked)
    job = Job(request, target, applied, book_of(request))
    values = applied.values
    system, messages = to_turns(job)
    _set_limit(job, chat)
    thinking = think(job, messages)
    add_tools(job, system, thinking)
    _set_sampling(job, thinking)
    _set_identity(job)
    body: Json = {"model": target.model, **values, "messages": messages}
    if system:
        body["system"] = system
    if chat.stream:
        body["stream"] = True
    _limit_marks(body, applied)
    applied.values = _with_native(body, request.get("anthropic"))
    applied.dropped = [_given_name(name, given) for name in applied.dropped]
    applied.translated = list(dict.fromkeys(_given_name(name, given) for name in applied.translated))
    return applied


def _given_name(name: str, given: Json) -> str:
    """The name that the client used for what `modern` renamed."""
    return name if name in given else {"tool_choice": "function_call", "tools": "functions"}.get(name, name)


def _set_limit(job: Job, chat: ChatRequest) -> None:
    """`max_tokens` is required: the client's within what the model can answer, else all of that."""
    cap = job.can("max_output")
    name = "max_completion_tokens" if job.asked("max_completion_tokens") is not None else "max_tokens"
    wanted = job.asked(name)
    if wanted is None:
        job.applied.values["max_tokens"] = cap
        return
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or wanted != wanted // 1 or wanted < 0:
        raise InvalidRequest(f"'{name}' must be a whole number that is not negative.", param=name)
    if wanted > cap and _LONG_OUTPUT[0] in _betas(chat, job.target):
        cap = _LONG_OUTPUT[1]
    job.applied.values["max_tokens"] = min(int(wanted), cap)
    if wanted > cap:
        job.applied.translate(name)


def _set_sampling(job: Job, thinking: bool) -> None:
    """Leave out what the model refuses beside thinking or beside each other."""
    values = job.applied.values
    if thinking and not without_sampling(job.target):
        # 0.95 to 1 is taken while thinking: recorded several times with 200.
        top_p = values.get("top_p")
        near = isinstance(top_p, int | float) and top_p >= 0.95
        for name in ("temperature", "top_k") if near else ("temperature", "top_p", "top_k"):
            _leave_out(job, name, "is not taken by this model while it thinks")
    if job.can("sampling") == "either" and "temperature" in values:
        _leave_out(job, "top_p", "is not taken by this model beside temperature")


def _leave_out(job: Job, name: str, why: str) -> None:
    value = job.applied.values.pop(name, None)
    if value is None or job.asked(name) == 1:  # 1 is what leaving it out means
        return
    job.applied.drop(name, why)
    if name in job.applied.translated:
        job.applied.translated.remove(name)


def _set_identity(job: Job) -> None:
    """The end user's id for the provider's abuse checks, which refuse e-mail addresses and phone numbers."""
    metadata = job.asked("metadata")
    inner = metadata if isinstance(metadata, dict) else {}
    if metadata is not None and set(inner) != {"user_id"}:
        job.applied.drop("metadata", "has keys that this provider does not take; only user_id is")
    candidates = (
        ("safety_identifier", job.asked("safety_identifier")),
        ("user", job.asked("user")),
        ("metadata", inner.get("user_id")),
    )
    for name, value in candidates:
        if value is None:
            continue
        if not isinstance(value, str) or not value or len(value) > 256 or _EMAIL_OR_PHONE.fullmatch(value):
            job.applied.drop(name, "is no id that this provider takes")
        elif "metadata" not in job.applied.values:
            job.applied.values["metadata"] = {"user_id": value}


def _limit_marks(body: Json, applied: Applied) -> None:
    """Keep the last cache marks that fit: the provider takes four, its automatic one included."""
    room = MAX_MARKS - ("cache_control" in body)
    places = [body.get("tools") or [], body.get("system") or [], *(turn["content"] for turn in body["messages"])]
    found = [(place, at) for place in places for at, block in enumerate(place) if block.get("cache_control")]
    for place, at in found[: max(len(found) - room, 0)]:
        place[at] = {key: value for key, value in place[at].items() if key != "cache_control"}
        applied.drop("cache_control", "stands in more places than this provider takes")


_OURS = ("model", "stream", "messages")


def _with_native(body: Json, native: Any) -> Json:
    """The body with the client's own `anthropic` object over it, one level deep."""
    if native is None:
        return body
    if not isinstance(native, dict) or any(name in native for name in _OURS):
        raise InvalidRequest(f"'anthropic' must be an object without {', '.join(_OURS)}.", param="anthropic")
    merged = dict(body)
    for name, value in native.items():
        before = merged.get(name)
        if name != "betas":
            merged[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def beta_header(chat: ChatRequest, target: Target, body: Json) -> str:
    """The betas of the configuration and of the client, each once, and those that the body needs."""
    betas = _betas(chat, target)
    if any(_is_file(block) for turn in body["messages"] for block in turn["content"]):
        betas.append(FILES_BETA)
    return ",".join(dict.fromkeys(betas))


def _betas(chat: ChatRequest, target: Target) -> list[str]:
    native = chat.get("anthropic")
    own = native.get("betas") if isinstance(native, dict) else None
    sources = (target.options.get("beta"), chat.headers.get("anthropic-beta"), own)
    return [beta for source in sources for beta in _split(source)]


def _split(source: Any) -> list[str]:
    items = source if isinstance(source, list | tuple) else str(source or "").split(",")
    return [beta for item in items if (beta := str(item).strip())]


def _is_file(block: Json) -> bool:
    inner = block.get("content")
    if isinstance(inner, list) and any(isinstance(one, dict) and _is_file(one) for one in inner):
        return True
    source = block.get("source")
    return block["type"] == "container_upload" or (isinstance(source, dict) and source.get("type") == "file")
