"""Providers that speak OpenAI's dialect: a request is edited at its top, an answer passes by unread."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gateway.auth import bearer
from gateway.contract import ChatRequest, Mender, Native, Problem, Provider, Row, Table, Target, UpstreamRequest
from gateway.errors import UnsupportedParameter
from gateway.fields import Applied, Unfit, convert, drop, forward, refuse, reject
from gateway.hub import PARAMS, Json
from plugins.openai_errors import error_reader

MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/#-]{0,199}")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# What only servers of open models know; OpenAI answers 400 to an unknown name.
_OPEN_MODELS = ("top_k", "min_p", "repetition_penalty", "ignore_eos", "mm_processor_kwargs", "chat_template_kwargs")
_CONSTRAINTS = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag")


class Edit:
    """One request on its way to one target: what changes, what goes, and what the client is told."""

    __slots__ = ("applied", "changes", "chat", "gone", "target")

    def __init__(self, chat: ChatRequest, target: Target, changes: Json) -> None:
        self.chat = chat
        self.target = target
        self.applied = Applied(target)
        self.changes = changes
        self.gone: list[str] = []

    def get(self, name: str) -> Any:
        """The value as it will be sent; None when absent, null or taken out."""
        if name in self.gone:
            return None
        return self.changes[name] if name in self.changes else self.chat.get(name)

    def remove(self, name: str) -> None:
        """Leave a parameter out without a word: leaving it out means the same."""
        self.gone.append(name)

    def drop(self, name: str, why: str = "is not supported by this model") -> None:
        """Leave a parameter out and say so."""
        self.applied.drop(name, why)
        self.gone.append(name)

    def set(self, name: str, value: Any, *, tell: str = "") -> None:
        """Send another value; `tell` is the parameter that the client will find among the translated ones."""
        self.changes[name] = value
        if tell:
            self.applied.translate(tell)

    def body(self) -> bytes:
        """The finished body; names that were taken out stay out unless another parameter became them."""
        return self.chat.edited(self.changes, [name for name in self.gone if name not in self.changes])


Step = Callable[[Edit], None]
Change = Callable[[Edit, Json], Json]


@dataclass(frozen=True, slots=True)
class Rules:
    """How one model family's requests are edited: a decision per parameter, functions where that is not enough.

    `steps` go by parameter name and take precedence over the row; `always` run for every request. Messages are decoded
    for `message`, which changes one of them, only where a hint stands in the body.
    """

    table: Table
    steps: Mapping[str, Step] = field(default_factory=dict)
    always: Sequence[Step] = ()
    message: Change | None = None
    hints: tuple[bytes, ...] = ()
    touched: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rows: Mapping[str, Row], steps: Mapping[str, Step] | None = None, **more: Any) -> Rules:
        """Rules whose table has `rows` over forwarding everything; `more` are further fields."""
        table = {**dict.fromkeys(PARAMS, forward()), **rows}
        steps = steps or {}
        changing = {name for name, row in table.items() if row.decision != "forward"}
        return cls(table, steps, touched=frozenset((changing | set(steps)) - {"messages"}), **more)


def rows(decision: Row, *names: str) -> dict[str, Row]:
    """The same decision for several parameters."""
    return dict.fromkeys(names, decision)


def no_open_model_extras(note: str = "unknown to this provider") -> dict[str, Row]:
    """Rows for a provider without the parameters of open-model servers: hints go, constraints of the answer cannot."""
    return {
        **rows(drop(note), *_OPEN_MODELS, "chat_template", "reasoning", "thinking", "cache_control", "safety_settings"),
        **rows(
            reject("would constrain the answer and is unknown to this provider; use response_format"), *_CONSTRAINTS
        ),
    }


def always(target: Target) -> bool:
    """Every target."""
    return True


def never(target: Target) -> bool:
    """No target."""
    return False


def provider(
    name: str,
    rules: Callable[[Target], Rules],
    *,
    base_url: str,
    env: str,
    url: Callable[[Target], str] | None = None,
    usage_on_request: Callable[[Target], bool] = always,
    open_mender: Callable[[ChatRequest, Target], Mender] | None = None,
    models: str = "",
) -> Provider:
    """A provider that takes chat completions as they are.

    `usage_on_request` says whether a stream has usage only when `stream_options.include_usage` asks for it.
    """

    def build_request(chat: ChatRequest, target: Target) -> UpstreamRequest:
        address = (url or completions_url)(target)
        return edited(chat, target, rules(target), address, ask_usage=usage_on_request(target))

    return Provider(
        name=name,
        native={"openai.chat": Native(build_request, open_mender)},
        read_error=error_reader(name),
        authorize=bearer,
        table=lambda target: rules(target).table,
        base_url=base_url,
        check=check,
        models=models,
        env=env,
    )


def completions_url(target: Target) -> str:
    """Where chat completions are posted: below the base address, whatever prefix it has."""
    return _below(target.base_url)


@lru_cache(maxsize=1024)
def _below(base_url: str) -> str:
    return base_url.rstrip("/") + "/chat/completions"


def edited(chat: ChatRequest, target: Target, rules: Rules, url: str, *, ask_usage: bool) -> UpstreamRequest:
    """The request as this target takes it; bytes that no rule touches stay the client's."""
    touched = rules.touched.intersection(chat.names())
    mentioned = rules.message is not None and _mentioned(chat, rules.hints)
    changes: Json = {} if chat.model == target.model else {"model": target.model}
    if ask_usage and chat.stream and not chat.wants_usage:
        changes |= _usage_options(chat, target)
    if not (touched or mentioned or rules.always or target.without):
        return UpstreamRequest(url, chat.edited(changes))
    edit = Edit(chat, target, changes)
    _edit(edit, rules, touched)
    if mentioned and rules.message is not None:
        _change_messages(edit, rules.message)
    return UpstreamRequest(
        url, edit.body(), dropped=tuple(edit.applied.dropped), translated=tuple(edit.applied.translated)
    )


