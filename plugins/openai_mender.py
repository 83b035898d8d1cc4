"""Repairs for OpenAI-like answers whose quirks break an official SDK; a sound answer stays the same object."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from gateway.contract import ChatRequest, Target
from gateway.hub import CHUNK, COMPLETION, FINISH_REASONS, Json
from plugins.openai_logprobs import mend_logprobs

# Without any of these a chunk is content alone, and sound. Content cannot hold them: its quotes are escaped.
_MARKS = (
    *(
        b'"tool_calls":[',
        b'"tool_calls": [',
        b'"role":"',
        b'"role": "',
        b'finish_reason":"',
        b'finish_reason": "',
        b'"usage":{',
        b'"usage": {',
    ),
    *(b'"reasoning":"', b'"reasoning": "', b'"token_logprobs"', b'"logprobs":-', b'"logprobs": -', b'"logprobs":0'),
)
_BODY_MARKS = (b'"tool_calls"', b'"reasoning"', b'"token_logprobs"', b'"logprobs":-', b'"logprobs":0')
_SOUND_ENDS = tuple(f'"finish_reason":{space}"{reason}"'.encode() for space in ("", " ") for reason in FINISH_REASONS)
_ROLE = b'"role":"assistant",'
_NO_CALLS = b',"tool_calls":null'
_MOST_CHOICES = 128  # OpenAI's own limit; a provider's number must not decide how much is made up
_FINISH = {"eos": "stop", "tool_call": "tool_calls"}


class _Call:
    """One tool call of a stream: what the client already has of it."""

    __slots__ = ("arguments", "id", "name", "slot", "told")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.id = ""
        self.name = ""
        self.arguments = ""
        self.told = False


class _Choice:
    """What a stream has said so far in one choice."""

    __slots__ = ("by_id", "by_index", "calls", "finished", "vague")

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.by_index: dict[int, _Call] = {}
        self.by_id: dict[str, _Call] = {}
        self.finished = False
        self.vague = False  # it ended with an empty finish_reason


class ChunkMender:
    """Gives role, finish reason and a tool call's id and name once, and every chunk the shape that SDKs expect."""

    __slots__ = ("_billed", "_choices", "_expected", "_filtered", "_identity", "_usage", "_wants_usage")

    def __init__(self, chat: ChatRequest, target: Target) -> None:
        n = chat.get("n")
        self._expected = n if isinstance(n, int) and n > 0 else 1
        self._wants_usage = chat.wants_usage
        self._billed = False
        self._choices: dict[int, _Choice] = {}
        self._identity: Json = {}
        self._filtered: Any = None
        self._usage: Any = None

    def chunk(self, payload: bytes) -> bytes | None:
        """The payload of one event: the same object when it is sound, a mended one, or None to leave it out."""
        begun = len(self._choices) >= self._expected and not self._billed
        if begun and payload.find(b'"delta"') >= 0 and payload.find(b'"chat.completion.chunk"') >= 0:
            if self._expected == 1 and payload.find(_ROLE) >= 0:
                # Together repeats the role on every delta: taken out without parsing, 1 µs instead of 6.
                payload = payload.replace(_ROLE, b"").replace(_NO_CALLS, b"")
            for mark in _MARKS:
                if payload.find(mark) >= 0:
                    break
            else:
                return payload
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return payload
        if not isinstance(chunk, dict) or not isinstance(chunk.get("choices"), list):
            return payload
        mended = self._mend(chunk)
        return None if mended is None else _changed(payload, chunk, mended)

    def body(self, body: bytes) -> bytes:
        """A whole JSON answer: the same object when it is sound, else a mended one."""
        ends = sum(body.count(end) for end in _SOUND_ENDS)
        if (
            b'"message"' in body
            and ends == body.count(b'"finish_reason"') > 0
            and not any(m in body for m in _BODY_MARKS)
        ):
            return body
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            return body
        if not isinstance(answer, dict) or not isinstance(choices := answer.get("choices"), list) or "error" in answer:
            return body
        mended = {**answer, "choices": [_whole(choice, str(answer.get("id"))) for choice in choices]}
        if not answer.get("object"):
            mended["object"] = COMPLETION
        return _changed(body, answer, mended)

    def finish(self) -> list[bytes]:
        """What is still owed before the end: a finish reason that was left empty, and usage in a chunk of its own."""
        owed = self._ends()
        if self._usage is not None:
            owed.append({"choices": [], "usage": self._usage})
        self._usage = None
        written = [_dumps({**self._identity, "object": CHUNK, **chunk}) for chunk in owed]
        return [payload for payload in written if payload]

    def _ends(self) -> list[Json]:
        ends: list[Json] = []
        for index, choice in self._choices.items():
            if choice.vague and not choice.finished:
                choice.finished = True
                reason = "tool_calls" if choice.calls else "stop"
                ends.append({"choices": [{"index": index, "delta": {}, "finish_reason": reason}]})
        return ends

    def _mend(self, chunk: Json) -> Json | None:
        choices = [choice for choice in chunk["choices"] if isinstance(choice, dict)]
        if not choices:
            return self._without_choices(dict(chunk))
        stray = self._billed or not (self._identity or chunk.get("id") or chunk.get("object"))
        if stray and not any(choice.get("delta") for choice in choices):
            return None  # Azure's asynchronous verdicts: one before the first chunk or after usage would stand for it
        chunk = self._identified(chunk)
        kept: list[Json] = []
        for choice in choices:
            kept += self._choice(choice, str(chunk.get("id")))
        if self._filtered is not None:
            chunk = {**chunk, "prompt_filter_results": self._filtered}
            self._filtered = None
        chunk = self._move_usage({**chunk, "choices": kept})
        return None if _is_empty(chunk) else chunk

    def _without_choices(self, chunk: Json) -> Json | None:
        """Usage comes alone; Azure's verdict on the prompt comes before all else and waits for the first real chunk."""
        if not chunk.get("usage"):
            self._filtered = chunk.get("prompt_filter_results", self._filtered)
            return None
        self._usage = None
        self._billed = True
        ends = [choice for end in self._ends() for choice in end["choices"]]
        return {**self._identified(chunk), "choices": ends}

    def _identified(self, chunk: Json) -> Json:
        """The chunk as one of this stream: what is missing of id, time, model and object is filled in."""
        if not self._identity:
            self._identity = {name: chunk[name] for name in ("id", "created", "model") if chunk.get(name)}
        missing = {name: value for name, value in self._identity.items() if not chunk.get(name)}
        return {**chunk, **missing, "object": CHUNK}

    def _move_usage(self, chunk: Json) -> Json:
        """Usage beside content goes to a last chunk of its own, where a client that asked looks for it."""
        if self._wants_usage and chunk["choices"] and chunk.get("usage"):
            self._usage = chunk["usage"]
            return {**chunk, "usage": None}
        return chunk

    def _choice(self, choice: Json, seed: str) -> list[Json]:
        """The mended choice; before it, those that should have begun earlier, as SDKs want them in order."""
        index = _whole_number(choice.get("index")) or 0
        openers = [_opener(missing) for missing in range(min(index, _MOST_CHOICES)) if missing not in self._choices]
        for opener in openers:
            self._choices[opener["index"]] = _Choice()
        first = index not in self._choices
        state = self._choices.setdefault(index, _Choice())
        delta = choice.get("delta")
        delta = self._delta(delta if isinstance(delta, dict) else {}, state, f"{seed}:{index}")
        role = delta.pop("role", None)
        if first:
            delta = {"role": role or "assistant", **delta}
        mended = {**choice, "index": index, "delta": delta}
        self._end(mended, state)
        mend_logprobs(mended, delta.get("content"))
        return [*openers, mended]

    def _end(self, choice: Json, state: _Choice) -> None:
        reason = choice.get("finish_reason")
        if reason is None:
            return
        if state.finished or reason == "":
            choice["finish_reason"] = None
            state.vague = state.vague or reason == ""
            return
        state.finished = True
        _settle(choice, reason)
        if any(not call.told for call in state.calls):
            calls = [_tell(call) for call in state.calls if not call.told]
            choice["delta"] = {**choice["delta"], "tool_calls": [*choice["delta"].get("tool_calls", ()), *calls]}

    def _delta(self, delta: Json, state: _Choice, seed: str) -> Json:
        delta = _renamed_reasoning(delta)
        if "tool_calls" not in delta:
            return delta
        calls = delta.pop("tool_calls")
        calls = calls if isinstance(calls, list) else []
        entries = [self._call(call, state, seed) for call in calls if isinstance(call, dict)]
        if kept := [entry for entry in entries if entry]:
            delta["tool_calls"] = kept
        return delta

    def _call(self, entry: Json, state: _Choice, seed: str) -> Json | None:
        """The delta of one tool call, with id and name once and under its index; None while its name is not known."""
        if "custom" in entry:
            return entry
        call = _find(entry, state)
        function = entry.get("function")
        function = function if isinstance(function, dict) else {}
        arguments = _arguments(function.get("arguments"))
        if call.told:
            return _more(entry, function, call, arguments)
        call.id = call.id or _string(entry.get("id"))
        call.name = call.name or _string(function.get("name"))
        call.arguments += arguments
        if not call.name:
            return None
        call.id = call.id or _made_id(seed, call.slot)
        told = _tell(call)
        return {**entry, **told, "function": {**function, **told["function"]}}


