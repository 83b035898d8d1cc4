"""The JSON Schema and the checker say the same of a file's structure."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from config_samples import BASE, PROVIDERS
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.document import parse, plain
from gateway.config.findings import Finding, Findings
from gateway.config.plugins import Registry
from gateway.config.reader import Reader, bases, kind_of
from gateway.config.resolve import Resolver
from gateway.config.schema import schema
from gateway.config.types import Config, Retry

VALIDATOR = jsonschema.Draft202012Validator(schema())

# Every option of the file once. What a schema cannot see (does the file exist, is the variable set) is right here.
TEXT = f"""\
version: 1
include: [conf.d/*.yaml]
server:
  listen: 127.0.0.1:4000
  admin: "[::1]:4001"
  demo: fd:demo
  max_body: 32MiB
  max_buffered: 1GiB
  max_connections: 2k
  header_timeout: 10s
  body_timeout: 1.5m
  write_timeout: 60s
  keepalive: 75s
  drain: 0s
  workers: 2
  insecure: true
  unix_mode: "0660"
  unix_owner: root
  unix_group: "0"
  cors: ["https://app.example"]
  tls: {{cert: {{file: "{__file__}"}}, key: "{__file__}", client_ca: null}}
providers:
  a:
    {{type: azure, base_url: "https://h", api_key: {{env: K}}, headers: {{x: y}}, ca_file: "{__file__}", proxy: "http://p",
     fetch_images: false, resource: r}}
  b: {{type: bedrock, region: eu-central-1, secret_access_key: {{env: K}}, access_key_id: AK}}
deployments:
  d:
    provider: a
    model: m
    base_model: gpt-4o
    unsupported_params: reject
    emulate: [n]
    echo_model: requested
    capabilities: {{tools: false}}
    timeouts: {{connect: 3s, first_byte: null, idle: 1h, total: 0s}}
    breaker: {{failures: 3, window: 1m, open: 500ms, hard: true}}
    queue: {{length: 0, wait: 2s}}
    retry: {{attempts: 2, backoff: 1s, timeouts: {{idle: 9s}}}}
    limits: {{tpm: 450k, rpm: 600}}
    max_event: 1MiB
    max_response: 1GiB
    price: {{input: 2.5, output: 10, cached: 1, cache_written: null, currency: EUR}}
adapters:
  a1: {{deployment: d, model: lora, set: {{temperature: 0}}, default: {{stop: [a]}}}}
routings:
  r:
    strategy: weighted
    targets:
      - d
      - use: d
        weight: 1.5
        when: {{stream: true, has_images: true, has_tools: false, min_input: 8k, max_input: 9k}}
        limits: {{parallel: 5}}
    fallback: [d]
    sticky: user
    hedge: {{after: p95, budget: 5%}}
    mirror: {{to: d, share: 10%}}
    retry: {{on: [connect, 429, 5xx], budget: 20%}}
retry: {{attempts: 3, on: [timeout], unsafe: false, stale: true, budget: 0.5%}}
keys:
  k:
    hash: sha256:{"0a" * 32}
    models: [d, r]
    expires: 2999-01-01
    limits: {{rpm: 600, tpm: 200k, parallel: 50, budget: 20 USD/day}}
state: {{store: redis, url: {{env: K}}, prefix: gw, timeout: 50ms, on_error: local_share, file: s.sqlite}}
telemetry:
  access_log: {{format: text, to: stderr}}
  otlp: {{endpoint: "http://o", sample: 1%, content: false}}
"""
TREE = parse(TEXT.encode(), "g.yaml", Findings())
WHOLE: dict[str, Any] = plain(TREE) if TREE else {}

# Nothing here names a file or a variable that is missing, or a date or host that only looks right.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 1.5, 2.0, 429, 10**9, "", " ", "x", "d", "1", "true", "null", "on"),
    *("30s", "0s", "-1s", "1.5m", "5", "32MiB", "0B", "450k", "2M", "20%", "101%", "20 USD/day", "2030-01-31"),
    *(
        "127.0.0.1:80",
        "127.0.0.1:65536",
        "unix:/x",
        "fd:x",
        "weighted",
        "p95",
        "header:x-a",
        "prefix",
        "json",
        "reject",
        "5xx",
        "reset",
        "EUR",
    ),
    *("sha256:" + "0" * 64, "${K}", "a\tb", [], {}, ["d"], ["connect"], [1], [None], [[]], {"env": "K"}),
    *({"env": "K", "file": "x"}, {"env": "0"}, {"env": 1}, {"use": "d"}, {"vault": "x"}, {"a": 1}, {"x": "y"}),
]
KEYS = ["model", "use", "timeouts", "conect", "x", "Version", "limits", "open", "rpm", "a b"]


class Anything(dict[str, str]):
    """An environment in which every variable is set."""

    def __missing__(self, name: str) -> str:
        return "v"

    def __contains__(self, name: object) -> bool:
        return True


Path_ = tuple[str | int, ...]


FILES = ("file", "ca_file", "cert", "key", "client_ca")


def places(value: Any, path: Path_ = ()) -> list[Path_]:
    """Every path into the document, except those whose value names a file."""
    found = [path] if path else []
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key not in FILES:
            found += places(child, (*path, key))
    return found


def parent_of(document: Any, path: Path_) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def mutated(draw: Any, document: Any) -> Any:
    path = draw(st.sampled_from(places(document)))
    parent, key = parent_of(document, path), path[-1]
    how = draw(st.sampled_from(("swap", "swap", "remove", "wrap", "rename", "add")))
    if how == "swap":
        parent[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    elif how == "remove":
        del parent[key]
    elif how == "wrap":
        parent[key] = [parent[key]]
    elif how == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from(KEYS))] = parent.pop(key)
    elif isinstance(parent, dict):
        parent[draw(st.sampled_from(KEYS))] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    return document


@st.composite
def files(draw: Any) -> Any:
    document = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(1, 3))):
        document = mutated(draw, document)
    return document


def findings(document: Any) -> list[Finding]:
    """What the checker says of structure and scalars; names and addresses are not looked at."""
    found = Findings()
    node = parse(json.dumps(document).encode(), "g.yaml", found)
    assert node is not None
    Reader(found, Resolver(Anything(), Path())).read(kind_of(Config), node, "", bases(Retry()))
    return found.listed(False)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator.check_schema(schema(PROVIDERS))


def test_a_file_with_every_option_is_good_for_both() -> None:
    assert list(VALIDATOR.iter_errors(WHOLE)) == []
    assert findings(WHOLE) == []


def test_that_file_has_every_option_of_the_types() -> None:
    used = {key for path in places(WHOLE) for key in path if isinstance(key, str)} | set(FILES)
    for name, definition in schema()["$defs"].items():
        assert set(definition["properties"]) - used - {"credentials", "session_token", "client_secret"} == set(), name


@given(files())
@settings(max_examples=400, deadline=None)
def test_schema_and_checker_take_and_refuse_the_same_files(document: Any) -> None:
    errors = [f"{error.json_path}: {error.message}"[:200] for error in VALIDATOR.iter_errors(document)]
    told = [str(finding) for finding in findings(document)]
    assert bool(errors) == bool(told), (errors, told)


PLACES = [path for path in places(WHOLE) if len(path) > 1]


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_they_agree_on_every_value_in_every_place(path: Path_) -> None:
    document = {path[0]: copy.deepcopy(WHOLE[path[0]])}
    for value in VALUES:
        parent_of(document, path)[path[-1]] = value
        assert VALIDATOR.is_valid(document) == (findings(document) == []), (value, findings(document))


def test_with_the_providers_the_schema_knows_each_types_options() -> None:
    known = jsonschema.Draft202012Validator(schema(PROVIDERS))
    good = yaml.safe_load(BASE)
    assert known.is_valid(good)
    for wrong in ({"type": "opena"}, {"type": "openai", "region": "r"}, {"type": "azure", "resorce": "r"}):
        assert not known.is_valid({**good, "providers": {"p": wrong}})
        assert VALIDATOR.is_valid({**good, "providers": {"p": wrong}})
    assert known.is_valid({**good, "providers": {"p": {"type": "azure", "resource": "r", "api_key": {"env": "K"}}}})
    jsonschema.Draft202012Validator.check_schema(schema(Registry()))


def test_the_example_of_the_specification_is_valid(shared: Path) -> None:
    text = (shared / "product.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    document = yaml.load(text.replace("  on: [", "  'on': ["), Loader=yaml.SafeLoader)
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []
    found = Findings()
    node = parse(text.encode(), "product.md", found)
    assert node
    Reader(found, Resolver({}, Path())).read(kind_of(Config), node, "", bases(Retry()))
    unset = ("not set", "cannot read", "CREDENTIALS_DIRECTORY")
    assert [each for each in found.listed(False) if not any(word in each.message for word in unset)] == []
