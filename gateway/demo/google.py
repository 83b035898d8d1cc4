"""Google's generateContent, for the Developer API and Vertex AI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.demo import google_rules
from gateway.demo.answers import (
    ANY_JSON,
    Answer,
    Ask,
    Tool,
    interleaved,
    pieces,
    prompt_tokens,
    sums,
    text_of,
    tokens,
)
from gateway.demo.turns import current
from gateway.demo.wire import Incoming, Place, Refused, Reply, Wire, data, dump
from gateway.hub import Json

CRLF = b"\r\n\r\n"
FINISHES = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def read(incoming: Incoming) -> Ask:
    """What the request asks for."""
    body = google_rules.camel(incoming.body)
    google_rules.check(body, incoming.model)
    wanted = body.get("generationConfig") or {}
    contents = body["contents"]
    said, turn = current(contents, google_rules.spoken)
    return Ask(
        provider="google",
        model=incoming.model,
        serial=incoming.serial,
        stream=incoming.operation == "streamGenerateContent",
        text=text_of(said and said["parts"]),
        prompt=prompt_tokens([contents, body.get("systemInstruction"), body.get("tools")]),
        tools=_tools(body),
        choice=_choice(body),
        results=tuple(_results(turn)),
        rounds=sum(content.get("role") == "model" for content in turn),
        schema=_schema(wanted),
        stop=tuple(wanted.get("stopSequences") or ()),
        max_tokens=wanted.get("maxOutputTokens"),
        thinking=bool((wanted.get("thinkingConfig") or {}).get("includeThoughts")),
        prefaced=True,
        count=wanted.get("candidateCount") or 1,
        options={**wanted, "sse": incoming.query.get("alt") == "sse"},
    )


def _tools(body: Json) -> tuple[Tool, ...]:
    declared = [each for tool in body.get("tools") or () for each in tool.get("functionDeclarations", ())]
    allowed = google_rules.calling(body).get("allowedFunctionNames")
    return tuple(
        Tool(each["name"], each.get("parametersJsonSchema") or each.get("parameters") or {})
        for each in declared
        if not allowed or each["name"] in allowed
    )


def _choice(body: Json) -> str:
    return {"ANY": "required", "NONE": "none"}.get(google_rules.calling(body).get("mode", "AUTO"), "auto")


def _results(turn: Sequence[Json]) -> Iterator[str]:
    for content in turn:
        for part in content["parts"]:
            if "functionResponse" in part:
                response = part["functionResponse"]["response"]
                yield str(response.get("output") or response.get("error") or response)


def _schema(wanted: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if wanted.get("responseMimeType") != "application/json":
        return None
    schema: Mapping[str, Any] = wanted.get("responseJsonSchema") or wanted.get("responseSchema") or ANY_JSON
    return schema


def _usage(ask: Ask, answers: Sequence[Answer]) -> Json:
    said, thought = sums(answers)
    made = {
        "promptTokenCount": ask.prompt,
        "candidatesTokenCount": said,
        "thoughtsTokenCount": thought,
        "totalTokenCount": ask.prompt + said + thought,
    }
    # Proto3 leaves out what is zero.
    counts: Json = {name: count for name, count in made.items() if count}
    return {**counts, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": ask.prompt}]}


def _early_usage(ask: Ask) -> Json:
    return {"promptTokenCount": ask.prompt, "totalTokenCount": ask.prompt}


def _frame(ask: Ask, candidates: list[Json], usage: Json) -> Json:
    made = {"candidates": candidates, "usageMetadata": usage, "modelVersion": ask.model}
    return {**made, "responseId": f"demo{ask.serial:08d}"}


def _candidate(number: int, parts: list[Json]) -> Json:
    return {"content": {"parts": parts, "role": "model"}, "index": number}


def _calls(ask: Ask, answer: Answer) -> list[Json]:
    parts: list[Json] = []
    for at, call in enumerate(answer.calls):
        made: Json = {"name": call.name, "args": call.arguments}
        part: Json = {"functionCall": made}
        if google_rules.signs(ask.model):
            made["id"] = f"demo{ask.serial:08d}x{at}"
            if at == 0:
                part["thoughtSignature"] = google_rules.signature(made)
        parts.append(part)
    return parts


def _parts(ask: Ask, answer: Answer) -> list[Json]:
    parts: list[Json] = [{"text": answer.thinking, "thought": True}] if answer.thinking else []
    if answer.text:
        parts.append({"text": answer.text})
    return [*parts, *_calls(ask, answer)]


def _logprobs(ask: Ask, text: str) -> Json:
    if not ask.options.get("responseLogprobs"):
        return {}
    chosen = [{"token": token, "tokenId": at, "logProbability": -0.1} for at, token in enumerate(tokens(text))]
    top = [{"candidates": [each] * (ask.options.get("logprobs") or 0)} for each in chosen]
    return {"avgLogprobs": -0.1, "logprobsResult": {"chosenCandidates": chosen, "topCandidates": top}}


def whole(ask: Ask, answers: Sequence[Answer]) -> Reply:
    """The answer in one piece."""
    candidates = []
    for number, answer in enumerate(answers):
        parts = _parts(ask, answer)
        candidate = _candidate(number, parts) if parts else {"content": {"role": "model"}, "index": number}
        finish = FINISHES.get(answer.finish, "STOP")
        candidates.append({**candidate, "finishReason": finish, **_logprobs(ask, answer.text)})
    return Reply(200, dump(_frame(ask, candidates, _usage(ask, answers))))


def stream(ask: Ask, answers: Sequence[Answer]) -> Iterator[bytes]:
    """The answer as events: server-sent with CRLF, or the items of one JSON array."""
    responses = list(_responses(ask, answers))
    if ask.options["sse"]:
        yield from (data(each, CRLF) for each in responses)
        return
    for at, each in enumerate(responses):
        yield (b"[" if at == 0 else b",\r\n") + dump(each) + (b"]" if at == len(responses) - 1 else b"")


def _responses(ask: Ask, answers: Sequence[Answer]) -> Iterator[Json]:
    for number, parts in interleaved([_steps(ask, answer) for answer in answers]):
        yield _frame(ask, [_candidate(number, parts)], _early_usage(ask))
    for number, answer in enumerate(answers):
        last = {**_candidate(number, [{"text": ""}]), "finishReason": FINISHES.get(answer.finish, "STOP")}
        yield _frame(ask, [last], _usage(ask, answers))


def _steps(ask: Ask, answer: Answer) -> list[list[Json]]:
    """The parts of each event; all calls share one."""
    steps: list[list[Json]] = [[{"text": piece, "thought": True}] for piece in pieces(answer.thinking, ask)]
    steps += [[{"text": piece}] for piece in pieces(answer.text, ask)]
    return [*steps, _calls(ask, answer)] if answer.calls else steps


def error(refused: Refused) -> Json:
    """Google's error object."""
    status = refused.kind or STATUSES.get(refused.status, "UNKNOWN")
    made: Json = {"code": refused.status, "message": refused.message, "status": status}
    if refused.status == 429:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        made["details"] = [{"@type": kind, "retryDelay": "2.5s"}]
    if refused.code:
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        made["details"] = [{"@type": kind, "reason": refused.code, "domain": "googleapis.com"}]
    return {"error": made}


