"""What happens to an answer's bytes on purpose: slow, stalled, cut, lying or endless answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from gateway.demo.answers import Ask
from gateway.demo.steering import Switch
from gateway.demo.wire import Place, Wire

HTML = b"<!doctype html><html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"
BLOCK = 65536
LIE = 1000  # bytes that a wrong content-length promises and never gives


@dataclass(frozen=True, slots=True)
class Scene:
    """One request with its answer ready: `events` are the stream's, or the whole body as the only one."""

    request: web.BaseRequest
    place: Place
    wire: Wire
    ask: Ask
    events: Sequence[bytes]
    headers: Mapping[str, str]
    pace: float
    switch: Switch

    @property
    def half(self) -> Sequence[bytes]:
        """The first half of the stream, or half of the body."""
        if self.ask.stream:
            return self.events[: max(len(self.events) // 2, 1)]
        return [self.events[0][: len(self.events[0]) // 2]]

    async def opened(self, **extra: str) -> web.StreamResponse:
        """The answer's head, sent."""
        response = web.StreamResponse(headers={**self.headers, **extra})
        await response.prepare(self.request)
        return response

    async def begun(self) -> web.StreamResponse:
        """The answer's head and first half, sent at once."""
        response = await self.opened()
        for event in self.half:
            await response.write(event)
        return response


Act = Callable[[Scene], Awaitable[web.StreamResponse]]


async def send(scene: Scene, events: Sequence[bytes], pace: float | None = None) -> web.StreamResponse:
    """Events one after the other, as healthy providers send them."""
    response = await scene.opened()
    for event in events:
        await response.write(event)
        await asyncio.sleep(scene.pace if pace is None else pace)  # the pace of a model that writes
    await response.write_eof()
    return response


async def _slow(scene: Scene) -> web.StreamResponse:
    return await send(scene, scene.events, scene.pace * 50)


async def _drip(scene: Scene) -> web.StreamResponse:
    response = await scene.opened()
    for byte in b"".join(scene.events):
        await response.write(bytes((byte,)))
        await asyncio.sleep(0)  # so that every byte leaves by itself
    await response.write_eof()
    return response


async def _forever() -> web.StreamResponse:
    # Ends when the client goes or the demo stops: both cancel the handler.
    never: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await never


async def _stall(scene: Scene) -> web.StreamResponse:
    await scene.begun()
    return await _forever()


async def _hang(scene: Scene) -> web.StreamResponse:
    return await _forever()


async def _reset(scene: Scene) -> web.StreamResponse:
    await scene.begun()
    await asyncio.sleep(scene.pace)  # what was sent before arrives before the reset
    reset(scene.request.transport)
    # Not returned, as aiohttp would end the answer properly; the loss of the connection cancels this.
    return await _forever()


def reset(transport: asyncio.Transport | None) -> None:
    """Close a connection with a TCP reset."""
    if transport is not None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def _cut(scene: Scene) -> web.StreamResponse:
    """Framing ends well; the format's own end never comes."""
    return await send(scene, scene.half)


async def _shortlength(scene: Scene) -> web.StreamResponse:
    body = b"".join(scene.events)
    response = await scene.opened(**{"Content-Length": str(len(body) + LIE)})
    await response.write(body)
    if scene.request.transport is not None:
        scene.request.transport.close()
    return await _forever()


async def _html(scene: Scene) -> web.StreamResponse:
    return web.Response(body=HTML, content_type="text/html")


async def _badgateway(scene: Scene) -> web.StreamResponse:
    return web.Response(status=502, body=HTML, content_type="text/html")


async def _flood(scene: Scene) -> web.StreamResponse:
    response = await scene.begun()
    block = scene.wire.filler(scene.ask, BLOCK)
    for _ in range(scene.switch.number * 1024 * 1024 // BLOCK):
        await response.write(block)
    for event in scene.events[len(scene.half) :]:
        await response.write(event)
    await response.write_eof()
    return response


async def _midstream(scene: Scene) -> web.StreamResponse:
    return await send(scene, [*scene.half, scene.wire.broken(scene.ask)])


async def _firsterror(scene: Scene) -> web.StreamResponse:
    return await send(scene, [scene.wire.broken(scene.ask)])


async def _error200(scene: Scene) -> web.StreamResponse:
    """An error in JSON under status 200, whatever was asked for."""
    refused = scene.wire.troubles["busy"]
    reply = scene.wire.refuse(refused, scene.place)
    return web.Response(body=reply.body, content_type="application/json")


ACTS: dict[str, Act] = {
    "slow": _slow,
    "drip": _drip,
    "stall": _stall,
    "hang": _hang,
    "reset": _reset,
    "cut": _cut,
    "shortlength": _shortlength,
    "html": _html,
    "badgateway": _badgateway,
    "flood": _flood,
    "midstream": _midstream,
    "firsterror": _firsterror,
    "error200": _error200,
}
STREAM_ONLY = frozenset(("slow", "flood", "midstream", "firsterror"))
