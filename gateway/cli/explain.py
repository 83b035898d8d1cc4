"""`sluiceway explain`: what a request would become, offline and with secrets masked."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from gateway.assembly import FIXED_HEADERS
from gateway.capabilities import decision
from gateway.cli.loaded import good_config, print_json
from gateway.cli.options import FINDINGS, USAGE, add_format, config_parser
from gateway.config.models import abilities_of
from gateway.config.plugins import Registry
from gateway.config.types import Config
from gateway.contract import ChatRequest, Credential, UpstreamRequest
from gateway.dialects.openai_chat import DIALECT
from gateway.egress import MASK, host_header, masked
from gateway.errors import GatewayError
from gateway.exchange import adapted
from gateway.hub import Json
from gateway.router import Router
from gateway.routes import Attempt, Step

HELLO = b'{"messages":[{"role":"user","content":"Hello!"}]}'


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = config_parser("explain", __doc__ or "")
    made.add_argument("-m", "--model", help="the model to ask for (default: the body's)")
    made.add_argument(
        "-d", "--data", metavar="FILE", help="a request body; - is standard input (default: a short chat)"
    )
    add_format(made)
    return made


def run(arguments: Sequence[str]) -> int:
    """Print the ordered attempts, the decision for each parameter, and the exact upstream requests."""
    options = parser().parse_args(arguments)
    good = good_config(options.config)
    if good is None:
        return FINDINGS
    try:
        chat = _chat(options.model, _body(options.data))
        route = Router(good.config, Registry(), abilities_of).resolve(chat.model, lambda: 0.0, chat)
    except OSError as error:
        print(f"sluiceway explain: {options.data}: {error.strerror}", file=sys.stderr)
        return USAGE
    except GatewayError as error:
        print(f"sluiceway explain: {error.message}", file=sys.stderr)
        return FINDINGS
    plans = [_placed(step, chat, good.config) for step in route.steps]
    if options.format == "json":
        print_json({"model": chat.model, "attempts": plans, "left_out": list(route.left_out)})
    else:
        for number, plan in enumerate(plans, 1):
            _print(number, plan)
        for left_out in route.left_out:
            print(f"left out: {left_out}")
    return FINDINGS if all("error" in plan for plan in plans) else 0


def _placed(step: Step, chat: ChatRequest, config: Config) -> Json:
    """A step of the route: the attempt, and why it stands where it does."""
    entry = config.providers[step.attempt.account]
    plan = explained(step.attempt, chat, entry.headers)
    if entry.proxy:
        plan["proxy"] = masked(entry.proxy.reveal())
    limits = {gate.name: {key: value for key, value in asdict(gate.rates).items() if value} for gate in step.gates}
    return plan | ({"why": step.why} if step.why else {}) | ({"limits": limits} if limits else {})


def explained(attempt: Attempt, chat: ChatRequest, own: Iterable[str] = ()) -> Json:
    """One attempt: its decisions for the request's parameters, and the upstream request or the refusal.

    `own` are the names of the headers that the provider entry adds; their values are masked.
    """
    provider, target = attempt.provider, attempt.target
    chat = adapted(attempt, chat)
    table = provider.table(target)
    unknown = {"decision": "forward" if DIALECT.name in provider.native else "drop", "note": "unknown to the gateway"}
    plan: Json = {
        "deployment": attempt.name,
        "provider": provider.name,
        "parameters": {name: decision(table[name]) if name in table else unknown for name in chat.names()},
    }
    speech = provider.native.get(DIALECT.name) or provider.chat
    assert speech is not None
    try:
        request = speech.build_request(chat, target)
    except GatewayError as error:
        return {**plan, "error": error.body()["error"]}
    told = {"dropped": list(request.dropped), "translated": list(request.translated)}
    return {**plan, **told, "request": _request(attempt, request, own)}


def _request(attempt: Attempt, request: UpstreamRequest, own: Iterable[str]) -> Json:
    kind: Any = {"key": "key", "aws": "aws"}.get(attempt.provider.credential(attempt.target.options), "bearer")
    credential = Credential(kind, token=MASK, access_key=MASK, secret_key=MASK)
    headers = {
        "host": host_header(request.url),
        **FIXED_HEADERS,
        **{name.lower(): MASK for name in own},
        "content-type": "application/json",
        **request.headers,
        **attempt.provider.authorize(request, credential, time.time()),
    }
    headers["content-length"] = str(len(request.body))
    return {"method": request.method, "url": request.url, "headers": headers, "body": request.body.decode()}


def _body(path: str | None) -> bytes:
    if path is None:
        return HELLO
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()


def _chat(model: str | None, body: bytes) -> ChatRequest:
    if model is not None:
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError:
            given = None
        if isinstance(given, dict) and given.get("model") != model:
            body = orjson.dumps({**given, "model": model})
    return DIALECT.open_request(body, {})


def _print(number: int, plan: Json) -> None:
    print(f"attempt {number}: {plan['deployment']} ({plan['provider']})")
    if why := plan.get("why"):
        print(f"  chosen by {why}")
    if proxy := plan.get("proxy"):
        print(f"  via the proxy {proxy}")
    for name, limits in plan.get("limits", {}).items():
        print(f"  within {name}: {', '.join(f'{key} {value}' for key, value in limits.items())}")
    for name, row in plan["parameters"].items():
        goes = f" as {row['as']}" if row.get("as") else ""
        note = f"  ({row['note']})" if row.get("note") else ""
        print(f"  {name}: {row['decision']}{goes}{note}")
    if error := plan.get("error"):
        print(f"  refused: {error['code']}: {error['message']}\n")
        return
    for told in ("dropped", "translated"):
        if plan[told]:
            print(f"  {told}: {', '.join(plan[told])}")
    request = plan["request"]
    print(f"\n{request['method']} {request['url']}")
    for name, value in request["headers"].items():
        print(f"{name}: {value}")
    print(f"\n{request['body']}\n")
