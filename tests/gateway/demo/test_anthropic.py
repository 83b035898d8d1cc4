"""gateway.demo.anthropic, judged by the official SDK."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from upstreams import demo

from gateway.demo import Demo

Run = Callable[[Any], Any]
# The SDK warns of models near their end.
pytestmark = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
TOOLS: list[Any] = [
    {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
    {"name": "now", "input_schema": {"type": "object", "properties": {}}},
]
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}
BASE: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 2000, "messages": HELLO}
CALLED: Any = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "now", "input": {}}]}
ANSWERED: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "noon"}]}


def client(upstream: Demo) -> anthropic.AsyncAnthropic:
    # The SDK's own default is the newest version, which has no sampling parameters.
    headers = {"anthropic-version": "2023-06-01"}
    return anthropic.AsyncAnthropic(
        base_url=upstream.url("anthropic"), api_key="k", max_retries=0, default_headers=headers
    )


async def ask(sdk: anthropic.AsyncAnthropic, **body: Any) -> Any:
    """A message through the SDK's transport, also with what its types do not know."""
    return await sdk.post("/v1/messages", body={**BASE, **body}, cast_to=anthropic.types.Message)


async def refusal(**body: Any) -> Any:
    async with demo() as upstream, client(upstream) as sdk:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await ask(sdk, **body)
    return caught.value


def results(message: Any, text: str) -> Any:
    calls = [block for block in message.content if block.type == "tool_use"]
    return {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": text} for call in calls],
    }


def test_a_message_echoes_the_user(run: Run) -> None:
    async def main() -> Any:
        async with demo() as upstream, client(upstream) as sdk:
            return await sdk.messages.create(**BASE)

    message = run(main())
    assert "Hello there" in message.content[0].text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-sonnet-4-5-demo-steps-2", "claude-demo-redacted"])
def test_a_thinking_loop_of_three_turns_keeps_its_signatures(run: Run, model: str) -> None:
    async def main() -> list[Any]:
        async with demo() as upstream, client(upstream) as sdk:
            turns: list[Any] = list(HELLO)
            replies = []
            for _ in range(3):
                async with sdk.messages.stream(
                    model=model, max_tokens=2000, messages=turns, tools=TOOLS, thinking=THINKING
                ) as stream:
                    message = await stream.get_final_message()
                replies.append(message)
                content = [block.model_dump(exclude_none=True) for block in message.content]
                turns.append({"role": "assistant", "content": content})
                more = message.stop_reason == "tool_use"
                turns.append(results(message, "sunny") if more else {"role": "user", "content": "And now?"})
            return replies

    replies = run(main())
    assert replies[0].stop_reason == "tool_use"
    assert replies[0].content[0].type == ("redacted_thinking" if "redacted" in model else "thinking")
    assert [block.name for block in replies[0].content if block.type == "tool_use"] == ["weather", "now"]
    assert replies[1].stop_reason == ("tool_use" if "steps" in model else "end_turn")
    last = replies[2 if "steps" in model else 1]
    assert "sunny" in last.content[-1].text


@pytest.mark.parametrize("change", ["missing", "altered", "foreign"])
def test_a_loop_without_its_thoughts_is_refused(run: Run, change: str) -> None:
    async def main() -> Any:
        async with demo() as upstream, client(upstream) as sdk:
            first = await ask(sdk, tools=TOOLS, thinking=THINKING)
            blocks = [block.model_dump(exclude_none=True) for block in first.content]
            if change == "missing":
                del blocks[0]
            elif change == "altered":
                blocks[0]["thinking"] += "!"
            else:
                blocks[0]["signature"] = "QUJD"
            turns = [*HELLO, {"role": "assistant", "content": blocks}, results(first, "sunny")]
            with pytest.raises(anthropic.BadRequestError) as caught:
                await ask(sdk, messages=turns, tools=TOOLS, thinking=THINKING)
            return caught.value

    assert ("Expected `thinking`" if change == "missing" else "Invalid `signature`") in str(run(main()))


def test_a_stream_names_its_events_and_ends_with_message_stop(run: Run) -> None:
    async def main() -> list[str]:
        async with demo() as upstream, client(upstream) as sdk:
            stream = await sdk.messages.create(**BASE, stream=True)
            return [event.type async for event in stream]

    kinds = run(main())
    assert kinds[0] == "message_start"
    assert kinds.count("content_block_delta") > 3
    assert kinds[-2:] == ["message_delta", "message_stop"]


def test_a_schema_is_answered_with_its_json(run: Run) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    wanted = {"format": {"type": "json_schema", "schema": schema}}

    async def main() -> Any:
        async with demo() as upstream, client(upstream) as sdk:
            return await ask(sdk, output_config=wanted)

    assert json.loads(run(main()).content[0].text) == {"city": "Hello there"}


def test_a_forced_tool_is_called_alone_and_again(run: Run) -> None:
    choice = {"type": "tool", "name": "now", "disable_parallel_tool_use": True}

    async def main() -> list[Any]:
        async with demo() as upstream, client(upstream) as sdk:
            turns = [*HELLO, CALLED, ANSWERED]
            return [await ask(sdk, tools=TOOLS, tool_choice=choice, messages=each) for each in (HELLO, turns)]

    for message in run(main()):
        assert [block.name for block in message.content if block.type == "tool_use"] == ["now"]