def _usage_options(chat: ChatRequest, target: Target) -> Json:
    options = chat.get("stream_options")
    if "stream_options" in target.without or not (options is None or isinstance(options, dict)):
        return {}
    return {"stream_options": {**(options or {}), "include_usage": True}}


def _mentioned(chat: ChatRequest, hints: tuple[bytes, ...]) -> bool:
    """Does a hint stand anywhere in the body? A scan of the bytes is far cheaper than decoding the messages."""
    raw = chat.edited({})
    return any(hint in raw for hint in hints)


def _change_messages(edit: Edit, change: Change) -> None:
    messages = edit.get("messages")
    if isinstance(messages, list):
        changed = [change(edit, message) if isinstance(message, dict) else message for message in messages]
        if changed != messages:
            edit.changes["messages"] = changed


def _edit(edit: Edit, rules: Rules, touched: frozenset[str]) -> None:
    names = edit.chat.names() if touched or edit.target.without else ()
    for name in names:
        row = rules.table.get(name)
        if name in edit.target.without or (row is not None and row.to in edit.target.without):
            edit.drop(name)
        elif name not in touched:
            continue
        elif edit.chat.get(name) is None:
            if row is None or row.decision != "forward":
                edit.remove(name)
        elif name in rules.steps:
            rules.steps[name](edit)
        else:
            _apply_row(edit, name, rules.table[name])
    for step in rules.always:
        step(edit)


def _apply_row(edit: Edit, name: str, row: Row) -> None:
    value = edit.chat.get(name)
    if row.decision == "reject":
        refuse(name, value, row)
        edit.remove(name)
    elif row.decision == "drop":
        edit.drop(name, row.note)
    elif row.decision == "rename":
        edit.remove(name)
        edit.set(row.to, value)
    elif row.convert is not None:
        _convert(edit, name, value, row)


def _convert(edit: Edit, name: str, value: Any, row: Row) -> None:
    try:
        native = row.convert(value) if row.convert else value
    except Unfit as unfit:
        edit.drop(name, str(unfit) or "has a value that this provider cannot take")
        return
    if row.to != name:
        edit.remove(name)
    if native != value or row.to != name:
        edit.set(row.to, native, tell=name)


# Steps that several providers share.


def one_limit(to: str = "") -> dict[str, Step]:
    """Send one token limit only, under the name `to` if it is given; max_completion_tokens wins over max_tokens."""

    def step(edit: Edit) -> None:
        limit, old = edit.get("max_completion_tokens"), edit.get("max_tokens")
        if limit is not None and old is not None:
            if limit != old:
                edit.applied.drop("max_tokens", "cannot stand beside 'max_completion_tokens'")
            edit.remove("max_tokens")
        _rename(edit, "max_completion_tokens" if limit is not None else "max_tokens", to)

    return {"max_tokens": step, "max_completion_tokens": step}


