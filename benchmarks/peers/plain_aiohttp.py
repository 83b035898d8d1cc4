"""What one writes first: an aiohttp application with a ClientSession.

plain_aiohttp.py PORT UPSTREAM KEY SECRET CA LOG
"""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

PORT, UPSTREAM, KEY, SECRET, CA, LOG = sys.argv[1:]
MODELS = {"gpt-4o-mini": "gpt-4o-mini"}
OWN = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "date", "server")
)
SESSION = web.AppKey("session", aiohttp.ClientSession)


async def chat(request: web.Request) -> web.StreamResponse:
    """Check the key, look up the model, ask the upstream, pass its answer on."""
    if request.headers.get("Authorization") != f"Bearer {KEY}":
        return web.json_response({"error": {"message": "no such key"}}, status=401)
    body = await request.json()
    body["model"] = MODELS[body["model"]]
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with request.app[SESSION].post(UPSTREAM + request.path_qs, json=body, headers=headers) as answer:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in OWN}
        if answer.content_type == "application/json":
            return web.Response(body=await answer.read(), status=answer.status, headers=kept)
        stream = web.StreamResponse(status=answer.status, headers=kept)
        await stream.prepare(request)
        async for piece in answer.content.iter_any():
            await stream.write(piece)
        await stream.write_eof()
        return stream


async def session(app: web.Application) -> AsyncIterator[None]:
    """The connections to the upstream, as many as it takes."""
    trusted = ssl.create_default_context(cafile=CA) if CA else True
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=trusted)) as opened:
        app[SESSION] = opened
        yield


def main() -> None:
    """Serve, with aiohttp's access log in a file."""
    logging.basicConfig(level=logging.INFO, filename=LOG)
    app = web.Application(client_max_size=1 << 26)
    app.cleanup_ctx.append(session)
    app.router.add_post("/{path:.*}", chat)
    web.run_app(app, host="127.0.0.1", port=int(PORT), print=None, backlog=4096)


main()
