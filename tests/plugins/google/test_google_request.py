"""What a chat completion request becomes for Gemini, parameter by parameter."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.fields import missing
from gateway.hub import PARAMS
from plugins.google import PROVIDER
from plugins.google.contents import SENTINEL
from tests.plugins.google.samples import HELLO, STAMP, accept, built, chat, target

G2, G25, PRO25, G3 = "gemini-2.0-flash", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-flash-preview"
FAMILIES = (
    G2,
    G25,
    PRO25,
    G3,
    "gemini-3-pro-preview",
    "gemini-3.6-flash",
    "gemma-3-27b-it",
    "gemini-1.5-pro",
    "tuned-by-us",
)
WEATHER = {
    "type": "function",
    "function": {"name": "w", "parameters": {"type": "object", "properties": {"c": {"type": "string"}}}},
}

CONVERSATION: dict[str, Any] = {
    "max_completion_tokens": 120,
    "temperature": 1.3,
    "stop": "STOP",
    "user": "someone",
    "seed": 11,
    "parallel_tool_calls": False,
    "tool_choice": "required",
    "messages": [
        {"role": "system", "content": "Answer in a sentence"},
        {"role": "developer", "content": "Use Celsius"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "one", "type": "function", "function": {"name": "find", "arguments": '{"q":1}'}},
                {"id": "two", "type": "function", "function": {"name": "clock", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "two", "content": '{"h":9}'},
        {"role": "tool", "tool_call_id": "one", "content": "a tower"},
        {"role": "user", "content": "And?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "find",
                "description": "Find it",
                "parameters": {"type": "object", "properties": {"q": {"type": "integer"}}, "required": ["q"]},
            },
        },
        {"type": "function", "function": {"name": "clock"}},
    ],
}


def sent(model: str = G3, /, target_changes: Any = None, **values: Any) -> Any:
    assert PROVIDER.chat is not None
    return PROVIDER.chat.build_request(chat(**values), target(model, **(target_changes or {})))


def config(model: str = G3, /, **values: Any) -> dict[str, Any]:
    return dict(built(model, **values).get("generationConfig", {}))


def test_a_whole_conversation_reaches_gemini_3() -> None:
    assert built(G3, **CONVERSATION) == {
        "systemInstruction": {"parts": [{"text": "Answer in a sentence"}, {"text": "Use Celsius"}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "Where is this?"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}}],
            },
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"id": "one", "name": "find", "args": {"q": 1}}, "thoughtSignature": SENTINEL},
                    {"functionCall": {"id": "two", "name": "clock", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "one", "name": "find", "response": {"output": "a tower"}}},
                    {"functionResponse": {"id": "two", "name": "clock", "response": {"h": 9}}},
                    {"text": "And?"},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "find",
                        "description": "Find it",
                        "parametersJsonSchema": {
                            "type": "object",
                            "properties": {"q": {"type": "integer"}},
                            "required": ["q"],
                        },
                    },
                    {"name": "clock"},
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "generationConfig": {"maxOutputTokens": 120, "temperature": 1.3, "stopSequences": ["STOP"], "seed": 11},
    }
    request = sent(G3, **CONVERSATION)
    assert set(request.dropped) == {"user", "parallel_tool_calls"}


def test_gemini_2_5_gets_neither_call_ids_nor_signatures() -> None:
    turns = built(G25, **CONVERSATION)["contents"]
    assert turns[1]["parts"] == [
        {"functionCall": {"name": "find", "args": {"q": 1}}},
        {"functionCall": {"name": "clock", "args": {}}},
    ]
    assert "id" not in turns[2]["parts"][0]["functionResponse"]


def test_the_same_request_gives_the_same_bytes_and_is_not_changed() -> None:
    request = chat(**CONVERSATION)
    before = orjson.dumps(request.parsed())
    assert PROVIDER.chat is not None
    first, second = (PROVIDER.chat.build_request(request, target(G3)) for _ in range(2))
    assert first == second
    assert orjson.dumps(request.parsed()) == before


@pytest.mark.parametrize("model", FAMILIES)
def test_the_table_is_total_for_every_family(model: str) -> None:
    assert missing(PROVIDER.table(target(model)), PARAMS) == set()


@pytest.mark.parametrize("model", FAMILIES)
def test_googles_own_types_accept_a_request_with_everything(model: str) -> None:
    values: dict[str, Any] = {
        **CONVERSATION,
        "top_p": 0.9,
        "top_k": 40,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "reasoning_effort": "low",
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "service_tier": "flex",
        "logit_bias": {"1": 2},
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "google": {"labels": {"team": "a"}},
    }
    accept(built(model, **values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"max_tokens": 5}, {"maxOutputTokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"maxOutputTokens": 7}),
        ({"temperature": 3}, {"temperature": 2}),
        ({"top_p": 0.5, "top_k": 3}, {"topP": 0.5, "topK": 3}),
        ({"n": 2}, {"candidateCount": 2}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"stop": list("abcdefg")}, {"stopSequences": list("abcde")}),
        ({"seed": 2**31 + 5}, {"seed": 5}),
        ({"seed": -1}, {"seed": 2**31 - 1}),
        ({"logprobs": True, "top_logprobs": 4}, {"responseLogprobs": True, "logprobs": 4}),
        ({"logprobs": False}, {}),
        ({"modalities": ["text"]}, {}),
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        ({"temperature": None, "stop": None}, {}),
    ],
)
def test_a_parameter_is_put_where_gemini_looks_for_it(values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert config(G25, **values) == expected


MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("model", "values", "dropped"),
    [
        (G3, {"frequency_penalty": 1}, "frequency_penalty"),
        (G3, {"presence_penalty": 1}, "presence_penalty"),
        ("gemini-3.6-flash", {"temperature": 0.1}, "temperature"),
        (G25, {"stop": list("abcdef")}, "stop"),
        (G25, {"max_tokens": 5, "max_completion_tokens": 7}, "max_tokens"),
        (G25, {"top_logprobs": 4}, "top_logprobs"),
        (G25, {"seed": "x"}, "seed"),
        (G25, {"service_tier": "scale"}, "service_tier"),
        (G25, {"metadata": {"a": "b"}}, "metadata"),
        (G25, {"nobody_knows": 1}, "nobody_knows"),
        (G2, {"reasoning_effort": "high"}, "reasoning_effort"),
        (G25, {"tools": [WEATHER], "web_search_options": {}}, "web_search_options"),
        (G25, {"reasoning_effort": "low", "thinking": {"type": "enabled"}}, "thinking"),
        (G25, {"thinking": True}, "thinking"),
        (G25, {"logprobs": 5}, "logprobs"),
        (G25, {"reasoning": "high"}, "reasoning"),
        (G3, {"messages": [{"role": "user", "name": "bob", "content": "q"}]}, "messages.name"),
        (G3, {"messages": [{"role": "user", "content": [{"type": "text", "text": "q", **MARK}]}]}, "cache_control"),
        (G3, {"messages": [{"role": "system", "content": "s", **MARK}, *HELLO]}, "cache_control"),
        (G3, {"tools": [{**WEATHER, **MARK}]}, "cache_control"),
    ],
)
def test_what_is_left_out_is_named_or_refused_by_policy(model: str, values: dict[str, Any], dropped: str) -> None:
    assert dropped in sent(model, **values).dropped
    with pytest.raises(UnsupportedParameter) as caught:
        sent(model, {"unsupported": "reject"}, **values)
    assert caught.value.param == dropped


def test_penalties_reach_the_families_that_know_them() -> None:
    assert config(G25, frequency_penalty=0.5, presence_penalty=1) == {"frequencyPenalty": 0.5, "presencePenalty": 1}


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"modalities": ["text", "audio"], "audio": {"voice": "Kore", "format": "mp3"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools"),
        ({"cached_content": "cachedContents/a", "tools": [WEATHER]}, "cached_content"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x.test/a"}}]}
                ]
            },
            "messages",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}, "messages"),
    ],
)
def test_what_changes_the_shape_of_the_answer_is_refused(values: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        sent(G3, **values)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_schema_beside_tools_is_refused_before_gemini_3() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    with pytest.raises(UnsupportedParameter):
        sent(G25, tools=[WEATHER], response_format=wanted)
    assert config(G3, tools=[WEATHER], response_format=wanted) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
    }


def test_a_guided_json_is_a_response_schema() -> None:
    expected = {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}}
    assert config(G25, guided_json={"type": "object"}) == config(G25, guided_json='{"type":"object"}') == expected


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        (G3, {"reasoning_effort": "none"}, {"thinkingLevel": "MINIMAL", "includeThoughts": False}),
        (G3, {"reasoning_effort": "minimal"}, {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        (G3, {"reasoning_effort": "max"}, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3-pro-preview", {"reasoning_effort": "none"}, {"thinkingLevel": "LOW", "includeThoughts": False}),
        ("gemini-3-pro-preview", {"reasoning_effort": "medium"}, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        (
            G3,
            {"thinking": {"type": "enabled", "budget_tokens": 900}},
            {"thinkingLevel": "LOW", "includeThoughts": True},
        ),
        (G25, {"reasoning_effort": "none"}, {"thinkingBudget": 0, "includeThoughts": False}),
        (G25, {"reasoning_effort": "minimal"}, {"thinkingBudget": 1, "includeThoughts": True}),
        ("gemini-2.5-flash-lite", {"reasoning_effort": "minimal"}, {"thinkingBudget": 512, "includeThoughts": True}),
        (PRO25, {"reasoning_effort": "none"}, {"thinkingBudget": 128, "includeThoughts": False}),
        (G25, {"reasoning_effort": "low"}, {"thinkingBudget": 1024, "includeThoughts": True}),
        (G25, {"reasoning_effort": "high"}, {"thinkingBudget": 4096, "includeThoughts": True}),
        (G25, {"reasoning": {"max_tokens": 99999}}, {"thinkingBudget": 24576, "includeThoughts": True}),
        (G25, {"reasoning": {"effort": "low", "exclude": True}}, {"thinkingBudget": 1024, "includeThoughts": False}),
        (G25, {"reasoning": {"enabled": False}}, {"thinkingBudget": 0, "includeThoughts": False}),
        (G25, {"thinking": {"type": "adaptive"}}, {"thinkingBudget": -1, "includeThoughts": True}),
        (G25, {"extra_body": {"google": {"thinking_config": {"thinking_budget": 7}}}}, {"thinking_budget": 7}),
    ],
)
def test_effort_becomes_a_level_or_a_budget(model: str, values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert config(model, **values)["thinkingConfig"] == expected


def test_no_effort_is_what_a_model_without_thoughts_does_anyway() -> None:
    request = sent(G2, reasoning_effort="none")
    assert (request.dropped, b"thinking" in request.body) == ((), False)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", {"mode": "NONE"}),
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "w"}}, {"mode": "ANY", "allowedFunctionNames": ["w"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [WEATHER]}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["w"]},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [WEATHER]}},
            {"mode": "ANY", "allowedFunctionNames": ["w"]},
        ),
    ],
)
def test_a_tool_choice_becomes_a_mode(choice: Any, expected: dict[str, Any]) -> None:
    assert built(G3, tools=[WEATHER], tool_choice=choice)["toolConfig"] == {"functionCallingConfig": expected}


def test_strict_functions_are_validated() -> None:
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}  # type: ignore[dict-item]
    body = built(G3, tools=[strict])
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert b"strict" not in orjson.dumps(body)


def test_search_stands_beside_functions_only_where_both_are_served() -> None:
    body = built(G3, tools=[WEATHER], web_search_options={})
    assert body["tools"][1:] == [{"googleSearch": {}}]
    assert body["toolConfig"]["includeServerSideToolInvocations"] is True
    assert built(G25, web_search_options={})["tools"] == [{"googleSearch": {}}]
    vertex = {"options": {"project": "acme-1"}}
    assert "web_search_options" in sent(G3, vertex, tools=[WEATHER], web_search_options={}).dropped


def test_googles_own_tools_pass_in_either_spelling() -> None:
    tools = [{"googleSearch": {}}, {"code_execution": {}}, {"type": "url_context", "url_context": {}}]
    assert built(G25, tools=tools)["tools"] == [{"googleSearch": {}}, {"codeExecution": {}}, {"urlContext": {}}]


def test_functions_of_the_old_kind_are_tools() -> None:
    body = built(G3, functions=[WEATHER["function"]], function_call={"name": "w"})
    assert body["tools"][0]["functionDeclarations"][0]["name"] == "w"
    assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == ["w"]
    assert sent(G3, functions=[WEATHER["function"]], function_call="auto").translated == ("functions", "function_call")


def test_one_stop_is_told_to_have_become_a_list() -> None:
    assert sent(G25, stop="END").translated == ("stop",)
    assert sent(G25, stop=["END"]).translated == ()


def test_the_clients_own_words_for_google_are_merged_last() -> None:
    own = {"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}, "labels": {"a": "b"}}
    body = built(G25, temperature=1, google=own)
    assert body["generationConfig"] == {"temperature": 1, "mediaResolution": "MEDIA_RESOLUTION_LOW"}
    assert body["labels"] == {"a": "b"}


def test_speech_is_asked_of_models_that_speak() -> None:
    audio = {"voice": "Kore", "format": "pcm16"}
    assert config("gemini-2.5-flash-preview-tts", modalities=["text", "audio"], audio=audio) == {
        "responseModalities": ["AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    }


def test_names_that_gemini_refuses_come_back_as_the_client_wrote_them() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("2nd", "_2nd", "a b")]
    declared = [one["name"] for one in built(G3, tools=tools)["tools"][0]["functionDeclarations"]]
    assert len(set(declared)) == 3
    assert declared[1] == "_2nd"
    answer = {"candidates": [{"content": {"parts": [{"functionCall": {"name": declared[0]}}]}, "finishReason": "STOP"}]}
    assert PROVIDER.chat is not None
    completion = PROVIDER.chat.read_response(orjson.dumps(answer), chat(tools=tools), target(), STAMP)
    assert completion["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "2nd", "arguments": "{}"}


@pytest.mark.parametrize(
    "values", [{"messages": []}, {"messages": "x"}, {"messages": [{"role": "alien"}]}, {"tools": [1]}]
)
def test_a_request_that_is_none_is_the_clients_fault(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        sent(G3, **values)