def test_stop_sequences_and_max_tokens_are_honoured(run: Run) -> None:
    async def main() -> tuple[Any, Any]:
        async with demo() as upstream, client(upstream) as sdk:
            return await ask(sdk, stop_sequences=["This"]), await ask(sdk, max_tokens=2)

    stopped, short = run(main())
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "This")
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)


def _said(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [*(HELLO if role == "assistant" else ()), {"role": role, "content": list(blocks)}]}


def _formatted(schema: Any) -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, "seed: Extra inputs are not permitted"),
    ({"max_tokens": None}, "max_tokens"),
    ({"temperature": 1.5}, "temperature"),
    ({"temperature": 1, "top_p": 0.5}, "cannot both be specified"),
    ({"model": "claude-opus-4-7", "temperature": 0.5}, "not supported"),
    ({"stop_sequences": [" "]}, "non-empty"),
    (_said({"type": "text", "text": ""}), "non-empty"),
    (_said({"type": "text", "text": "x", "name": "n"}), "messages.0.content.0.name: Extra inputs"),
    (_said({"type": "image_url", "image_url": {"url": "x"}}), "messages.0.content.0.type"),
    (_said({"type": "text", "text": "x "}, role="assistant"), "trailing whitespace"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "first message"),
    ({"messages": [{"role": "system", "content": "x"}, *HELLO]}, "first message"),
    ({"messages": [*HELLO, {"role": "tool", "content": "x"}]}, "role"),
    ({"messages": [*HELLO, CALLED], "tools": TOOLS}, "without `tool_result`"),
    ({"messages": [*HELLO, CALLED, *HELLO], "tools": TOOLS}, "without `tool_result`"),
    ({"messages": [*HELLO, ANSWERED], "tools": TOOLS}, "unexpected `tool_use_id`"),
    ({"tools": [{"name": "f", "input_schema": {"properties": {}}}]}, "tools.0.input_schema.type: Field required"),
    ({"tools": [{"name": "a.b", "input_schema": {"type": "object"}}]}, "pattern"),
    ({"tool_choice": {"type": "auto"}}, "while providing tools"),
    ({"tools": TOOLS, "tool_choice": "auto"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "any"}, "thinking": THINKING}, "forces tool use"),
    ({"thinking": THINKING, "max_tokens": 1000}, "budget_tokens"),
    ({"thinking": THINKING, "temperature": 0.5}, "thinking"),
    ({"model": "claude-opus-4-8", "thinking": THINKING}, "adaptive"),
    (_formatted({"type": "object", "properties": {}}), "additionalProperties"),
    (_formatted({"type": "integer", "minimum": 1}), "'minimum' is not supported"),
    ({"system": [{"type": "text", "text": " "}]}, "system.0.text"),
    ({"metadata": {"user_id": "u", "more": "x"}}, "metadata.more: Extra inputs"),
]


@pytest.mark.parametrize(("change", "said"), REFUSALS)
def test_a_wrong_body_is_refused(run: Run, change: dict[str, Any], said: str) -> None:
    error = run(refusal(**change))
    assert error.status_code == 400
    assert error.body["error"]["type"] == "invalid_request_error"
    assert said in error.body["error"]["message"]


def test_text_after_a_call_is_refused(run: Run) -> None:
    blocks = [*CALLED["content"], {"type": "text", "text": "And?"}]
    error = run(refusal(messages=[*HELLO, {"role": "assistant", "content": blocks}, ANSWERED], tools=TOOLS))
    assert error.status_code == 400


def test_results_must_come_first(run: Run) -> None:
    blocks = [{"type": "text", "text": "Here:"}, *ANSWERED["content"]]
    error = run(refusal(messages=[*HELLO, CALLED, {"role": "user", "content": blocks}], tools=TOOLS))
    assert "come first" in str(error)


@pytest.mark.parametrize(
    ("switch", "status", "kind"),
    [
        ("fail", 500, "api_error"),
        ("overloaded", 529, "overloaded_error"),
        ("busy", 429, "rate_limit_error"),
        ("auth", 401, "authentication_error"),
        ("missing", 404, "not_found_error"),
    ],
)
def test_a_switch_gives_the_error_it_names(run: Run, switch: str, status: int, kind: str) -> None:
    error = run(refusal(model=f"claude-demo-{switch}"))
    assert (error.status_code, error.body["error"]["type"]) == (status, kind)


@pytest.mark.parametrize("switch", ["midstream", "firsterror"])
def test_an_error_in_the_stream_is_anthropics_own(run: Run, switch: str) -> None:
    async def main() -> None:
        async with demo() as upstream, client(upstream) as sdk:
            stream = await sdk.messages.create(model=f"demo-{switch}", max_tokens=99, messages=HELLO, stream=True)
            async for _ in stream:
                pass

    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        run(main())
