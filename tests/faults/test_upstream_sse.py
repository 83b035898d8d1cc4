"""Faulty and odd event streams: what the client puts together, and how it learns of an end that is none."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from faults.casefiles import Case, call, cases, fill, filled, parameters, words
from faults.harness import Results, drive_all
from faults.judging import Check, Outcome
from faults.planned import Moment
from faults.serving import AWS_KEY, AWS_SECRET, PROVIDER_KEY, Gateway, deployment, openai, profile, serving
from faults.wireclient import ask
from upstreams import ScriptedUpstream

from gateway.eventstream import encode

FILE = cases("upstream_sse")
OK = [{"t": "{{OK}}"}]
KINDS = {"openai": "text/event-stream", "anthropic": "text/event-stream", "gemini": "text/event-stream"}
PAUSE = 0.02
STALE_COMMENTS = "SE-009"

Steps = list[dict[str, Any]]


def is_slow(name: str) -> bool:
    """Does the case take the whole time that a stream may?"""
    return float(FILE[name].get("out_every", 0)) > 1


def segments(case: Case) -> list[bytes]:
    """What the provider writes, piece by piece."""
    if "bytes_split" in case:
        assert case["bytes_split"] == "data: {{c:€uro}} cut after the first byte of the euro sign"
        whole = fill("data: {{c:€uro}}\n\ndata: {{stop}}\n\ndata: [DONE]\n\n").encode()
        cut = whole.index("€".encode()) + 1
        return [whole[:cut], whole[cut:]]
    if "eventstream" in case:
        return [_frame(frame) for frame in case["eventstream"]]
    if "out_bytewise" in case:
        return [bytes((byte,)) for byte in "".join(filled(case["out_bytewise"])).encode()]
    pieces = [text.encode() for text in filled(case["out"])] * case.get("repeat", 1)
    if "out_hex_prefix" in case:
        pieces[0] = bytes.fromhex(case["out_hex_prefix"]) + pieces[0]
    return _packed(pieces) if case.get("gzip") else pieces


def _frame(what: dict[str, Any]) -> bytes:
    if "raw_hex" in what:
        return bytes.fromhex(what["raw_hex"])
    if "exception" in what:
        headers = {":message-type": "exception", ":exception-type": what["exception"]}
        return encode({**headers, ":content-type": "application/json"}, orjson.dumps({"message": what["message"]}))
    value = {"contentBlockIndex": 0, "delta": {"text": what["text"]}}
    headers = {":message-type": "event", ":event-type": "contentBlockDelta", ":content-type": "application/json"}
    frame = encode(headers, orjson.dumps(value))
    if "corrupt" in what:
        assert what["corrupt"] == "message_crc"
        return frame[:-1] + bytes((frame[-1] ^ 1,))
    return frame


def _packed(pieces: Sequence[bytes]) -> list[bytes]:
    packed = gzip.compress(b"".join(pieces))
    half = len(packed) // 2
    return [packed[:half], packed[half:]]


def script(case: Case, first: asyncio.Event, last: asyncio.Event) -> Steps:
    """The provider's steps; the events are set when the first and the last piece are written."""
    aws = case.get("provider") == "bedrock"
    kind = case.get("ctype", "application/vnd.amazon.eventstream" if aws else "text/event-stream")
    coding = "Content-Encoding: gzip\r\n" if case.get("gzip") else ""
    steps: Steps = [{"t": f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{coding}Transfer-Encoding: chunked\r\n\r\n"}]
    pause = 0.001 if "out_bytewise" in case else case.get("out_every", PAUSE)
    for number, piece in enumerate(segments(case)):
        chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
        steps += [{"sleep": pause}] if number else []
        steps += [{"x": chunk.hex()}, *([{"set": first}] if not number else [])]
    ends: dict[str, Steps] = {
        "clean": [{"end": True}],
        "fin": [{"fin": True}],
        "rst": [{"sleep": PAUSE}, {"rst": True}],
        "stall": [{"stall": True}],
    }
    return [*steps, {"set": last}, *ends[case["end"]]]


def provider(case: Case, url: str) -> dict[str, Any]:
    """The provider entry for the case's dialect."""
    aws = {"access_key_id": AWS_KEY, "secret_access_key": AWS_SECRET, "region": "us-east-1"}
    kinds: dict[str, dict[str, Any]] = {
        "openai": openai(url),
        "anthropic": {"type": "anthropic", "base_url": url, "api_key": PROVIDER_KEY},
        "gemini": {"type": "google", "base_url": f"{url}/v1beta", "api_key": PROVIDER_KEY},
        "bedrock": {"type": "bedrock", "base_url": url, **aws},
    }
    return kinds[case.get("provider", "openai")]


async def drive(wanted: list[str], folder: Path) -> Results:
    """Every case with a provider account of its own, all at once."""
    async with contextlib.AsyncExitStack() as stack:
        control = await stack.enter_async_context(ScriptedUpstream(OK))
        sites: dict[str, tuple[ScriptedUpstream, Moment, Moment]] = {}
        for name in wanted:
            first, last = Moment(), Moment()
            upstream = ScriptedUpstream(*_scripts(FILE[name], first, last))
            sites[name] = await stack.enter_async_context(upstream), first, last
        providers = {name: provider(FILE[name], site[0].url) for name, site in sites.items()}
        deployments = {name: deployment(name, MODELS.get(FILE[name].get("provider", ""), name)) for name in wanted}
        deployments["m-ok"] = deployment("ok", "m-ok")
        config = profile({**providers, "ok": openai(control.url)}, deployments)
        gateway = await stack.enter_async_context(serving(folder, config))
        for _ in range(50):
            await ask(gateway.port, call("m-ok"))

        async def one(case: Case) -> Outcome:
            return await send(gateway, case, *sites[case["id"]])

        return await drive_all(gateway, [FILE[name] for name in wanted], one, width=40, checks=CHECKS)


# Names that the rewriting providers take.
MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "bedrock": "anthropic.claude-3-5-sonnet-20241022-v2:0",
}


def _scripts(case: Case, first: asyncio.Event, last: asyncio.Event) -> list[Steps]:
    comments: list[Steps] = []
    if case["id"] == STALE_COMMENTS:
        begun = fill("data: {{c:a}}\n\n").encode()
        said = [{"x": (b"%x\r\n%b\r\n" % (len(begun), begun)).hex()}]
        comments = [[{"t": "{{SSE}}"}, *said, *([{"sleep": 0.4}, {"chunk": ": ping\n\n"}] * 20), {"end": True}]]
    return [script(case, first, last), *comments]


async def send(gateway: Gateway, case: Case, upstream: ScriptedUpstream, first: Moment, last: Moment) -> Outcome:
    """Ask for a stream and read it to its end."""
    name = case["id"]
    first.at = last.at = None
    asked = time.monotonic()
    seen = await ask(gateway.port, call(name, stream=case.get("stream", True)), 25.0)
    outcome = Outcome(case, seen, deployment=name, known=words(name), requests=upstream.requests)
    outcome.facts = {"first": first.at, "last": last.at, "asked": asked}
    if "comments_keep_idle_timer_alive" in case["expect"]:
        silent = await ask(gateway.port, call(name, stream=True), 10.0)
        outcome.facts["comments"] = silent.responses[0].error.get("code")
    outcome.after = (await ask(gateway.port, call("m-ok"))).last
    return outcome


def _failed(outcome: Outcome) -> bool:
    """Was the failure told: by the stream's last event, or before a stream began by the answer's status?"""
    return bool(outcome.answer.error) and (outcome.answer.streams or outcome.answer.status >= 400)


def _ends_well(outcome: Outcome) -> bool:
    return outcome.answer.events[-1:] == ["[DONE]"]


def _text(outcome: Outcome, wanted: str) -> str:
    got = outcome.answer.texts.get(0, "")
    return "" if got == wanted else repr(got[:60])


def _texts(outcome: Outcome, wanted: dict[int, str]) -> str:
    return "" if outcome.answer.texts == wanted else str(outcome.answer.texts)


def _finish(outcome: Outcome, wanted: str) -> str:
    reasons = [choice.get("finish_reason") for value in outcome.answer.values for choice in value.get("choices") or ()]
    got = [reason for reason in reasons if reason]
    return "" if got == [wanted] else str(got)


def _done(outcome: Outcome, wanted: bool) -> str:
    if wanted and not (outcome.answer.complete and outcome.answer.status == 200):
        return f"{outcome.answer.status}, complete: {outcome.answer.complete}"
    return "" if _ends_well(outcome) == wanted else str(outcome.answer.events[-1:])


def _error_event(outcome: Outcome, wanted: bool) -> str:
    """An error, no [DONE], no clean end of a stream; and before a stream began, a real status."""
    if outcome.answer.streams and (outcome.answer.complete or _ends_well(outcome)):
        return "the stream ends as if it were whole"
    return "" if _failed(outcome) == wanted else f"{outcome.answer.status} {outcome.seen.raw[-300:]!r}"


def _clean_end(outcome: Outcome, wanted: bool) -> str:
    return "" if outcome.answer.complete == wanted else f"complete: {outcome.answer.complete}"


def _counted(outcome: Outcome, wanted: str) -> str:
    assert wanted == "failure"
    codes = [line["code"] for line in outcome.log]
    return "" if codes and not {"ok", "client_disconnect"} & set(codes) else str(codes)


def _byte_exact(outcome: Outcome, wanted: bool) -> str:
    same = outcome.answer.body == b"".join(segments(outcome.case))
    return "" if same == wanted else repr(outcome.answer.body[:100])


def _events(outcome: Outcome, count: int) -> str:
    return "" if len(outcome.answer.events) == count else str(outcome.answer.events)


def _comments(outcome: Outcome, wanted: bool) -> str:
    alive = outcome.facts["comments"] != "upstream_idle_timeout"
    return "" if alive == wanted else str(outcome.facts["comments"])


def _message(outcome: Outcome, part: str) -> str:
    message = outcome.answer.error.get("message", "")
    return "" if part in message else message


def _usage(outcome: Outcome, wanted: bool) -> str:
    tokens = [line.get("tokens") for line in outcome.log]
    recorded = [(each["prompt"], each["completion"], each["source"]) for each in tokens if each]
    return "" if (recorded == [(3, 2, "reported")]) == wanted else str(tokens)


def _finished_within(outcome: Outcome, limit: float) -> str:
    assert outcome.facts["last"] is not None
    took = outcome.seen.ended - outcome.facts["last"]
    return "" if outcome.answer.complete and took <= limit else f"{took:.2f} s"


def _first_latency(outcome: Outcome, limit: float) -> str:
    assert outcome.facts["first"] is not None
    took = (outcome.seen.arrived(b"data: ") - outcome.facts["first"]) * 1000
    return "" if took <= limit else f"{took:.1f} ms"


def _relayed(outcome: Outcome) -> bool:
    return outcome.answer.body == b"".join(segments(outcome.case)) and outcome.answer.complete


def _synthesised(outcome: Outcome) -> bool:
    whole = outcome.answer.streams and _ends_well(outcome) and outcome.answer.complete
    return whole and outcome.answer.texts == {0: "Hello"}


def _bad_gateway(outcome: Outcome) -> bool:
    return outcome.answer.status == 502 and bool(outcome.answer.error)


def _aggregated(outcome: Outcome) -> bool:
    whole = outcome.answer.json() or {}
    return outcome.answer.status == 200 and whole["choices"][0]["message"]["content"] == "a"


WAYS: dict[str, Callable[[Outcome], bool]] = {
    "relayed untouched": _relayed,
    "error_event": _failed,
    "valid SSE synthesised": _synthesised,
    "502": _bad_gateway,
    "aggregated JSON": _aggregated,
}


def _one_of(outcome: Outcome, ways: list[str]) -> str:
    return "" if any(WAYS[way](outcome) for way in ways) else f"{outcome.answer.status} {outcome.answer.body[:200]!r}"


def _half_event(outcome: Outcome) -> bool:
    return b'"cho' not in outcome.seen.raw.rpartition(b'"choices"')[2]


def _json_as_stream(outcome: Outcome) -> bool:
    return not (outcome.answer.streams and outcome.answer.body.lstrip()[:1] == b"{")


NEVER: dict[str, Callable[[Outcome], bool]] = {
    "the half event reaches the client on a rewriting route": _half_event,
    "gateway crash or hang": lambda outcome: outcome.answer.status > 0 and outcome.after is not None,
    "JSON bytes under text/event-stream": _json_as_stream,
}


def _done_in_error(outcome: Outcome, wanted: bool) -> str:
    """A `code` is in the error and in the log."""
    return "" if _failed(outcome) == wanted else f"{outcome.answer.status} {outcome.answer.body[:200]!r}"


CHECKS: dict[str, Check] = {
    "text": _text,
    "texts": _texts,
    "finish": _finish,
    "done": _done,
    "error_event": _error_event,
    "error_visible": _done_in_error,
    "clean_end": _clean_end,
    "counted_as": _counted,
    "byte_exact": _byte_exact,
    "events": _events,
    "comments_keep_idle_timer_alive": _comments,
    "message_has": _message,
    "usage_recorded": _usage,
    "client_finished_within": _finished_within,
    "first_event_latency_ms_max": _first_latency,
    "one_of": _one_of,
    "never": lambda outcome, prose: "" if NEVER[prose](outcome) else f"did happen: {outcome.answer.body[:200]!r}",
}


@pytest.mark.parametrize("case", parameters(list(FILE), is_slow))
def test_a_stream_is_whole_or_says_that_it_is_not(case: str, results: Results) -> None:
    results.verify(case)


def test_the_log_is_clean_after_all_of_them(results: Results) -> None:
    assert results.log == []
