"""Three providers that fail at random in every scripted way, under load: does every request end truthfully, in time?

`python benchmarks/chaos.py [--seconds 120] [--clients 60] [--seed N]` starts the real gateway in front of them, with
a routing that has a fallback, retries and breakers. Every answer must be whole and the client's own, or an error object
that fits what the providers did, or a stream that says that it broke. Prints counts and violations; exits 1 if any.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faulty import Faulty, words

ROOT = Path(__file__).resolve().parents[1]
TOTAL = 6.0
# A timer is looked at four times a second; the rest is a machine with other things to do.
SLACK = 2.0
TIMEOUTS = {"connect": "1s", "first_byte": "2s", "idle": "2s", "total": f"{TOTAL:g}s"}
# What a request may be told after the provider that was asked last did this; `None` is a whole answer.
GONE = {(502, "upstream_reset"), (502, "upstream_connect_error")}
CUT = {(502, "upstream_truncated"), (502, "upstream_bad_response"), (502, "upstream_reset")}
LATE = {(504, "upstream_timeout"), (504, "upstream_idle_timeout")}
BAD = {(502, "upstream_bad_response")}
REFUSED = {
    "400": {(400, "invalid_request")},
    "401": {(502, "upstream_auth_error")},
    "404": {(404, "model_not_found")},
    "408": {(504, "upstream_timeout")},
    "429": {(429, "rate_limit_exceeded")},
    "429 with a time": {(429, "rate_limit_exceeded")},
    "500": {(500, "upstream_error")},
    "503": {(503, "overloaded")},
    "529": {(503, "overloaded")},
    "html 502": {(502, "upstream_error")},
    "error with 200": {(502, "upstream_error")},
    "error event first": {(500, "boom")},
    "error event": {(502, "boom")},
}
Told = set[tuple[int, str | None] | None]
MAY: dict[str, Told] = {
    "good": {None},
    "drip": {None},
    "no done": {None},
    "reset": {*GONE},
    "eof": {*GONE},
    "half a head": {*GONE, *CUT},
    "stall": {*LATE},
    "stall after head": {*LATE},
    "stall in the middle": {*LATE},
    "comments only": {*LATE},
    "cut": {*CUT},
    "cut by reset": {*CUT},
    "no http": {*BAD},
    "302": {*BAD},
    "html": {*BAD, *CUT},
    "short length": {*BAD},
    "truncated gzip": {*BAD, *CUT},
    "bad chunk": {*BAD, *CUT},
    "huge event": {*BAD},
    "no finish": {*CUT},
    "outage": {*GONE, *CUT},
    **{name: {*told} for name, told in REFUSED.items()},
}
# Whatever was done: a provider could not be asked, or was to be left alone.
ALWAYS: Told = {*GONE, (503, "no_healthy_upstream"), (429, "rate_limit_exceeded")}
BACK_OFF = 0.05
# Figures of the admin listener that must be 0 when no request is left.
HELD = ("sluiceway_requests_active ", "sluiceway_body_bytes_held ")


@dataclass
class Ending:
    """How one request ended for its client."""

    name: str
    stream: bool
    seconds: float
    outcome: str
    wrong: str = ""


@dataclass
class Run:
    """The whole run."""

    port: int
    providers: list[Faulty]
    endings: list[Ending] = field(default_factory=list)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def met(self, name: str) -> list[str]:
        """What the providers did to a request."""
        return [each for provider in self.providers for each in provider.did.get(name, [])]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def document(port: int, admin: int, log: Path, providers: list[Faulty]) -> dict[str, Any]:
    """gateway.yaml: three deployments behind a routing, and alone."""
    names = "abc"
    entries = {
        name: {"type": "openai", "base_url": f"http://127.0.0.1:{each.port}/v1", "api_key": "sk-chaos"}
        for name, each in zip(names, providers, strict=True)
    }
    causes = ["connect", "timeout", "429", "5xx", "reset"]
    return {
        "version": 1,
        "server": {"listen": f"127.0.0.1:{port}", "admin": f"127.0.0.1:{admin}", "drain": "10s", "write_timeout": "5s"},
        "providers": entries,
        "deployments": {f"m-{name}": {"provider": name, "model": name, "max_event": "1MiB"} for name in names},
        "routings": {
            "any": {
                "strategy": "weighted",
                "targets": [{"use": "m-a"}, {"use": "m-b"}],
                "fallback": ["m-c"],
                "retry": {"attempts": 3, "on": causes, "unsafe": True},
            }
        },
        "retry": {
            "attempts": 2,
            "on": causes,
            "timeouts": TIMEOUTS,
            "breaker": {"failures": 8, "window": "10s", "open": "1s"},
        },
        "telemetry": {"access_log": {"to": str(log)}},
    }


async def ask(run: Run, name: str, model: str, *, stream: bool) -> bytes:
    """One request on a connection of its own; everything that came until the gateway closed it."""
    message = [{"role": "user", "content": "Hello!"}]
    body = json.dumps({"model": model, "stream": stream, "user": name, "messages": message}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{run.port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    try:
        return await reader.read()
    finally:
        writer.close()


async def one(run: Run, number: int) -> None:
    name, stream = f"r{number}", bool(random.getrandbits(1))
    model = random.choice(("any", "any", "any", "m-a", "m-b", "m-c"))
    began = time.monotonic()
    try:
        async with asyncio.timeout(TOTAL + SLACK):
            raw = await ask(run, name, model, stream=stream)
        outcome, wrong = judged(raw, name, stream=stream)
    except TimeoutError:
        outcome, wrong = "hangs", "no end within its deadline"
    except OSError as error:
        outcome, wrong = "connection", f"the connection broke: {error!r}"
    met = run.met(name)
    if not wrong and told_of(outcome) not in ALWAYS.union(*(MAY[each] for each in met)):
        wrong = f"{outcome!r} after {met}"
    if len(met) < 2:
        run.pairs[met[0] if met else "nothing", outcome] += 1
    run.endings.append(Ending(name, stream, time.monotonic() - began, outcome, wrong))
    if outcome != "whole":
        await asyncio.sleep(BACK_OFF)


def told_of(outcome: str) -> tuple[int, str | None] | None:
    """Status and code of an outcome, None for a whole answer; a broken stream has the status of its code."""
    if outcome == "whole":
        return None
    kind, _, code = outcome.partition(" ")
    statuses = {"upstream_timeout": 504, "upstream_idle_timeout": 504}
    status = statuses.get(code, 502) if kind == "broken" else int(kind)
    return status, None if code == "None" else code


def judged(raw: bytes, name: str, *, stream: bool) -> tuple[str, str]:
    """What an answer is, and what is wrong with it."""
    head, mark, body = raw.partition(b"\r\n\r\n")
    if not mark:
        return "no answer", f"no whole head: {raw[:100]!r}"
    lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    status = int(lines[0].split()[1])
    if headers.get("transfer-encoding") == "chunked":
        return judged_stream(body, name) if stream else ("odd", "a stream that nobody asked for")
    if len(body) != int(headers.get("content-length", -1)) or headers.get("content-type") != "application/json":
        return "odd", f"framing: {head!r}"
    try:
        value = json.loads(body)
        return judged_error(status, value) if status != 200 else judged_whole(value, name, stream=stream)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return "odd", f"{error!r}: {body[:200]!r}"


def judged_error(status: int, value: Any) -> tuple[str, str]:
    """An error object of OpenAI's shape."""
    error = value["error"]
    right = isinstance(error["message"], str) and isinstance(error["type"], str) and {"param", "code"} <= error.keys()
    return f"{status} {error['code']}", "" if right and status >= 400 else f"{status} with {error}"


