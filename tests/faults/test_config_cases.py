"""The faulty and hostile configuration files of the specification, each in the words of gateway.yaml."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from config_samples import BASE, ENVIRON, loaded, loaded_file

import plugins
from gateway.config.loader import Loaded, load
from gateway.config.plugins import Registry


@dataclass(frozen=True)
class Row:
    """A file, and what checking it must say: the level, and words that its findings must have."""

    text: str
    level: str = "error"
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ("Traceback",)


def provider(api_key: str) -> str:
    return BASE.replace("{env: OPENAI_API_KEY}", api_key)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

ROWS = {
    "CF-003": Row("", has=("empty",)),
    "CF-004": Row("- a\n", has=("must be a map",)),
    "CF-005": Row("a: 1\n---\nb: 2\n", has=("g.yaml:2:1", "second document")),
    "CF-006": Row("models:\n\t- x\n", has=("g.yaml:2:1", "line 2")),
    "CF-007": Row("x: !!python/object/apply:os.system ['touch ran']\n", has=("g.yaml:1:4", "tags")),
    "CF-008": Row(BOMB, has=("aliases",)),
    "CF-009": Row("models: &m [*m]\n", has=("aliases",)),
    "CF-010": Row("[" * 2000 + "]" * 2000, has=("nested deeper",)),
    "CF-011": Row(
        BASE + "  gpt: {provider: openai, model: other}\n",
        has=("g.yaml:5:3", "deployments.gpt: written twice", "line 4"),
    ),
    "CF-012": Row(BASE + "server: {drain: 1s}\nserver: {drain: 2s}\n", has=("g.yaml:6:1", "server: written twice")),
    "CF-013": Row(
        BASE + "retry: {timeouts: {conect: 5s}}\n", has=("g.yaml:5:20", "retry.timeouts.conect", "'connect'")
    ),
    "CF-014": Row(BASE + "  on: {provider: openai, model: x}\n", has=("g.yaml:5:3", "quote")),
    "CF-015": Row(BASE + "  3.10: {provider: openai, model: x}\n", has=("g.yaml:5:3", "quote", "3.1")),
    "CF-016": Row("providers:\n  a: {type: azure, resource: r, api_version: 2024-08-06}\ndeployments:\n"
                  "  d: {provider: a, model: m}\n", level=""),
    "CF-017": Row(
        BASE + "retry: {timeouts: {connect: 1e3, total: 12:30:45}}\n",
        has=("retry.timeouts.connect: expected 30s", "retry.timeouts.total: expected 30s"),
    ),
    "CF-018": Row(BASE + "retry: {timeouts: {connect: -1}}\n", has=("retry.timeouts.connect",)),
    "CF-019": Row(BASE + "retry: {timeouts: {total: .inf}}\n", has=("retry.timeouts.total",)),
    "CF-020": Row(BASE + "server: {listen: 127.0.0.1:010, workers: 010}\n", has=("server.listen", "server.workers")),
    "CF-021": Row(provider("sk-abc #def").replace("#def}", "\n    }"), level="warning", lacks=("sk-abc",)),
    "CF-022": Row(provider("{env: NO_SUCH_VAR}"), has=("providers.openai.api_key", "NO_SUCH_VAR", "not set")),
    "CF-023": Row(provider("{env: EMPTY_VAR}"), has=("EMPTY_VAR", "empty")),
    "CF-027": Row(BASE + "server: {listen: 0.0.0.0:4000}\n", has=("g.yaml:5:18", "server.listen", "loopback")),
    "CF-028": Row(BASE + "server: {admin: 0.0.0.0:4001}\n", has=("server.admin", "loopback")),
    "CF-029": Row(
        BASE + "routings:\n  a: {targets: [gpt], fallback: [b]}\n  b: {targets: [gpt], fallback: [a]}\n",
        has=("routings.a", "a -> b -> a"),
    ),
    "CF-030": Row(
        BASE + "routings:\n  a: {targets: [gpt], fallback: [nope]}\n", has=("routings.a.fallback[0]", "nope")
    ),
    "CF-034": Row(BASE + "telemetry: {access_log: {to: /nope/x.log}}\n", has=("telemetry.access_log.to", "/nope")),
}  # fmt: skip

# Driven by a test of their own below, because they need files or plugins.
FILES = {"CF-001", "CF-002", "CF-024", "CF-025", "CF-026", "CF-031", "CF-032"}
NOT_HERE = {
    "CF-033": "needs a process that binds",
    "CF-035": "needs a process without C extensions",
    "CF-036": "is about the command's exit codes",
}


def told(result: Loaded) -> str:
    return "\n".join(map(str, result.findings))


def test_no_case_is_forgotten(shared: Path) -> None:
    cases = yaml.safe_load((shared / "faults" / "config_cases.yaml").read_text())["cases"]
    assert {case["id"] for case in cases} == set(ROWS) | FILES | set(NOT_HERE)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_faulty_file_is_answered_with_its_mistakes(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    result = loaded(row.text)
    assert time.monotonic() - began < 2
    assert {finding.level for finding in result.findings} == ({row.level} if row.level else set())
    assert (result.config is None) == (row.level == "error")
    assert all(word in told(result) for word in row.has), told(result)
    assert not any(word in told(result) for word in row.lacks)
    assert not list(tmp_path.iterdir())


def test_a_date_stays_text() -> None:
    config = loaded(ROWS["CF-016"].text).config
    assert config and config.providers["a"].options == {"resource": "r", "api_version": "2024-08-06"}


def test_an_unquoted_hash_begins_a_comment() -> None:
    config = loaded(ROWS["CF-021"].text).config
    assert config and config.providers["openai"].api_key
    assert config.providers["openai"].api_key.reveal() == "sk-abc"


def test_cf_001_a_missing_file_is_named(tmp_path: Path) -> None:
    result = loaded_file(tmp_path / "none.yaml")
    assert result.config is None
    assert (
        told(result) == f"{tmp_path}/none.yaml:1:1: error: cannot read {tmp_path}/none.yaml: No such file or directory"
    )


def test_cf_002_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    if os.geteuid():
        path.write_text(BASE)
        path.chmod(0)
    else:
        path.mkdir()  # root may read every file, but no directory
    result = loaded_file(path)
    assert result.config is None
    assert f"cannot read {path}" in told(result)


def test_cf_024_the_newline_at_the_end_of_a_key_file_is_no_part_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("sk-x\n")
    (tmp_path / "g.yaml").write_text(provider("{file: k}"))
    config = loaded_file(tmp_path / "g.yaml").config
    assert config and config.providers["openai"].api_key
    assert config.providers["openai"].api_key.reveal() == "sk-x"


def test_cf_025_a_key_with_an_inner_newline_is_refused_unseen(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("sk-x\nInjected: 1")
    (tmp_path / "g.yaml").write_text(provider("{file: k}"))
    result = loaded_file(tmp_path / "g.yaml")
    assert result.config is None
    assert "line break" in told(result)
    assert "sk-x" not in told(result)


def test_cf_026_literal_keys_in_a_file_that_everyone_may_read_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(provider("sk-abc"))
    path.chmod(0o644)
    assert "everyone may read" in told(loaded_file(path))
    path.chmod(0o600)
    assert "everyone" not in told(loaded_file(path))
    assert loaded_file(path).config
    assert loaded_file(path, strict=True).config is None


def test_cf_031_a_plugin_is_never_a_path() -> None:
    result = load("g.yaml", ENVIRON, Registry(), text=BASE.replace("type: openai", "type: ../../tmp/x"))
    assert result.config is None
    assert "providers.openai.type: '../../tmp/x' cannot be a provider type" in told(result)


def test_cf_032_a_plugin_that_raises_at_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('out of order')")
    monkeypatch.setattr(plugins, "__path__", [*plugins.__path__, str(tmp_path)])
    result = load("g.yaml", ENVIRON, Registry(), text=BASE.replace("type: openai", "type: broken"))
    assert result.config is None
    assert "'broken' cannot be imported: RuntimeError: out of order" in told(result)
    assert "plugins.broken" not in sys.modules


MODEL_NAMES = {
    "azure_resource": "providers:\n  p: {{type: azure, resource: {value}}}\n",
    "aws_region": "providers:\n  p: {{type: bedrock, region: {value}}}\n",
    "azure_deployment": (
        "providers:\n  p: {{type: azure, resource: r}}\ndeployments:\n  d: {{provider: p, model: {value}}}\n"
    ),
    "azure_api_version": "providers:\n  p: {{type: azure, resource: r, api_version: {value}}}\n",
    "base_url": "providers:\n  p: {{type: openai, base_url: {value}}}\n",
}


@pytest.mark.parametrize("number", range(21, 30))
def test_a_value_that_would_move_the_host_is_refused(number: int, shared: Path) -> None:
    cases = yaml.safe_load((shared / "faults" / "model_names.yaml").read_text())["cases"]
    (case,) = (each for each in cases if each["id"] == f"MN-{number:03}")
    text = MODEL_NAMES[case["place"]].format(value=f"'{case['value']}'")
    result = load("g.yaml", ENVIRON, Registry(), text=text)
    wanted = "error" if "config_error" in case["expect"] else "warning"
    assert wanted in {finding.level for finding in result.findings}
    assert (result.config is None) == (wanted == "error")
    assert "u:p" not in told(result)


def test_every_value_with_a_place_is_driven(shared: Path) -> None:
    cases = yaml.safe_load((shared / "faults" / "model_names.yaml").read_text())["cases"]
    assert {case["id"] for case in cases if "place" in case} == {f"MN-{number:03}" for number in range(21, 30)}
