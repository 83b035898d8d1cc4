"""`n` answers from a provider that gives one: parallel calls, told to the client as the choices of a single answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import orjson
from msgspec import structs

from gateway.contract import ChatRequest, Dialect, Stamp, StreamEncoder, Usage
from gateway.envelope import Envelope
from gateway.errors import GatewayError, InvalidRequest
from gateway.exchange import Answer, Upstreams, exchange
from gateway.hub import Json
from gateway.pump import LAST_CHUNK, Flow, Outlet
from gateway.routes import Attempt
from gateway.usage import write_usage

MOST = 128
_ROLE = {"role": "assistant", "content": ""}


def wanted(attempt: Attempt, chat: ChatRequest) -> int:
    """How many calls this attempt takes: more than one where the deployment emulates `n` and the client asks for it.

    Raises InvalidRequest for more than OpenAI itself would give.
    """
    if "n" not in attempt.target.emulate:
        return 1
    count = attempt.set.get("n", chat.get("n") or attempt.default.get("n"))
    if isinstance(count, int) and count > MOST:
        raise InvalidRequest(f"'n' must be at most {MOST}.", param="n")
    if not isinstance(count, int) or count < 2 or attempt.provider.table(attempt.target)["n"].decision != "emulate":
        return 1
    return count


async def fan_out(
    count: int,
    attempt: Attempt,
    chat: ChatRequest,
    dialect: Dialect,
    stamp: Stamp,
    upstreams: Upstreams,
    deadline: float,
) -> Answer:
    """Make `count` calls at once and answer when each of them does; one that fails ends the others."""
    assert isinstance(chat, Envelope)
    group = _Group(dialect.open_stream(chat), chat, count)
    single = chat.with_values({"n": 1})
    tasks = [
        asyncio.ensure_future(
            exchange(attempt, single, replace(dialect, open_stream=group.encoder(index)), stamp, upstreams, deadline)
        )
        for index in range(count)
    ]
    try:
        answers = await asyncio.gather(*tasks)
    except BaseException:
        await _abandon(tasks)
        raise
    first = answers[0]
    request = structs.replace(first.request, translated=(*dict.fromkeys((*first.request.translated, "n")),))
    flows = [answer.pump for answer in answers if answer.pump is not None]
    if flows:
        return Answer(attempt, request, first.upstream_id, pump=FanPump(flows, group))
    usage = total(answer.usage for answer in answers)
    return Answer(
        attempt, request, first.upstream_id, body=_merged([answer.body for answer in answers], usage), usage=usage
    )


async def _abandon(tasks: Sequence[asyncio.Future[Answer]]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Answer) and outcome.pump is not None:
            outcome.pump.stop()


def total(usages: object) -> Usage | None:
    """The sum of what the calls used; None when none of them said."""
    known = [usage for usage in usages if usage is not None]  # type: ignore[attr-defined]  # any iterable
    if not known:
        return None

    def added(name: str) -> int | None:
        counts = [count for usage in known if (count := getattr(usage, name)) is not None]
        return sum(counts) if counts else None

    names = ("prompt", "completion", "cached", "cache_written", "reasoning")
    partial = any(usage.source == "partial" for usage in known)
    return Usage(**{name: added(name) for name in names}, source="partial" if partial else "reported")


def _merged(bodies: Sequence[bytes], usage: Usage | None) -> bytes:
    answers: list[Json] = [orjson.loads(body) for body in bodies]
    choices = [choice for answer in answers for choice in answer["choices"]]
    whole = {**answers[0], "choices": [{**choice, "index": index} for index, choice in enumerate(choices)]}
    return orjson.dumps({**whole, "usage": write_usage(usage)} if usage else whole)


class _Group:
    """What the calls of one request share: the identity of their chunks, their usage, and how many still speak."""

    def __init__(self, encoder: StreamEncoder, chat: ChatRequest, count: int) -> None:
        self.count = count
        self.whole = encoder
        self.base: Json = {}
        self.usages: list[Json] = []
        self._speaking = count
        self._chat = chat

    def encoder(self, index: int) -> type[StreamEncoder]:
        """What makes the encoder of one call's stream."""
        return lambda _chat: _Leg(self, index)  # type: ignore[return-value]  # a function makes it, no class does

    def opening(self) -> bytes:
        """The first chunk of every choice, in order: accumulators of official SDKs need it so."""
        return b"".join(
            self.whole.feed(self.chunk(index, {"delta": _ROLE, "finish_reason": None})) for index in range(self.count)
        )

    def chunk(self, index: int, choice: Json) -> Json:
        """One choice's chunk under the common identity."""
        return {**self.base, "choices": [{**choice, "index": index}]}

    def ended(self) -> bytes:
        """One call has ended; the last one ends the stream."""
        self._speaking -= 1
        if self._speaking:
            return b""
        out = b""
        if self.usages:
            out = self.whole.feed({**self.base, "choices": [], "usage": _sum(self.usages)})
        return out + self.whole.finish()


