"""gateway.demo.bedrock, judged by botocore."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import botocore.config
import botocore.exceptions
import botocore.session
import pytest
from upstreams import demo

Run = Callable[[Any], Any]
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
HELLO: list[Any] = [{"role": "user", "content": [{"text": "Hello there"}]}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
EMPTY: dict[str, Any] = {"type": "object"}
TOOLS: Any = {
    "tools": [
        {"toolSpec": {"name": "weather", "inputSchema": {"json": SCHEMA}}},
        {"toolSpec": {"name": "now", "inputSchema": {"json": EMPTY}}},
    ]
}
THINKING: Any = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
CALLED: Any = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "now", "input": {}}}]}
ANSWERED: Any = {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "noon"}]}}]}
SESSION = botocore.session.Session()


def client(url: str) -> Any:
    config = botocore.config.Config(retries={"total_max_attempts": 1}, parameter_validation=False)
    return SESSION.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=config,
    )


def against(run: Run, work: Callable[[Any], Any]) -> Any:
    """What `work` returns, given a botocore client of a demo."""

    async def main() -> Any:
        async with demo() as upstream:
            return await asyncio.to_thread(lambda: work(client(upstream.url("bedrock"))))

    return run(main())


def converse(run: Run, **body: Any) -> Any:
    return against(run, lambda sdk: sdk.converse(**{"modelId": MODEL, "messages": HELLO, **body}))


def streamed(run: Run, **body: Any) -> list[Any]:
    return against(
        run, lambda sdk: list(sdk.converse_stream(**{"modelId": MODEL, "messages": HELLO, **body})["stream"])
    )


def test_an_answer_echoes_the_user(run: Run) -> None:
    answer = converse(run)
    assert "Hello there" in answer["output"]["message"]["content"][0]["text"]
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"]["totalTokens"] == answer["usage"]["inputTokens"] + answer["usage"]["outputTokens"]


def test_a_stream_says_what_the_whole_answer_says(run: Run) -> None:
    events = streamed(run)
    said = "".join(each["contentBlockDelta"]["delta"]["text"] for each in events if "contentBlockDelta" in each)
    assert said == converse(run)["output"]["message"]["content"][0]["text"]
    assert [next(iter(each)) for each in events][-2:] == ["messageStop", "metadata"]
    assert not any("contentBlockStart" in each for each in events)


def test_a_streamed_call_has_a_start_and_an_empty_one_no_input(run: Run) -> None:
    events = streamed(run, toolConfig=TOOLS)
    starts = [each["contentBlockStart"] for each in events if "contentBlockStart" in each]
    assert [each["start"]["toolUse"]["name"] for each in starts] == ["weather", "now"]
    inputs: dict[int, str] = {}
    for each in events:
        delta = each.get("contentBlockDelta", {})
        if "toolUse" in delta.get("delta", {}):
            at = delta["contentBlockIndex"]
            inputs[at] = inputs.get(at, "") + delta["delta"]["toolUse"]["input"]
    assert {at: json.loads(text) for at, text in inputs.items()} == {
        starts[0]["contentBlockIndex"]: {"city": "Hello there"}
    }


@pytest.mark.parametrize("change", ["kept", "missing", "altered"])
def test_a_thinking_loop_needs_its_signature(run: Run, change: str) -> None:
    def work(sdk: Any) -> Any:
        options = {"modelId": MODEL, "toolConfig": TOOLS, "additionalModelRequestFields": THINKING}
        first = sdk.converse(messages=HELLO, **options)["output"]["message"]
        calls = [block["toolUse"]["toolUseId"] for block in first["content"] if "toolUse" in block]
        if change == "missing":
            del first["content"][0]
        elif change == "altered":
            first["content"][0]["reasoningContent"]["reasoningText"]["signature"] = "QUJD"
        results = [{"toolResult": {"toolUseId": call, "content": [{"json": {"sky": "sun"}}]}} for call in calls]
        return sdk.converse(messages=[*HELLO, first, {"role": "user", "content": results}], **options)

    if change == "kept":
        assert "sun" in against(run, work)["output"]["message"]["content"][-1]["text"]
        return
    with pytest.raises(botocore.exceptions.ClientError, match="thinking"):
        against(run, work)


def test_a_streamed_thought_ends_with_its_signature(run: Run) -> None:
    events = streamed(run, additionalModelRequestFields=THINKING)
    thoughts = [
        each["contentBlockDelta"]["delta"]["reasoningContent"]
        for each in events
        if "reasoningContent" in each.get("contentBlockDelta", {}).get("delta", {})
    ]
    assert all("text" in each for each in thoughts[:-1])
    assert "signature" in thoughts[-1]


def test_a_schema_is_answered_with_its_json(run: Run) -> None:
    schema = json.dumps({**SCHEMA, "additionalProperties": False})
    wanted = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": schema, "name": "n"}}}}
    answer = converse(run, outputConfig=wanted)
    assert json.loads(answer["output"]["message"]["content"][0]["text"]) == {"city": "Hello there"}


def test_stop_and_max_tokens_are_honoured(run: Run) -> None:
    assert converse(run, inferenceConfig={"stopSequences": ["This"]})["stopReason"] == "stop_sequence"
    assert converse(run, inferenceConfig={"maxTokens": 2})["stopReason"] == "max_tokens"


def test_a_hidden_thought_goes_round(run: Run) -> None:
    def work(sdk: Any) -> Any:
        options = {
            "modelId": "anthropic.claude-demo-redacted",
            "toolConfig": TOOLS,
            "additionalModelRequestFields": THINKING,
        }
        first = sdk.converse(messages=HELLO, **options)["output"]["message"]
        assert "redactedContent" in first["content"][0]["reasoningContent"]
        calls = [block["toolUse"]["toolUseId"] for block in first["content"] if "toolUse" in block]
        results = [{"toolResult": {"toolUseId": call, "content": [{"text": "sun"}]}} for call in calls]
        return sdk.converse(messages=[*HELLO, first, {"role": "user", "content": results}], **options)

    assert against(run, work)["stopReason"] == "end_turn"
    events = streamed(run, modelId="anthropic.claude-demo-redacted", additionalModelRequestFields=THINKING)
    assert "redactedContent" in events[1]["contentBlockDelta"]["delta"]["reasoningContent"]


def test_a_named_tool_is_called_alone(run: Run) -> None:
    answer = converse(run, toolConfig={**TOOLS, "toolChoice": {"tool": {"name": "now"}}})
    names = [block["toolUse"]["name"] for block in answer["output"]["message"]["content"] if "toolUse" in block]
    assert names == ["now"]


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "start with a user message"),
    ({"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}, "start with a user message"),
    ({"messages": [*HELLO, *HELLO]}, "alternate"),
    ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "blank"),
    ({"messages": [*HELLO, CALLED, ANSWERED]}, "toolConfig"),
    ({"messages": [*HELLO, CALLED], "toolConfig": TOOLS}, "without `tool_result`"),
    ({"inferenceConfig": {"temperature": 1.5}}, "temperature"),
    ({"inferenceConfig": {"temperature": 1.0, "topP": 0.5}}, "cannot both"),
    ({"inferenceConfig": {"maxTokens": 0}}, "maxTokens"),
    ({"inferenceConfig": {"stopSequences": [""]}}, "stopSequences"),
    ({"toolConfig": {"tools": []}}, "tools"),
    ({"toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": {}}}}]}}, "object"),
    (
        {"toolConfig": {"tools": [{"toolSpec": {"name": "f", "description": "", "inputSchema": {"json": EMPTY}}}]}},
        "empty",
    ),
    ({"toolConfig": {"tools": [{"toolSpec": {"name": "a.b", "inputSchema": {"json": EMPTY}}}]}}, "pattern"),
    ({"toolConfig": {**TOOLS, "toolChoice": {"any": {}}}, "additionalModelRequestFields": THINKING}, "forces tool use"),
    ({"system": [{"text": ""}]}, "blank"),
]


@pytest.mark.parametrize(("change", "said"), REFUSALS)
def test_a_wrong_body_is_a_validation_exception(run: Run, change: dict[str, Any], said: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        converse(run, **change)
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert said in error["Message"]


@pytest.mark.parametrize(
    ("switch", "status", "code"),
    [
        ("overloaded", 429, "ThrottlingException"),
        ("auth", 403, "UnrecognizedClientException"),
        ("fail", 500, "InternalServerException"),
    ],
)
def test_a_switch_gives_the_error_it_names(run: Run, switch: str, status: int, code: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        converse(run, modelId=f"demo-{switch}")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("switch", ["midstream", "firsterror"])
def test_an_exception_frame_breaks_the_stream(run: Run, switch: str) -> None:
    with pytest.raises(botocore.exceptions.EventStreamError, match="throttlingException"):
        streamed(run, modelId=f"demo-{switch}")