def _rename(edit: Edit, name: str, to: str) -> None:
    value = edit.get(name)
    if to and name != to and value is not None:
        edit.remove(name)
        edit.changes[to] = value


def efforts(known: Sequence[str]) -> Row:
    """A row for reasoning_effort where only some levels exist, lowest first: the nearest lower one, else the lowest."""
    if not known:
        return drop("this model takes no reasoning_effort")

    def nearest(value: Any) -> Any:
        if value in known or not isinstance(value, str) or value not in EFFORTS:
            return value
        wanted = EFFORTS.index(value)
        return max((level for level in known if EFFORTS.index(level) <= wanted), key=EFFORTS.index, default=known[0])

    return convert(
        "reasoning_effort",
        nearest,
        f"one of {', '.join(known)}; others become the nearest lower level, else the lowest",
    )


def clamp_top_logprobs(highest: int) -> Row:
    """A row for top_logprobs where the provider counts less far."""

    def clamped(value: Any) -> Any:
        return highest if isinstance(value, int) and value > highest else value

    return convert("top_logprobs", clamped, f"at most {highest}")


def only_with_tools(name: str) -> Step:
    """Drop a parameter about tools where there are none."""

    def step(edit: Edit) -> None:
        if not edit.get("tools"):
            edit.drop(name, "needs tools")

    return step


def developer_as_system(edit: Edit, message: Json) -> Json:
    """The same message from `system`, for providers that know no `developer`."""
    if message.get("role") != "developer":
        return message
    edit.applied.translate("messages")
    return {**message, "role": "system"}


def without_cache_control(edit: Edit, message: Json) -> Json:
    """The same message without Anthropic's cache marks, which strict providers refuse; named as dropped."""
    content = message.get("content")
    parts: list[Any] = content if isinstance(content, list) else []
    marked = any(isinstance(part, dict) and "cache_control" in part for part in parts)
    if not marked and "cache_control" not in message:
        return message
    edit.applied.drop("cache_control", "is unknown to this provider")
    plain = without(message, "cache_control")
    if marked:
        plain["content"] = [without(part, "cache_control") if isinstance(part, dict) else part for part in parts]
    return plain


def refuse_parts(*kinds: str) -> Change:
    """Refuse content that the provider cannot read: leaving it out would change what is asked."""

    def change(edit: Edit, message: Json) -> Json:
        content = message.get("content")
        parts: list[Any] = content if isinstance(content, list) else []
        for part in parts:
            if isinstance(part, dict) and part.get("type") in kinds:
                raise UnsupportedParameter(
                    "messages", f"holds '{part['type']}' content, which this provider cannot read"
                )
        return message

    return change


def function_tools(*, strict: bool) -> Step:
    """Check that tools are functions; take out cache marks and, where it is unknown, `strict`."""

    def step(edit: Edit) -> None:
        tools = edit.chat.get("tools")
        if not isinstance(tools, list):
            return
        for tool in tools:
            if isinstance(tool, dict) and tool.get("type", "function") != "function":
                kind = str(tool["type"])[:40]
                raise UnsupportedParameter("tools", f"holds a '{kind}' tool; this provider has function tools only")
        changed = [_plain_tool(edit, tool, strict=strict) for tool in tools]
        if changed != tools:
            edit.set("tools", changed)

    return step


def _plain_tool(edit: Edit, tool: Any, *, strict: bool) -> Any:
    if not isinstance(tool, dict) or not isinstance(function := tool.get("function"), dict):
        return tool
    if "cache_control" in tool or "cache_control" in function:
        edit.applied.drop("cache_control", "is unknown to this provider")
    if "strict" in function and not strict:
        if function["strict"]:
            edit.applied.drop("tools.function.strict", "is not supported by this provider")
        function = without(function, "strict")
    return {**without(tool, "cache_control"), "function": without(function, "cache_control")}


def without(value: Mapping[str, Any], name: str) -> Json:
    """A copy without one key."""
    return {key: item for key, item in value.items() if key != name}


def check(options: Mapping[str, Any], model: str) -> Sequence[Problem]:
    """What is wrong with a deployment's model: `*` stands for any."""
    if model in ("", "*") or sound_model(model):
        return ()
    return (Problem("model", f"'{model[:80]}' is no model name"),)


def sound_model(model: str) -> bool:
    """May this name, which a client may have chosen, go to a provider?"""
    return bool(MODEL.fullmatch(model)) and not any(segment in (".", "..") for segment in model.split("/"))
