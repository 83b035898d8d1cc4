"""What a case expects, held against what was seen: one small check per expectation, and the rules of every case."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faults.casefiles import Case
from faults.measuring import Measured
from faults.serving import SECRETS, Gateway
from faults.wireclient import Response, Seen

# The closed list of codes: those of the specification, those that only the log has, and what the front door adds.
CODES = frozenset(
    (
        *("invalid_json", "invalid_request", "invalid_api_key", "model_not_found", "model_not_allowed"),
        *("request_too_large", "headers_too_large", "request_timeout", "unsupported_media_type"),
        *("rate_limit_exceeded", "overloaded", "shutting_down", "no_healthy_upstream", "internal_error"),
        *("upstream_connect_error", "upstream_connect_timeout", "upstream_dns_error", "upstream_tls_error"),
        *("upstream_reset", "upstream_timeout", "upstream_idle_timeout", "upstream_truncated"),
        *("upstream_bad_response", "upstream_auth_error", "upstream_error"),
        *("ok", "client_disconnect", "client_write_timeout"),
        *("not_found", "method_not_allowed", "forbidden", "unsupported_parameter", "unsupported_dialect"),
    )
)
GRACE = 0.3
REFUSED = "a connection was refused"


@dataclass
class Outcome:
    """One case that was driven. `facts` are what its driver found out beyond the client's view."""

    case: Case
    seen: Seen
    # Whose log lines are this case's: those of a model, the news of a deployment; its answers' ids always count.
    model: str = ""
    deployment: str = ""
    requests: Sequence[bytes] = ()
    log: list[dict[str, Any]] = field(default_factory=list)
    news: list[dict[str, Any]] = field(default_factory=list)
    measured: Measured | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)
    after: Response | None = None
    # The log of the gateway that served it, where that is one of its own.
    lines: list[dict[str, Any]] | None = None

    @property
    def expect(self) -> dict[str, Any]:
        expect: dict[str, Any] = self.case.get("expect", {})
        return expect

    @property
    def answer(self) -> Response:
        """The first answer; one of status 0 where there is none."""
        return self.seen.responses[0] if self.seen.responses else Response()

    @property
    def logged(self) -> str:
        return json.dumps(self.log + self.news)


Check = Callable[[Outcome, Any], str]
CHECKS: dict[str, Check] = {}


def check(*names: str) -> Callable[[Check], Check]:
    """Make this function the check of these expectations."""

    def keep(function: Check) -> Check:
        CHECKS.update(dict.fromkeys(names, function))
        return function

    return keep


def judge(outcome: Outcome, also: Mapping[str, Check] | None = None) -> list[str]:
    """Everything that was not as it should be; an expectation that nobody checks is a complaint as well."""
    checks = {**CHECKS, **(also or {})}
    complaints = []
    for name, value in outcome.expect.items():
        if name not in checks:
            complaints.append(f"unknown expectation {name}")
        elif complaint := checks[name](outcome, value):
            complaints.append(f"{name}: {complaint}")
    return complaints + [each for rule in RULES if (each := rule(outcome))]


def fact(outcome: Outcome, name: str, wanted: Any) -> str:
    """A complaint unless the driver found exactly this."""
    if name not in outcome.facts:
        return f"the driver did not find out {name}"
    got = outcome.facts[name]
    return "" if got == wanted else f"{got!r} instead of {wanted!r}"


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def collect(gateway: Gateway, outcomes: Iterable[Outcome]) -> None:
    """Give every outcome the log lines of its requests."""
    lines = gateway.lines
    for outcome in outcomes:
        mine = lines if outcome.lines is None else outcome.lines
        access = [line for line in mine if "message" not in line]
        news = [line for line in mine if "message" in line]
        ids = {response.header("x-request-id") for response in outcome.seen.responses} - {""}
        ids |= set(outcome.facts.get("ids", ()))
        model, deployment = outcome.model, outcome.deployment or outcome.model
        outcome.log = [line for line in access if line["id"] in ids or (model and line["model"] == model)]
        outcome.news = [
            line for line in news if line.get("id") in ids or (deployment and line.get("deployment") == deployment)
        ]


# --- the client's view ---------------------------------------------------------------------------


@check("status")
def _status(outcome: Outcome, wanted: Any) -> str:
    seen, answer = outcome.seen, outcome.answer
    if seen.left is not None:
        return ""
    if not answer.status:
        gone = outcome.expect.get("or_no_response") and seen.closed
        return "" if gone else "no answer" + (f", closed by {seen.closed}" if seen.closed else "")
    if outcome.expect.get("or_dirty_close") and not answer.complete and seen.closed:
        return ""
    good = answer.status in listed(wanted)
    return "" if good else f"{answer.status} {answer.body[:150]!r}"


