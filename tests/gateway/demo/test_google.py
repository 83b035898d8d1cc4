"""gateway.demo.google, judged by the official SDK."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from google import genai
from google.genai import errors, types
from upstreams import demo

from gateway.demo import Demo

Run = Callable[[Any], Any]
# The SDK subclasses aiohttp's session, which aiohttp warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")
NEW, OLD = "gemini-3-flash", "gemini-2.5-flash"
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTIONS = [{"name": name, "parametersJsonSchema": CITY} for name in ("weather", "time")]
TOOLS: Any = [{"functionDeclarations": FUNCTIONS}]
HELLO: Any = [{"role": "user", "parts": [{"text": "Hello there"}]}]


def client(upstream: Demo) -> genai.Client:
    options = types.HttpOptions(base_url=upstream.url("google"))
    return genai.Client(api_key="k", http_options=options)


async def post(upstream: Demo, body: Any, *, model: str = NEW, verb: str = "generateContent") -> tuple[int, str, str]:
    url = f"{upstream.url('google')}/v1beta/models/{model}:{verb}"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return response.status, response.content_type, await response.text()


async def posted(body: Any, **options: Any) -> tuple[int, str, str]:
    async with demo() as upstream:
        return await post(upstream, body, **options)


def test_an_answer_echoes_the_user(run: Run) -> None:
    async def main() -> Any:
        async with demo() as upstream:
            return await client(upstream).aio.models.generate_content(model=NEW, contents="Hello there")

    answer = run(main())
    assert "Hello there" in answer.text
    assert answer.candidates[0].finish_reason == "STOP"
    assert answer.usage_metadata.total_token_count > answer.usage_metadata.prompt_token_count


def test_a_stream_says_what_the_whole_answer_says(run: Run) -> None:
    async def main() -> tuple[Any, list[Any]]:
        async with demo() as upstream:
            sdk = client(upstream).aio.models
            whole = await sdk.generate_content(model=NEW, contents="Hello there")
            stream = await sdk.generate_content_stream(model=NEW, contents="Hello there")
            return whole.text, [chunk async for chunk in stream]

    whole, chunks = run(main())
    assert "".join(chunk.text or "" for chunk in chunks) == whole
    assert len(chunks) > 3
    assert all(chunk.usage_metadata for chunk in chunks)


@pytest.mark.parametrize("model", [NEW, OLD])
def test_a_tool_loop_keeps_ids_and_signatures(run: Run, model: str) -> None:
    async def main() -> tuple[Any, Any]:
        async with demo() as upstream:
            sdk = client(upstream).aio.models
            config = types.GenerateContentConfig(tools=TOOLS)
            turns: Any = [types.Content(role="user", parts=[types.Part(text="Hello there")])]
            first = await sdk.generate_content(model=model, contents=turns, config=config)
            answers = [
                types.Part(
                    function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": "sun"})
                )
                for call in first.function_calls or ()
            ]
            turns += [first.candidates[0].content, types.Content(role="user", parts=answers)]
            return first, await sdk.generate_content(model=model, contents=turns, config=config)

    first, second = run(main())
    assert [call.name for call in first.function_calls] == ["weather", "time"]
    parts = [part for part in first.candidates[0].content.parts if part.function_call]
    assert [bool(part.thought_signature) for part in parts] == [model == NEW, False]
    assert [bool(part.function_call.id) for part in parts] == [model == NEW] * 2
    assert "sun" in second.text


def test_candidates_thoughts_and_json(run: Run) -> None:
    thinking = types.ThinkingConfig(include_thoughts=True, thinking_level=types.ThinkingLevel.LOW)
    config = types.GenerateContentConfig(
        candidate_count=2, response_mime_type="application/json", response_json_schema=CITY, thinking_config=thinking
    )

    async def main() -> Any:
        async with demo() as upstream:
            return await client(upstream).aio.models.generate_content(model=NEW, contents="Rome", config=config)

    answer = run(main())
    for candidate in answer.candidates:
        assert candidate.content.parts[0].thought
        assert json.loads(candidate.content.parts[1].text) == {"city": "Rome"}
    usage = answer.usage_metadata
    said = usage.candidates_token_count + usage.thoughts_token_count
    assert usage.total_token_count == usage.prompt_token_count + said


def test_the_old_schema_is_understood(run: Run) -> None:
    schema = types.Schema(
        type=types.Type.OBJECT, properties={"n": types.Schema(type=types.Type.INTEGER)}, required=["n"]
    )
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=schema)

    async def main() -> Any:
        async with demo() as upstream:
            return await client(upstream).aio.models.generate_content(model=OLD, contents="Rome", config=config)

    assert json.loads(run(main()).text) == {"n": 7}


def test_server_sent_events_end_in_crlf_and_without_done(run: Run) -> None:
    status, kind, text = run(posted({"contents": HELLO}, verb="streamGenerateContent?alt=sse"))
    assert (status, kind) == (200, "text/event-stream")
    assert text.endswith("\r\n\r\n")
    assert "[DONE]" not in text


def test_without_alt_the_stream_and_its_errors_are_one_array(run: Run) -> None:
    _, kind, text = run(posted({"contents": HELLO}, verb="streamGenerateContent"))
    assert kind == "application/json"
    assert json.loads(text)[-1]["candidates"][0]["finishReason"] == "STOP"
    status, _, text = run(posted({"contents": []}, verb="streamGenerateContent"))
    assert status == 400
    assert json.loads(text)[0]["error"]["status"] == "INVALID_ARGUMENT"


def test_vertex_paths_lead_to_the_same(run: Run) -> None:
    async def main() -> int:
        async with demo() as upstream:
            url = f"{upstream.url('google')}/v1/projects/p/locations/l/publishers/google/models/{NEW}:generateContent"
            async with aiohttp.ClientSession() as session, session.post(url, json={"contents": HELLO}) as response:
                return response.status

    assert run(main()) == 200


def _calling(signature: str | None, name: str = "weather") -> Any:
    part: dict[str, Any] = {"functionCall": {"name": name, "args": {"city": "x"}}}
    if signature is not None:
        part["thoughtSignature"] = signature
    return {"role": "model", "parts": [part]}


ANSWER: Any = {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"output": "sun"}}}]}
SENTINEL = "skip_thought_signature_validator"


@pytest.mark.parametrize(
    ("signature", "status"),
    [(None, 400), ("QUJD", 400), (SENTINEL, 200), (base64.b64encode(SENTINEL.encode()).decode(), 200)],
)
def test_a_call_of_the_current_turn_needs_its_signature(run: Run, signature: str | None, status: int) -> None:
    turns = [*HELLO, _calling(signature), ANSWER]
    got, _, text = run(posted({"contents": turns, "tools": TOOLS}))
    assert got == status, text


def test_a_call_of_an_earlier_turn_may_come_without(run: Run) -> None:
    turns = [*HELLO, _calling(None), ANSWER, {"role": "model", "parts": [{"text": "Sunny."}]}, *HELLO]
    assert run(posted({"contents": turns, "tools": TOOLS}))[0] == 200


def _generation(**wanted: Any) -> dict[str, Any]:
    return {"generationConfig": wanted}


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 1}, 'Unknown name "maxTokens"'),
    (_generation(max_tokens=1), "Unknown name \"maxTokens\" at 'generation_config'"),
    (_generation(stopSequences=list("abcdef")), "stop_sequences"),
    (_generation(presencePenalty=1), "Penalty"),
    (_generation(responseJsonSchema={}), "responseMimeType"),
    (_generation(logprobs=2), "responseLogprobs"),
    (_generation(thinkingConfig={"thinkingBudget": 1, "thinkingLevel": "LOW"}), "only one"),
    (_generation(candidateCount=0), "candidate_count"),
    ({"contents": []}, "contents"),
    ({"contents": [{"role": "user", "parts": []}]}, "parts must not be empty"),
    ({"contents": [{"role": "user", "parts": [{"text": ""}]}]}, "data"),
    ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "role"),
    ({"contents": [*HELLO, _calling(SENTINEL)], "tools": TOOLS}, "function response"),
    ({"contents": [*HELLO, ANSWER]}, "number of function response parts"),
    ({"contents": [_calling(SENTINEL), ANSWER]}, "immediately after a user turn"),
    ({"contents": [{"role": "user", "parts": [{"inlineData": {"data": "QQ=="}}]}]}, "mime_type"),
    ({"tools": [{"functionDeclarations": [{"name": "1x"}]}]}, "Invalid function name"),
    ({"tools": [{"functionDeclarations": [{"name": "f", "strict": True}]}]}, 'Unknown name "strict"'),
    ({"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"const": 1}}]}]}, 'Unknown name "const"'),
    (
        {"tools": TOOLS, "toolConfig": {"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["time"]}}},
        "ANY",
    ),
    ({"systemInstruction": "Be brief"}, "system_instruction"),
]


@pytest.mark.parametrize(("change", "said"), REFUSALS)
def test_a_wrong_body_is_refused(run: Run, change: dict[str, Any], said: str) -> None:
    status, _, text = run(posted({"contents": HELLO, **change}))
    error = json.loads(text)["error"]
    assert (status, error["status"]) == (400, "INVALID_ARGUMENT")
    assert said in error["message"]


def test_a_forced_function_is_called(run: Run) -> None:
    config = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["time"]}}
    _, _, text = run(posted({"contents": HELLO, "tools": TOOLS, "toolConfig": config}))
    parts = json.loads(text)["candidates"][0]["content"]["parts"]
    assert [part["functionCall"]["name"] for part in parts if "functionCall" in part] == ["time"]


@pytest.mark.parametrize(
    ("switch", "status", "said"),
    [("overloaded", 429, "retryDelay"), ("auth", 400, "API_KEY_INVALID"), ("busy", 503, "UNAVAILABLE")],
)
def test_a_switch_gives_the_error_it_names(run: Run, switch: str, status: int, said: str) -> None:
    got, kind, text = run(posted({"contents": HELLO}, model=f"demo-{switch}", verb="streamGenerateContent?alt=sse"))
    # Plain JSON under the stream's type.
    assert (got, kind) == (status, "text/event-stream")
    assert said in json.dumps(json.loads(text))


def test_an_error_in_the_stream_is_googles_own(run: Run) -> None:
    async def main() -> None:
        async with demo() as upstream:
            sdk = client(upstream).aio.models
            async for _ in await sdk.generate_content_stream(model="demo-midstream", contents="x"):
                pass

    with pytest.raises(errors.ServerError, match="overloaded"):
        run(main())


def test_logprobs_come_when_asked_for(run: Run) -> None:
    _, _, text = run(posted({"contents": HELLO, **_generation(responseLogprobs=True, logprobs=2)}))
    candidate = json.loads(text)["candidates"][0]
    result = candidate["logprobsResult"]
    said = "".join(each["token"] for each in result["chosenCandidates"])
    assert said == candidate["content"]["parts"][0]["text"]
    assert len(result["topCandidates"][0]["candidates"]) == 2


def test_a_limit_may_leave_no_content_at_all(run: Run) -> None:
    thinking = {"includeThoughts": False}
    body = {"contents": HELLO, **_generation(maxOutputTokens=1, stopSequences=["You"], thinkingConfig=thinking)}
    candidate = json.loads(run(posted(body))[2])["candidates"][0]
    assert "parts" not in candidate["content"]


def test_a_filtered_answer_says_safety(run: Run) -> None:
    _, _, text = run(posted({"contents": HELLO}, model="gemini-demo-filtered"))
    assert json.loads(text)["candidates"][0]["finishReason"] == "SAFETY"