class _Leg:
    """The encoder of one call: its only choice under the call's index, its role and usage left to the group."""

    __slots__ = ("_group", "_index")

    def __init__(self, group: _Group, index: int) -> None:
        self._group = group
        self._index = index

    def feed(self, chunk: Json) -> bytes:
        """One chunk as an event of the whole stream."""
        group = self._group
        if not group.base:
            group.base = {name: value for name, value in chunk.items() if name not in {"choices", "usage"}}
        if chunk.get("usage"):
            group.usages.append(chunk["usage"])
        out = b""
        for choice in chunk["choices"]:
            delta = {name: value for name, value in choice.get("delta", {}).items() if name != "role"}
            if delta not in ({}, {"content": ""}) or choice.get("finish_reason"):
                out += group.whole.feed(group.chunk(self._index, {**choice, "delta": delta}))
        return out

    def fail(self, error: GatewayError) -> bytes:
        """An error ends the whole stream."""
        return self._group.whole.fail(error)

    def finish(self) -> bytes:
        """This call has said all."""
        return self._group.ended()


def _sum(usages: Sequence[Json]) -> Json:
    """Usage objects added up, details included."""
    result: Json = {}
    for usage in usages:
        for name, value in usage.items():
            if isinstance(value, dict):
                result[name] = _sum([result.get(name, {}), value])
            elif isinstance(value, int):
                result[name] = result.get(name, 0) + value
    return result


class FanPump:
    """Several streams as one: each leg writes through here; the last to end ends it, the first to fail breaks it."""

    def __init__(self, legs: Sequence[Flow], group: _Group) -> None:
        self.finished: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()
        self.sent = 0
        self._legs = legs
        self._group = group
        self._left = len(legs)
        self._outlet: Outlet | None = None
        self._chunked = True

    def flow(self, outlet: Outlet, head: bytes, chunked: bool) -> None:
        """Write the head and the opening of every choice, then let every leg flow."""
        self._outlet = outlet
        self._chunked = chunked
        outlet.write(head)
        self.write(self._group.opening())
        for leg in self._legs:
            leg.finished.add_done_callback(self._ended)
            leg.flow(self, b"", False)

    def write(self, data: bytes) -> None:
        """Bytes of a leg: whole events."""
        if data and self._outlet is not None and not self.finished.done():
            self.sent += len(data)
            self._outlet.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def hang_up(self) -> None:
        """A leg has written its last byte; `finished` of the leg says how it went."""

    def abort(self) -> None:
        """A leg found the client stalled."""
        if self._outlet is not None:
            self._outlet.abort()

    def buffered(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._outlet.buffered() if self._outlet is not None else 0

    def hold(self) -> None:
        """The client's buffer is full."""
        for leg in self._legs:
            leg.hold()

    def release(self) -> None:
        """The client's buffer has drained."""
        for leg in self._legs:
            leg.release()

    def fail(self, error: GatewayError) -> None:
        """End the stream from our side."""
        if not self.finished.done():
            self.write(self._group.whole.fail(error))
            self._settle(error)

    def stop(self) -> None:
        """Nobody is there to write to any more."""
        for leg in self._legs:
            leg.stop()

    def usage(self) -> Usage | None:
        """What all legs used."""
        return total(leg.usage() for leg in self._legs)

    def _ended(self, leg: asyncio.Future[GatewayError | None]) -> None:
        self._left -= 1
        if self.finished.done():
            return
        if leg.result() is not None or not self._left:
            self._settle(leg.result())

    def _settle(self, outcome: GatewayError | None) -> None:
        if self._outlet is not None:
            if outcome is None and self._chunked:
                self._outlet.write(LAST_CHUNK)
            else:
                self._outlet.hang_up()
        self.finished.set_result(outcome)
        self.stop()
