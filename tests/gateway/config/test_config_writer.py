"""The resolved configuration is written in the file's own grammar, loads to the same again, and tells no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from gateway.cli.yamltext import document, flow, text
from gateway.config.document import parse, plain
from gateway.config.findings import Findings
from gateway.config.loader import Loaded, load
from gateway.config.plugins import Registry
from gateway.config.reader import kind_of
from gateway.config.types import Config
from gateway.config.units import UNITS
from gateway.config.writer import AS_WRITTEN, MASK, values

ROOT = Path(__file__).resolve().parents[3]
WHOLE = """
version: 1
server: {listen: "[::1]:4000", admin: "unix:/run/admin.sock", max_body: 1.5MiB, drain: 0s, unix_mode: "0600"}
providers:
  openai: {type: openai, api_key: {env: ONE}, headers: {x-team: search}, base_url: {env: ADDRESS}}
  azure: {type: azure, base_url: "https://a.test", entra: {tenant_id: t, client_id: c, client_secret: {env: TWO}}}
  aws: {type: bedrock, region: eu-west-1, access_key_id: {env: ONE}, secret_access_key: {env: TWO}}
deployments:
  "gpt on": {provider: openai, model: gpt-4o, limits: {tpm: 450k}, retry: {attempts: 2, budget: 12.5%}}
  big: {provider: azure, model: x, timeouts: {connect: 250ms}, breaker: {hard: true}, max_event: 1KiB}
  openai/*: {provider: openai, model: "*"}
adapters:
  cold: {deployment: big, set: {temperature: 0, stop: ["\\n"]}, default: {max_tokens: 5}}
routings:
  r:
    strategy: weighted
    targets: [{use: cold, weight: 2.5, when: {has_images: false, max_input: 100k}}, big]
    sticky: user
    hedge: {after: p95, budget: 5%}
    mirror: {to: big, share: 1%}
    retry: {on: [connect, 429]}
retry: {timeouts: {idle: 90s}}
keys:
  team: {hash: "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", expires: 2127-01-31}
telemetry: {access_log: null}
"""
ENVIRON = {"ONE": "hunter2-one", "TWO": "hunter2-two", "ADDRESS": "https://upstream.test/v1"}


def loaded(content: str) -> Loaded:
    found = load("gateway.yaml", ENVIRON, Registry(), text=content)
    assert [str(each) for each in found.findings if each.level == "error"] == []
    return found


def written(content: str) -> dict[str, Any]:
    config = loaded(content).config
    assert config is not None
    return values(config)


@pytest.mark.parametrize("content", [WHOLE, (ROOT / "gateway.yaml").read_text()], ids=["whole", "shipped"])
def test_what_is_written_loads_to_the_same(content: str) -> None:
    once = written(content)
    again = document(once)
    assert written(again) == once
    first, second = loaded(content).config, loaded(again).config
    assert first is not None
    assert second is not None
    assert (first.routings, first.adapters, first.retry, first.server, first.keys, first.telemetry) == (
        *(second.routings, second.adapters, second.retry, second.server, second.keys, second.telemetry),
    )
    assert first.deployments == second.deployments


def test_no_secret_is_written() -> None:
    shown = written(WHOLE)
    assert "hunter2" not in str(shown)
    assert shown["providers"]["openai"]["api_key"] == MASK
    assert shown["providers"]["openai"]["headers"] == {"x-team": MASK}
    assert shown["providers"]["azure"]["entra"] == {"tenant_id": "t", "client_id": "c", "client_secret": MASK}
    assert shown["providers"]["aws"]["secret_access_key"] == MASK


def test_options_that_only_look_like_secrets_are_masked_too() -> None:
    # A plugin's own option may be a secret that nobody told us of: `{env: X}` there is plain text once it is read.
    content = WHOLE.replace("region: eu-west-1", "region: eu-west-1, session_token: {env: ONE}")
    assert written(content)["providers"]["aws"]["session_token"] == MASK


def test_defaults_are_filled_in_and_units_written_out() -> None:
    shown = written(WHOLE)
    assert shown["server"]["max_body"] == "1536KiB"
    assert shown["server"]["body_timeout"] == "30s"
    assert shown["deployments"]["gpt on"]["retry"]["budget"] == "12.5%"
    assert shown["deployments"]["gpt on"]["timeouts"] == {
        "connect": "5s",
        "first_byte": None,
        "idle": "90s",
        "total": "10m",
    }
    assert shown["routings"]["r"]["hedge"] == {"after": "p95", "budget": "5%"}
    assert shown["providers"]["aws"]["base_url"] == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    assert shown["keys"]["team"]["expires"] == "2127-01-31T00:00:00Z"


def units_of(kind: Any, seen: set[type]) -> Iterator[tuple[str, Any]]:
    """The units that types have, with the types of their values."""
    if isinstance(kind, inspect.StructType) and kind.cls not in seen:
        seen.add(kind.cls)
        for field in kind.fields:
            yield from units_of(field.type, seen)
    if isinstance(kind, inspect.Metadata) and (unit := (kind.extra or {}).get("unit")):
        yield unit, kind.type
    for name in ("type", "value_type", "item_type"):
        if (inner := getattr(kind, name, None)) is not None:
            yield from units_of(inner, seen)
    for each in getattr(kind, "types", ()):
        yield from units_of(each, seen)


def test_every_unit_whose_value_is_no_text_has_a_way_to_be_written() -> None:
    found = list(units_of(kind_of(Config), set()))
    assert {unit for unit, _ in found} == set(UNITS)
    lacking = {unit for unit, kind in found if not isinstance(kind, inspect.StrType)} - set(AS_WRITTEN)
    assert lacking == set(), "give it one in gateway/config/writer.py"


@given(st.integers(1, 10**9).map(lambda value: value / 1000) | st.integers(1, 10**6).map(float))
def test_a_duration_is_read_as_it_was_written(value: float) -> None:
    assert UNITS["duration"].parse(AS_WRITTEN["duration"](value)) == pytest.approx(value, abs=1e-6)


@given(st.integers(1, 10**9))
def test_sizes_and_counts_are_read_as_they_were_written(value: int) -> None:
    for unit in ("size", "count"):
        if value < 10**9:
            assert UNITS[unit].parse(str(AS_WRITTEN[unit](value))) == value


@given(st.integers(0, 1000))
def test_a_share_is_read_as_it_was_written(tenths: int) -> None:
    assert UNITS["percent"].parse(AS_WRITTEN["percent"](tenths / 1000)) == pytest.approx(tenths / 1000)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**15), 10**15), st.floats(-1e9, 1e9), st.text())
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), TREES, max_size=4))
def test_any_value_is_read_as_it_was_written_by_us_and_by_others(tree: dict[str, Any]) -> None:
    shown = document(tree) if tree else "{}\n"
    found = Findings()
    node = parse(shown.encode("utf-8", "surrogatepass"), "x", found)
    assert [str(each) for each in found.listed(strict=False)] == []
    assert node is not None
    assert plain(node) == tree
    assert yaml.safe_load(shown) == tree


@pytest.mark.parametrize(
    "word", ["yes", "no", "on", "y", "~", "null", "010", "0x1f", "1:20", "1e3", ".5", "-", "", "#a"]
)
def test_words_that_some_reader_takes_for_something_else_are_quoted(word: str) -> None:
    assert text(word) == f'"{word}"'


@pytest.mark.parametrize("word", ["gpt-4o", "openai/*", "30s", "meta-llama/L", "eu.anthropic.claude-v1:0"])
def test_plain_words_stand_as_they_are(word: str) -> None:
    assert text(word) == word
    assert flow({word: [word]}) == f"{{{word}: [{word}]}}"


def test_comments_stay_comments() -> None:
    shown = document({"a": {"b": 1}}, {"": ["one\ntwo: 3"], "a.b": ["x " * 100]})
    assert yaml.safe_load(shown) == {"a": {"b": 1}}
    assert max(map(len, shown.splitlines())) <= 120