def _find(entry: Json, state: _Choice) -> _Call:
    """The call that an entry belongs to: by its id if that is known, else by its index, else the latest."""
    id_ = _string(entry.get("id"))
    function = entry.get("function")
    named = isinstance(function, dict) and bool(function.get("name"))
    index = _whole_number(entry.get("index"))
    call = state.by_id.get(id_)
    if call is None and index is not None:
        call = state.by_index.get(index)
        if call is not None and id_ and named and call.id and call.name:
            call = None  # another whole call under an index that is taken
    elif call is None and not id_ and not named and state.calls:
        call = state.calls[-1]
    if call is None:
        call = _Call(len(state.calls))
        state.calls.append(call)
    if index is not None:
        state.by_index[index] = call
    if id_:
        state.by_id[id_] = call
    return call


def _whole_number(index: Any) -> int | None:
    """An index as SDKs take it; None for what is none (Together sends -1, its schema allows floats)."""
    usable = isinstance(index, int | float) and not isinstance(index, bool) and index >= 0
    return int(index) if usable else None


def _more(entry: Json, function: Json, call: _Call, arguments: str) -> Json:
    """A later delta of a call: no id, type or name again, as they would be joined to the first ones."""
    kept = {name: value for name, value in function.items() if name != "name"}
    if "arguments" in kept:
        kept["arguments"] = arguments
    rest = {name: value for name, value in entry.items() if name not in ("index", "id", "type", "function")}
    return {"index": call.slot, **rest, "function": kept}