@check("status_all")
def _status_all(outcome: Outcome, wanted: list[int]) -> str:
    got = [response.status for response in outcome.seen.responses]
    return "" if got == wanted else str(got)


@check("or_no_response", "or_dirty_close", "note", "when", "also")
def _modifies(outcome: Outcome, value: Any) -> str:
    return ""


@check("closed")
def _closed(outcome: Outcome, wanted: bool) -> str:
    return "" if bool(outcome.seen.closed) == wanted else ("still open" if wanted else "closed")


@check("within")
def _within(outcome: Outcome, limit: float) -> str:
    seen = outcome.seen
    took = seen.ended - (seen.began if outcome.case.get("class") == "slow" else seen.sent)
    return "" if took <= limit + GRACE else f"{took:.1f} s"


@check("responses_max")
def _responses_max(outcome: Outcome, most: int) -> str:
    count = len(outcome.seen.responses)
    return "" if count <= most else f"{count} answers"


@check("error_json")
def _error_json(outcome: Outcome, wanted: bool) -> str:
    return "" if outcome.answer.status >= 400 else "no error answer"


@check("code")
def _code(outcome: Outcome, wanted: str) -> str:
    got = [outcome.answer.error.get("code"), *{line["code"] for line in outcome.log}]
    return "" if set(got) == {wanted} else f"{got} (answer, log)"


@check("absent")
def _absent(outcome: Outcome, words: list[str]) -> str:
    found = [word for word in words if filled_word(outcome, word).encode() in outcome.seen.raw]
    return f"{found} in the answer" if found else ""


@check("log_absent")
def _log_absent(outcome: Outcome, words: list[str]) -> str:
    raw = json.dumps(outcome.log + outcome.news, ensure_ascii=False)
    found = [word for word in words if filled_word(outcome, word) in raw]
    return f"{found} in the log" if found else ""


def filled_word(outcome: Outcome, word: str) -> str:
    return outcome.known.get(word.strip("{}"), word)


@check("header_absent")
def _header_absent(outcome: Outcome, words: list[str]) -> str:
    text = str(outcome.answer.headers)
    found = [word for word in words if word in text]
    return f"{found} in the headers" if found else ""


@check("header_has")
def _header_has(outcome: Outcome, wanted: Mapping[str, str]) -> str:
    got = {name: outcome.answer.header(name) for name in wanted}
    return "" if got == wanted else str(got)


@check("content_type")
def _content_type(outcome: Outcome, wanted: str) -> str:
    got = outcome.answer.header("content-type")
    return "" if got.startswith(wanted) else got


@check("no_100")
def _no_100(outcome: Outcome, wanted: bool) -> str:
    return "" if (100 not in outcome.seen.interim) == wanted else "100 Continue was sent"


@check("response_not_chunked")
def _response_not_chunked(outcome: Outcome, wanted: bool) -> str:
    return "" if ("chunked" not in outcome.answer.header("transfer-encoding")) == wanted else "chunked"


@check("client_can_decode")
def _client_can_decode(outcome: Outcome, wanted: bool) -> str:
    answer = outcome.answer
    good = answer.header("content-encoding") in ("", "identity") and "choices" in (answer.json() or {})
    return "" if good == wanted else f"{answer.header('content-encoding')} {answer.body[:40]!r}"


# --- the provider's view -------------------------------------------------------------------------


@check("upstream")
def _upstream(outcome: Outcome, wanted: Any) -> str:
    count = len(outcome.requests)
    return "" if wanted == "any" or count in listed(wanted) else f"{count} requests arrived"


@check("attempts", "attempts_seen_by_upstream")
def _attempts(outcome: Outcome, wanted: Any) -> str:
    got = outcome.facts.get("attempts", len(outcome.requests))
    return "" if got == wanted else f"{got}"


@check("upstream_headers_absent", "upstream_absent")
def _upstream_headers_absent(outcome: Outcome, names: list[str]) -> str:
    found = [name for name in names if any(name in headers_of(request) for request in outcome.requests)]
    return f"{found} went upstream" if found else ""


@check("upstream_headers_absent_values", "upstream_absent_values")
def _upstream_absent_values(outcome: Outcome, words: list[str]) -> str:
    heads = b"".join(request.partition(b"\r\n\r\n")[0] for request in outcome.requests)
    found = [word for word in words if filled_word(outcome, word).encode() in heads]
    return f"{found} went upstream" if found else ""