def judged_whole(value: Any, name: str, *, stream: bool) -> tuple[str, str]:
    """A whole answer: it must be this request's, to the last word."""
    right = value["choices"][0]["message"]["content"] == "".join(words(name)) and not stream
    return "whole", "" if right else f"not its own answer, or not all of it: {value}"


def judged_stream(raw: bytes, name: str) -> tuple[str, str]:
    """A stream that is whole, or says that it is not."""
    body, ended = unchunked(raw)
    texts = [each.removeprefix(b"data: ") for each in body.split(b"\n\n") if each.startswith(b"data: ")]
    done = bool(texts) and texts[-1] == b"[DONE]"
    values = [json.loads(text) for text in (texts[:-1] if done else texts)]
    said = [choice["delta"].get("content", "") for value in values for choice in value.get("choices", ())]
    text, whole = "".join(said), "".join(words(name))
    if done:
        right = ended and text == whole and not any("error" in value for value in values)
        return "whole", "" if right else f"looks whole: {ended=} {body[-300:]!r}"
    last = values[-1].get("error") if values else None
    if not last:
        return "silent", f"broke off without a word: {ended=} {body[-200:]!r}"
    right = not ended and whole.startswith(text) and not any("error" in value for value in values[:-1])
    return f"broken {last['code']}", "" if right else f"an odd break: {ended=} {body[-300:]!r}"


