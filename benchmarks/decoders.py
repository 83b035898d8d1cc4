"""What translating one stream event costs: each provider's decoder with the encoder behind it, beside plain `json`.

    python -m benchmarks.decoders

The streams are the demo's own: text events. A row gives the best of fifteen runs in µs per event: the decoder
alone, and with the encoder behind it, for reads of one event and of eight; the last column is the same work done
line by line with the standard library (for Bedrock on frames that are already taken apart).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial

from gateway.config.models import abilities_of
from gateway.config.plugins import Registry
from gateway.contract import Stamp, StreamDecoder, Target
from gateway.demo import anthropic, bedrock, google
from gateway.demo.answers import Answer, Ask
from gateway.demo.wire import Wire
from gateway.dialects.openai_chat import DIALECT
from gateway.envelope import open_envelope
from gateway.eventstream import FrameReader
from gateway.relay import Translated

EVENTS = 200
RUNS = 15
TEXT = "".join(f"word{number} and then some more. " for number in range(EVENTS))
CHAT = open_envelope(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}')
STAMP = Stamp("bench", 1_700_000_000)
CASES: Sequence[tuple[str, str, Wire]] = (
    ("anthropic", "claude-sonnet-4-5", anthropic.WIRE),
    ("google", "gemini-2.5-flash", google.WIRE),
    ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", bedrock.WIRE),
)


def main() -> None:
    """Print the table."""
    print(f"{'':<12}{'decoder alone':>24}{'with the encoder':>24}")
    reads = f"{'1 a read':>12}{'8 a read':>12}"
    print(f"{'provider':<12}{reads}{reads}{'plain json':>12}   µs per event")
    for name, model, wire in CASES:
        events = list(
            wire.stream(Ask(name, model, 1, stream=True, options={"sse": True}), [Answer(TEXT, "stop", tokens=EVENTS)])
        )
        joined = [b"".join(events[start : start + 8]) for start in range(0, len(events), 8)]
        figures = [
            _best(partial(work, name, model, reads)) / len(events)
            for work in (_decode, _translate)
            for reads in (events, joined)
        ]
        payloads = _payloads(name, events)
        plain = _best(partial(_plainly, payloads)) / len(payloads)
        print(f"{name:<12}" + "".join(f"{figure:>12.2f}" for figure in (*figures, plain)))


def _decoder(name: str, model: str) -> StreamDecoder:
    provider = PROVIDERS[name]
    assert provider.chat is not None
    target = Target(name, model, "http://upstream", model, abilities=abilities_of(provider, model))
    return provider.chat.open_stream(CHAT, target, STAMP)


def _decode(name: str, model: str, pieces: Sequence[bytes]) -> None:
    decoder = _decoder(name, model)
    for piece in pieces:
        decoder.feed(piece)
    decoder.finish()


def _translate(name: str, model: str, pieces: Sequence[bytes]) -> None:
    relay = Translated(_decoder(name, model), DIALECT.open_stream(CHAT))
    for piece in pieces:
        relay.feed(piece)
    relay.finish()


def _plainly(payloads: Sequence[bytes]) -> None:
    for payload in payloads:
        _plain(payload)


def _plain(payload: bytes) -> bytes:
    event = json.loads(payload.decode())
    text = str(event)[:20]
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunk["choices"] = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _payloads(name: str, events: Sequence[bytes]) -> list[bytes]:
    whole = b"".join(events)
    if name == "bedrock":
        return [frame.payload for frame in FrameReader().feed(whole)]
    return [line[5:] for line in whole.splitlines() if line.startswith(b"data:")]


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1e6)
    return min(times)


PROVIDERS = Registry()

if __name__ == "__main__":
    main()