def headers_of(request: bytes) -> dict[str, str]:
    """The headers of a raw request, names in lower case."""
    lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def content_of(request: bytes) -> bytes:
    """The body of a raw request with a length."""
    return request.partition(b"\r\n\r\n")[2]


@check("upstream_cancelled_ms_max")
def _upstream_cancelled(outcome: Outcome, limit: float) -> str:
    gone, left = outcome.facts.get("gone"), outcome.seen.left
    if gone is None or left is None:
        return "the provider's connection was not closed"
    return "" if (gone - left) * 1000 <= limit else f"{(gone - left) * 1000:.0f} ms"


# --- log and measurements ------------------------------------------------------------------------


@check("log_has")
def _log_has(outcome: Outcome, code: str) -> str:
    got = [line["code"] for line in outcome.log]
    return "" if code in got else str(got)


@check("log_level_max")
def _log_level_max(outcome: Outcome, level: str) -> str:
    loud = [line for line in outcome.news if line["level"] not in ("debug", level)]
    return str(loud) if loud else ""


@check("log_level")
def _log_level(outcome: Outcome, level: str) -> str:
    levels = [line["level"] for line in outcome.news]
    return "" if level in levels else str(levels)


def _most(read: Callable[[Measured], float]) -> Check:
    def function(outcome: Outcome, limit: float) -> str:
        if outcome.measured is None:
            return "was not measured"
        got = read(outcome.measured)
        return "" if got <= limit else f"{got:.1f}"

    return function


CHECKS["rss_growth_mib_max"] = _most(lambda measured: measured.growth_mib)
CHECKS["loop_block_ms_max"] = _most(lambda measured: measured.wait_ms)
CHECKS["cpu_s_max"] = _most(lambda measured: measured.cpu_s)
MEASURED = frozenset(("rss_growth_mib_max", "loop_block_ms_max", "cpu_s_max", "first_event_latency_ms_max"))

# --- what holds in every case --------------------------------------------------------------------


def _shape(outcome: Outcome) -> str:
    """Errors have OpenAI's shape on every path."""
    for response in outcome.seen.responses:
        if response.status < 400 or not response.complete:
            continue
        error = response.error
        strings = all(isinstance(error.get(name), str) for name in ("message", "type"))
        maybe = all(isinstance(error.get(name, 0), str | None) for name in ("param", "code"))
        if not (strings and maybe and response.header("content-type").startswith("application/json")):
            return f"the error has not OpenAI's shape: {response.status} {response.body[:200]!r}"
    return ""


def _codes(outcome: Outcome) -> str:
    odd = [line["code"] for line in outcome.log if "code" in line and line["code"] not in CODES]
    return f"codes outside of the closed list: {odd}" if odd else ""


def _one_line(outcome: Outcome) -> str:
    """Every answer with a request id has exactly one line, and so has a client that left."""
    logged = [line["id"] for line in outcome.log]
    expected = [response.header("x-request-id") for response in outcome.seen.responses]
    expected = [each for each in expected if each]
    if len(logged) != len(set(logged)) or not set(expected) <= set(logged):
        return f"log lines {logged} for the answers {expected}"
    if outcome.seen.left is not None and not logged:
        return "no log line for the request that was given up"
    return ""


def _quiet(outcome: Outcome) -> str:
    loud = [line for line in outcome.news if line.get("message") == "a request failed inside the gateway"]
    return f"failed inside: {loud}" if loud else ""


def _secret(outcome: Outcome) -> str:
    canaries = [*SECRETS, *outcome.case.get("canary", ())]
    found = [word for word in canaries if word.encode() in outcome.seen.raw or word in outcome.logged]
    return f"secrets shown: {found}" if found else ""


def _healthy(outcome: Outcome) -> str:
    after = outcome.after
    return "" if after is None or after.status == 200 else f"the next request got {after.status} {after.body[:150]!r}"


RULES = (_shape, _codes, _one_line, _quiet, _secret, _healthy)
PRINTABLE = re.compile(r"[\x20-\x7e\n]*")


def clean_log(gateway: Gateway) -> list[str]:
    """What a log must never have, whoever sent what: tracebacks, secrets, control characters, failures inside."""
    text = gateway.text
    complaints = [f"{word} is in the log" for word in ("Traceback", *SECRETS) if word in text]
    if "failed inside" in text:
        complaints.append(next(line for line in text.splitlines() if "failed inside" in line))
    if any(ord(char) < 32 and char != "\n" for char in text):
        complaints.append("control characters are in the log")
    return complaints