def _tell(call: _Call) -> Json:
    call.told = True
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.slot, "id": call.id, "type": "function", "function": function}


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _arguments(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _dumps(value).decode()


def _made_id(seed: str, slot: int) -> str:
    return "call_" + hashlib.sha256(f"{seed}:{slot}".encode()).hexdigest()[:24]


def _opener(index: int) -> Json:
    return {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}


def _settle(choice: Json, reason: Any) -> None:
    """Put one of the known reasons in place; what the provider said stays beside it."""
    if not isinstance(reason, str) or reason not in FINISH_REASONS:
        choice["finish_reason"] = _FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
        choice["native_finish_reason"] = reason


def _renamed_reasoning(message: Json) -> Json:
    """Together says `reasoning` where the others say `reasoning_content`."""
    message = dict(message)
    if isinstance(message.get("reasoning"), str):
        thought = message.pop("reasoning")
        if not message.get("reasoning_content"):
            message["reasoning_content"] = thought
    return message


def _is_empty(chunk: Json) -> bool:
    """Nothing that a client could use is left in it."""
    return not chunk.get("usage") and all(
        set(choice) <= {"index", "delta", "finish_reason", "logprobs"}
        and not choice["delta"]
        and choice.get("finish_reason") is None
        and not choice.get("logprobs")
        for choice in chunk["choices"]
    )


def _whole(choice: Any, seed: str) -> Any:
    """One choice of a whole answer."""
    if not isinstance(choice, dict):
        return choice
    message = choice.get("message")
    message = _renamed_reasoning(message) if isinstance(message, dict) else {"role": "assistant", "content": None}
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [_whole_call(call, f"{seed}:{choice.get('index')}", n) for n, call in enumerate(calls)]
    mended = {**choice, "message": message}
    reason = choice.get("finish_reason")
    if not reason:
        mended["finish_reason"] = "tool_calls" if calls else "stop"
    else:
        _settle(mended, reason)
    mend_logprobs(mended, message.get("content"))
    return mended


def _whole_call(call: Any, seed: str, slot: int) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    function = {**function, "arguments": _arguments(arguments) if arguments is not None else "{}"}
    return {
        **call,
        "id": call.get("id") or _made_id(seed, slot),
        "type": call.get("type") or "function",
        "function": function,
    }


def _changed(text: bytes, before: Json, after: Json) -> bytes:
    """The mended text, or the same object where mending changed nothing but the order of keys."""
    new = _dumps(after)
    if not new or orjson.dumps(before, option=orjson.OPT_SORT_KEYS) == orjson.dumps(after, option=orjson.OPT_SORT_KEYS):
        return text
    return new


def _dumps(value: Any) -> bytes:
    """JSON; empty where the value is nested deeper than orjson writes."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return b""