def unchunked(raw: bytes) -> tuple[bytes, bool]:
    """The body without chunk framing, and whether it was ended as a whole one."""
    body = b""
    while raw:
        size, _, rest = raw.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            return body, rest == b"\r\n"
        body, raw = body + rest[:count], rest[count + 2 :]
    return body, False


async def outages(providers: list[Faulty]) -> None:
    """Now and then a provider is gone for a moment."""
    while True:
        await asyncio.sleep(random.uniform(1, 3))
        gone = random.choice(providers)
        await gone.stop()
        await asyncio.sleep(random.uniform(0.1, 0.5))
        await gone.start()


async def load(run: Run, seconds: float, clients: int) -> None:
    """So many clients, each with one request after the other."""
    until, numbers = time.monotonic() + seconds, iter(range(1 << 40))

    async def client() -> None:
        while time.monotonic() < until:
            await one(run, next(numbers))

    trouble = asyncio.create_task(outages(run.providers))
    await asyncio.gather(*(client() for _ in range(clients)))
    trouble.cancel()


async def get(port: int, path: str) -> bytes:
    """A page of the admin listener; empty while there is none."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        page = await reader.read()
        writer.close()
        return page
    return b""


@contextlib.asynccontextmanager
async def gateway(folder: Path, content: dict[str, Any], admin: int, wrong: list[str]) -> Any:
    """The gateway's process; what it leaves undone in the end goes to `wrong`."""
    path, noise = folder / "gateway.yaml", folder / "stderr"
    path.write_text(json.dumps(content))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "gateway", "serve", "-c", str(path)]
    with noise.open("w") as out:
        process = subprocess.Popen(line, cwd=ROOT, env=environ, stdout=out, stderr=out)  # noqa: ASYNC220 - it returns at once
    try:
        async with asyncio.timeout(20):
            while b" 200 " not in (await get(admin, "/readyz"))[:20]:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        greeting = len(noise.read_text())
        yield
        page = (await get(admin, "/metrics")).decode()
        held = [line for line in page.splitlines() if line.startswith(HELD)]
        if len(held) != len(HELD) or any(float(line.split()[1]) for line in held):
            wrong.append(f"the gateway still holds requests: {held}")
        process.send_signal(signal.SIGTERM)
        if code := await asyncio.to_thread(process.wait, 20):
            wrong.append(f"the gateway ended with {code}")
        if said := noise.read_text()[greeting:]:
            wrong.append(f"the gateway wrote to stderr: {said[:2000]}")
    finally:
        process.kill()
        process.wait()


def report(run: Run, seconds: float) -> None:
    """Counts by outcome, and by what the providers did."""
    outcomes = Counter(f"{'stream' if each.stream else 'whole '}  {each.outcome}" for each in run.endings)
    longest = max((each.seconds for each in run.endings), default=0.0)
    print(f"\n{len(run.endings)} requests in {seconds:.0f} s, the longest took {longest:.2f} s\n\noutcomes")
    for name, count in sorted(outcomes.items()):
        print(f"  {count:7}  {name}")
    done = sum((each.counts for each in run.providers), Counter[str]())
    print("\nwhat the providers did, and how the requests ended that met only it")
    for name, count in (*done.most_common(), ("nothing", 0)):
        ends = {outcome: much for (last, outcome), much in run.pairs.most_common() if last == name}
        print(f"  {count:7}  {name:20}  {', '.join(f'{much} {outcome}' for outcome, much in ends.items())}")


async def main(seconds: float, clients: int, share: float) -> int:
    """One run; 0 when nothing was wrong."""
    providers = [Faulty(share) for _ in range(3)]
    for each in providers:
        await each.start()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder, port, admin = Path(name), free_port(), free_port()
        run = Run(port, providers)
        content = document(port, admin, folder / "access.log", providers)
        began = time.monotonic()
        async with gateway(folder, content, admin, wrong):
            await load(run, seconds, clients)
            await asyncio.sleep(0.5)
        lines = sum('"path"' in line for line in (folder / "access.log").read_text().splitlines())
    if lines != len(run.endings):
        wrong.append(f"{lines} access lines for {len(run.endings)} requests")
    report(run, time.monotonic() - began)
    wrong += [f"{each.name}: {each.wrong}" for each in run.endings if each.wrong]
    print(f"\n{len(wrong)} violations")
    for each in wrong[:20]:
        print(f"  {each[:600]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=120)
    options.add_argument("--clients", type=int, default=60)
    options.add_argument("--sound", type=float, default=0.5, help="share of the providers' answers that are sound")
    options.add_argument("--seed", type=int, default=None)
    given = options.parse_args()
    random.seed(given.seed)
    sys.exit(asyncio.run(main(given.seconds, given.clients, given.sound)))
