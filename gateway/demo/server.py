"""The demo upstream: eight providers' wire formats on one port, answered without a model."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from aiohttp import web

from gateway.demo.answers import Ask, answers
from gateway.demo.mischief import ACTS, STREAM_ONLY, Scene, send
from gateway.demo.places import PATHS, find, listing
from gateway.demo.steering import TROUBLES, Switch, switch_of
from gateway.demo.wire import Incoming, Place, Refused, Reply, Wire, dump

PACE = 0.02  # seconds between two events, so that streaming is seen


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as the demo got it; `path` is raw and has its query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Demo:
    """A running demo upstream.

    `requests` keeps the last ones if `record` was given to `start_demo`; `served` counts them all, `gone`
    those whose client left before the answer was complete, `active` those being answered.
    """

    def __init__(self, pace: float, record: int) -> None:
        self.pace = pace
        self.port = 0
        self.requests: deque[Recorded] = deque(maxlen=record)
        self.served = 0
        self.gone = 0
        self.active = 0
        self._changed = asyncio.Event()
        self._serials = itertools.count(1)
        self._script: deque[str] = deque()
        self._web = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        """Begin to accept connections; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._web, host, port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._listener is not None:
            self._listener.close()
        self._web.pre_shutdown()
        await self._web.shutdown(0)

    def url(self, provider: str) -> str:
        """The base URL that gateway.yaml needs for a provider."""
        return f"http://127.0.0.1:{self.port}{PATHS[provider]}"

    def misbehave(self, *switches: str) -> None:
        """Steer the next requests, one switch each, whatever their models are named; "" is an ordinary answer."""
        self._script.extend(switches)

    async def settled(self, active: int = 0) -> None:
        """Wait until so many requests are being answered, no more and no fewer."""
        while self.active != active:
            self._changed.clear()
            await self._changed.wait()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.served += 1
        self.active += 1
        self._changed.set()
        try:
            return await self._answered(request)
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            raise
        finally:
            self.active -= 1
            self._changed.set()

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.content.read()
        if self.requests.maxlen:
            path = request.rel_url.raw_path_qs
            self.requests.append(Recorded(request.method, path, dict(request.headers), raw))
        place = find(request.method, request.rel_url.raw_path, request.rel_url.query.get("alt", ""))
        if place is None:
            error = {"message": f"Unknown path {request.rel_url.raw_path}", "type": "invalid_request_error"}
            return _whole(Reply(404, dump({"error": {**error, "param": None, "code": None}})))
        if place.wire is None:
            return _whole(Reply(200, dump(listing(place))))
        try:
            return await self._spoken(request, place, place.wire, raw)
        except Refused as refused:
            return _whole(place.wire.refuse(refused, place))

    async def _spoken(self, request: web.BaseRequest, place: Place, wire: Wire, raw: bytes) -> web.StreamResponse:
        incoming = self._incoming(request, place, raw)
        switch = self._switch(place.model or str(incoming.body.get("model")))
        if switch.name in TROUBLES:
            raise wire.troubles[switch.name]
        ask = wire.open(incoming)
        scene = self._scene(request, place, ask, switch)
        act = ACTS.get(switch.name)
        if act is not None and (ask.stream or switch.name not in STREAM_ONLY):
            return await act(scene)
        if act is not None and switch.name == "midstream":
            raise wire.troubles["fail"]
        if ask.stream:
            return await send(scene, scene.events)
        return web.Response(body=scene.events[0], headers=scene.headers)

    def _incoming(self, request: web.BaseRequest, place: Place, raw: bytes) -> Incoming:
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Refused("The request body is not valid JSON.", code="invalid_json") from error
        if not isinstance(body, dict):
            raise Refused("The request body must be a JSON object.", code="invalid_json")
        return Incoming(
            provider=place.provider,
            path=request.rel_url.raw_path,
            query=dict(request.rel_url.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            serial=next(self._serials),
            model=place.model,
            operation=place.operation,
        )

    def _switch(self, model: str) -> Switch:
        if not self._script:
            return switch_of(model)
        return switch_of("demo-" + self._script.popleft())

    def _scene(self, request: web.BaseRequest, place: Place, ask: Ask, switch: Switch) -> Scene:
        said, wire = answers(ask), place.wire
        assert wire is not None
        if ask.stream:
            events = list(wire.stream(ask, said))
            kind = wire.stream_type if ask.options.get("sse", True) else "application/json"
        else:
            reply = wire.whole(ask, said)
            events, kind = [reply.body], reply.content_type
        headers = {"Content-Type": kind, **wire.headers(ask)}
        return Scene(request, place, wire, ask, events, headers, self.pace, switch)


def _whole(reply: Reply) -> web.Response:
    return web.Response(
        status=reply.status, body=reply.body, headers={"Content-Type": reply.content_type, **reply.headers}
    )


async def start_demo(host: str, port: int, *, pace: float = PACE, record: int = 0) -> Demo:
    """A demo that is listening; `record` is how many requests it keeps."""
    demo = Demo(pace, record)
    await demo.listen(host, port)
    return demo