def refuse(refused: Refused, place: Place) -> Reply:
    """The error as Google writes it."""
    made = error(refused)
    if place.operation == "streamGenerateContent":
        # Recorded: plain JSON under the stream's own type, or the array that the stream would have been.
        if place.alt == "sse":
            return Reply(refused.status, dump(made), content_type="text/event-stream")
        return Reply(refused.status, dump([made]))
    return Reply(refused.status, dump(made), content_type="application/json; charset=UTF-8")


TROUBLES: dict[str, Refused] = {
    "fail": Refused("An internal error has occurred.", 500),
    "overloaded": Refused("You exceeded your current quota. Please retry in 2.5s.", 429),
    "busy": Refused("The model is overloaded. Please try again later.", 503),
    "error400": Refused("The demo refuses this on purpose.", 400),
    # A bad key is a 400 here.
    "auth": Refused("API key not valid. Please pass a valid API key.", 400, code="API_KEY_INVALID"),
    "forbidden": Refused("The caller does not have permission", 403),
    "missing": Refused("models/demo-missing is not found for API version v1beta.", 404),
    "context": Refused("The input token count (9) exceeds the maximum number of tokens allowed (8).", 400),
}


def broken(ask: Ask) -> bytes:
    """An error inside a stream."""
    made = _next(ask, error(TROUBLES["busy"]))
    return made if ask.options["sse"] else made + b"]"


def filler(ask: Ask, size: int) -> bytes:
    """One text event of about `size` bytes."""
    return _next(ask, _frame(ask, [_candidate(0, [{"text": "x" * size}])], _early_usage(ask)))


def _next(ask: Ask, made: Json) -> bytes:
    """What comes later in a stream: an event, or an item of the array."""
    return data(made, CRLF) if ask.options["sse"] else b",\r\n" + dump(made)


def headers(ask: Ask) -> Mapping[str, str]:
    """Headers that Google adds."""
    return {"x-gemini-service-tier": "standard", "server-timing": "gfet4t7; dur=20"}


WIRE = Wire(read, whole, stream, refuse, TROUBLES, broken, filler, headers, "text/event-stream")
