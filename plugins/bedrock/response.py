"""A Converse answer as a chat completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.contract import ChatRequest, Stamp, Target, Usage
from gateway.conversation import carry
from gateway.errors import BadUpstreamResponse
from gateway.hub import COMPLETION, Json
from gateway.usage import write_usage
from plugins.bedrock.blocks import CARRIED, thinking_block
from plugins.bedrock.refusals import read_error
from plugins.bedrock.tools import ToolPlan, plan_tools, understood

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
SERVICE_TIERS = frozenset(("default", "flex", "priority"))


def read_response(body: bytes, chat: ChatRequest, target: Target, stamp: Stamp) -> Json:
    """The whole answer as a chat completion; raises UpstreamError for an error inside a 200."""
    answer = _opened(body)
    plan = plan_tools(understood(chat.parsed()), target)
    reader = _Reader(plan, carries(target))
    for block in answer["output"]["message"].get("content") or ():
        reader.take(block)
    stop = str(answer.get("stopReason") or "")
    reason = finish_reason(stop, plan, calls=bool(reader.calls))
    choice = {"index": 0, "message": reader.message(), "logprobs": None}
    choice |= {"finish_reason": reason, "native_finish_reason": stop}
    completion: Json = {"id": f"chatcmpl-{stamp.id}", "object": COMPLETION, "created": stamp.created}
    completion |= {"model": target.model, "choices": [choice]}
    usage = read_usage(answer.get("usage"), answer.get("additionalModelResponseFields"))
    if usage is not None:
        completion["usage"] = write_usage(usage)
    tier = answer.get("serviceTier")
    if isinstance(tier, dict) and tier.get("type") in SERVICE_TIERS:
        completion["service_tier"] = tier["type"]
    return completion


def _opened(body: bytes) -> Json:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadUpstreamResponse("The provider sent an answer that is not JSON.") from error
    output = answer.get("output") if isinstance(answer, dict) else None
    if isinstance(output, dict) and isinstance(output.get("message"), dict):
        found: Json = answer
        return found
    if isinstance(answer, dict) and any(name in answer for name in ("message", "Message", "__type", "error")):
        raise read_error(200, {}, body)
    raise BadUpstreamResponse("The provider sent an answer without a message.")


class _Reader:
    """Collects the content blocks of one message."""

    def __init__(self, plan: ToolPlan, carrying: bool) -> None:
        self._plan = plan
        self._carrying = carrying
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._thinking: list[Json] = []
        self._citations: list[Json] = []
        self._answer: str | None = None
        self.calls: list[Json] = []

    def take(self, block: Mapping[str, Any]) -> None:
        """Take one block; a server's own tool calls and what is unknown are passed over."""
        if isinstance(text := block.get("text"), str):
            self._texts.append(text)
        elif isinstance(use := block.get("toolUse"), dict):
            self._tool(use)
        elif isinstance(reasoning := block.get("reasoningContent"), dict):
            self._reason(reasoning)
        elif isinstance(cited := block.get("citationsContent"), dict):
            self._texts += [str(part.get("text") or "") for part in cited.get("content") or ()]
            for citation in cited.get("citations") or ():
                self._citations += citations(citation, len("".join(self._texts)))

    def message(self) -> Json:
        text = "".join(self._texts) if self._answer is None else self._answer
        message: Json = {"role": "assistant", "content": text or (None if self.calls else ""), "refusal": None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._thinking:
            message["thinking_blocks"] = self._thinking
        if self._citations:
            message["annotations"] = self._citations
        if self.calls and self._plan.legacy:
            message["function_call"] = self.calls[0]["function"]
        elif self.calls:
            message["tool_calls"] = self.calls
        return message

    def _tool(self, use: Mapping[str, Any]) -> None:
        if use.get("type") == "server_tool_use":
            return
        given = use.get("input")
        given = {} if given is None else given
        if use.get("name") == self._plan.answer:
            if self._answer is None:
                self._answer = unwrapped(given, self._plan)
            return
        name = carried_id(str(use.get("toolUseId") or ""), self._thinking if self._carrying and not self.calls else [])
        arguments = given if isinstance(given, str) else orjson.dumps(given).decode()
        function = {"name": self._plan.names.client(str(use.get("name") or "")), "arguments": arguments}
        self.calls.append({"id": name, "type": "function", "function": function})

    def _reason(self, reasoning: Mapping[str, Any]) -> None:
        inner = reasoning.get("reasoningText")
        if isinstance(inner, dict) and inner.get("text"):
            self._reasoning.append(str(inner["text"]))
        if block := thinking_block(reasoning):
            self._thinking.append(block)


def carries(target: Target) -> bool:
    """Shall tool-call ids carry the signed thinking, for clients that keep nothing else? The deployment says so."""
    return "thinking" in target.emulate


def carried_id(name: str, thinking: list[Json]) -> str:
    """A tool call's id with the thinking that led to it inside; the plain id without any."""
    return carry(name, {CARRIED: thinking}) if thinking else name


def unwrapped(given: Any, plan: ToolPlan) -> str:
    """The JSON text of an emulated answer."""
    inner = given.get("values", given) if plan.wrapped and isinstance(given, dict) else given
    return orjson.dumps(inner).decode()


def finish_reason(stop: str, plan: ToolPlan, *, calls: bool) -> str:
    """OpenAI's word for a stop reason; one that nobody knows is a plain stop."""
    reason = FINISH.get(stop, "stop")
    if reason in ("stop", "tool_calls") and stop in FINISH:
        # Server tools end with tool_use too, and some models end calls with end_turn.
        return ("function_call" if plan.legacy else "tool_calls") if calls else "stop"
    return reason


def read_usage(usage: Any, extra: Any) -> Usage | None:
    """Converse counts cached input beside `inputTokens`; Claude's thinking tokens come in the extra fields."""
    if not isinstance(usage, dict):
        return None
    found = {name: _count(usage.get(name)) for name in ("inputTokens", "outputTokens")}
    read, written = _count(usage.get("cacheReadInputTokens")), _count(usage.get("cacheWriteInputTokens"))
    if found["inputTokens"] is None and found["outputTokens"] is None:
        return None
    prompt = (found["inputTokens"] or 0) + (read or 0) + (written or 0)
    return Usage(prompt, found["outputTokens"], read, written, _thinking_tokens(extra))


def _thinking_tokens(extra: Any) -> int | None:
    for name in ("usage", "output_tokens_details", "thinking_tokens"):
        extra = extra.get(name) if isinstance(extra, dict) else None
    return _count(extra)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def citations(citation: Mapping[str, Any], place: int) -> list[Json]:
    """A citation of a web page as an annotation at a place of the text; other sources have no counterpart."""
    location = citation.get("location")
    web = location.get("web") if isinstance(location, dict) else None
    if not isinstance(web, dict) or not isinstance(url := web.get("url"), str):
        return []
    title = str(citation.get("title") or web.get("domain") or "")
    cited = {"url": url, "title": title, "start_index": place, "end_index": place}
    return [{"type": "url_citation", "url_citation": cited}]
