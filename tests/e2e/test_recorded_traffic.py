"""Every recorded answer, whole, streamed or an error, through the running gateway to the official openai client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from livegateway import HELLO, serving
from recorded import FOLDERS, NATIVE, OTHER_API, TRANSLATED, passed_on

from tests.corpus import Case, body, cases

PROVIDERS = (*NATIVE, *TRANSLATED)
# Which of a provider's APIs the gateway speaks to it.
SPOKEN = {
    "anthropic": ("messages",),
    "google": ("generateContent", "streamGenerateContent"),
    "bedrock": ("converse", "converse-stream"),
}
KINDS = {"sse": "text/event-stream", "eventstream": "application/vnd.amazon.eventstream"}
AT_ONCE = 8


def recorded(name: str) -> dict[str, Case]:
    rows = [row.values[0] for row in cases(FOLDERS.get(name, name))]
    return {
        case["id"]: case
        for case in rows
        if case["endpoint"] in SPOKEN.get(name, ("chat",)) and case["id"] not in OTHER_API
    }


@asynccontextmanager
async def upstream(known: dict[str, Case]) -> AsyncIterator[str]:
    """Answers with the case whose id stands in the path or in the body; events come one by one, each in its chunk."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        asked = request.path + (await request.read()).decode()
        found = re.search(r"recorded\.([A-Za-z0-9_.-]+?)(?:[:/\"]|$)", asked)
        assert found is not None, asked[:200]
        case = known[found[1]]
        answer = case["response"]
        kind = KINDS.get(case["framing"], "application/json")
        headers = {name: value for name, value in answer["headers"].items() if name.startswith(("retry", "x-amzn-err"))}
        status = answer["status"] if answer["status"] < 600 else 500
        headers["content-type"] = kind
        if case["framing"] != "sse":
            return web.Response(status=status, body=body(case), headers=headers)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        for piece in re.split(rb"(?<=\n\n)(?=.)", body(case), flags=re.DOTALL):
            await response.write(piece)
            await asyncio.sleep(0)
        return response

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def outcome(client: openai.AsyncOpenAI, name: str, case: Case) -> Any:
    """The final completion that the client ends up with, or the error that it raises."""
    model = f"{name}/recorded.{case['id']}"
    try:
        if case["kind"] == "stream":
            async with client.chat.completions.stream(model=model, messages=HELLO) as stream:
                return await stream.get_final_completion()
        return await client.chat.completions.create(model=model, messages=HELLO)
    except openai.APIError as error:
        return error
    except openai.LengthFinishReasonError as error:
        return error.completion
    except openai.ContentFilterFinishReasonError:
        # The client got the stream whole, and says itself what it thinks of a filtered one.
        return None


def complaint(name: str, case: Case, got: Any) -> str:
    """What is wrong with the outcome; empty when nothing is."""
    if got is None:
        return ""
    failed = isinstance(got, openai.APIError)
    if case["kind"] == "error":
        return "" if failed else "an error looked like an answer"
    if case["kind"] == "stream":
        chunks = passed_on(name, case)
        if chunks is None:
            return "" if failed else "a broken stream looked whole"
        told = "".join(
            part["delta"].get("content") or "" for chunk in chunks for part in chunk["choices"] if part.get("delta")
        )
        if failed:
            return f"a good stream failed: {got}"
        said = "".join(choice.message.content or "" for choice in got.choices)
        return "" if len(said) == len(told) else f"{len(told)} characters were sent, {len(said)} arrived"
    return "" if not failed and got.choices else f"a good answer failed: {got}"


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.usefixtures("shared")
def test_the_official_client_gets_every_recorded_answer(name: str, tmp_path: Path) -> None:
    known = recorded(name)

    async def main() -> dict[str, str]:
        async with upstream(known) as url:
            entry: dict[str, Any] = {"type": name, "base_url": url, "api_key": "k"}
            if name == "bedrock":
                entry["region"] = "eu-central-1"
            content = {
                "providers": {name: entry},
                "deployments": {f"{name}/*": {"provider": name, "model": "*"}},
                "retry": {"attempts": 1},
            }
            async with serving(tmp_path, content) as live:
                base = f"http://127.0.0.1:{live.port}/v1"
                async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as client:
                    room = asyncio.Semaphore(AT_ONCE)

                    async def one(case: Case) -> str:
                        async with room:
                            return complaint(name, case, await outcome(client, name, case))

                    said = await asyncio.gather(*(one(case) for case in known.values()))
        return {case: words for case, words in zip(known, said, strict=True) if words}

    assert len(known) >= 8
    assert asyncio.run(main()) == {}
