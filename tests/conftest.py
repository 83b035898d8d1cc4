"""An event loop whose clock can be put forward, and real servers on 127.0.0.1 to be the other side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop in which an hour passes at once: what was due by then is run in the next turns."""

    def __init__(self) -> None:
        super().__init__()
        self._jumped = 0.0

    def time(self) -> float:
        return super().time() + self._jumped

    def advance(self, seconds: float) -> None:
        self._jumped += seconds


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run one coroutine in a loop of its own, whose `advance` passes time."""

    def run_it(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            return runner.run(main)

    return run_it


@dataclass
class Asked:
    """A request as the endpoint saw it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]


@dataclass
class Endpoint:
    """A control-plane server: `answer` is called with each request; `asked` keeps them in order."""

    answer: Callable[[Asked], web.StreamResponse | Awaitable[web.StreamResponse]]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method, request.path, dict(request.query), headers, form)
        self.asked.append(asked)
        answer = self.answer(asked)
        return answer if isinstance(answer, web.StreamResponse) else await answer


@pytest.fixture
def endpoint() -> Callable[..., AbstractAsyncContextManager[Endpoint]]:
    """`async with endpoint(answer) as server`: a real server, with its address in `server.url`."""

    @asynccontextmanager
    async def serve(answer: Callable[[Asked], Any]) -> AsyncIterator[Endpoint]:
        server = Endpoint(answer)
        runner = web.ServerRunner(web.Server(server.handle))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield server
        finally:
            await runner.cleanup()

    return serve


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Let the loop turn until the claim holds; ten seconds of failing to is an error."""

    async def turn(claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not claim():  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0)

    return turn


@pytest.fixture(scope="session")
def shared() -> Path:
    """The specifications beside the project; a test that needs them is skipped where they are absent."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("the specifications are not beside the project")
    return path
