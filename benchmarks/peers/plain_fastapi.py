"""The other thing that one writes first: FastAPI with httpx.

plain_fastapi.py PORT UPSTREAM KEY SECRET CA LOG
"""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

PORT, UPSTREAM, KEY, SECRET, CA, LOG = sys.argv[1:]
MODELS = {"gpt-4o-mini": "gpt-4o-mini"}
OWN = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "date", "server")
)


async def chat(request: Request) -> Response:
    """Check the key, look up the model, ask the upstream, pass its answer on."""
    if request.headers.get("authorization") != f"Bearer {KEY}":
        return JSONResponse({"error": {"message": "no such key"}}, status_code=401)
    body = await request.json()
    body["model"] = MODELS[body["model"]]
    client: httpx.AsyncClient = request.app.state.client
    url = f"{UPSTREAM}{request.url.path}{'?' if request.url.query else ''}{request.url.query}"
    asked = client.build_request("POST", url, json=body, headers={"Authorization": f"Bearer {SECRET}"})
    answer = await client.send(asked, stream=True)
    kept = {name: value for name, value in answer.headers.items() if name not in OWN}
    if answer.headers["content-type"] == "application/json":
        return Response(await answer.aread(), answer.status_code, kept)
    return StreamingResponse(pieces(answer), answer.status_code, kept)


async def pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes; the connection goes back when it ends or the client leaves."""
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[None]:
    """The connections to the upstream, as many as it takes."""
    trusted = ssl.create_default_context(cafile=CA) if CA else True
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=600, verify=trusted) as opened:
        app.state.client = opened
        yield


def main() -> None:
    """Serve on uvloop and httptools, with uvicorn's access log in a file."""
    logging.basicConfig(level=logging.INFO, filename=LOG)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    app = FastAPI(lifespan=client)
    app.add_api_route("/{path:path}", chat, methods=["POST"])
    uvicorn.run(app, host="127.0.0.1", port=int(PORT), backlog=4096, log_config=None, timeout_keep_alive=60)


main()
