"""`sluiceway config show`: the resolved configuration as YAML and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from livegateway import ROOT, command

FILE = """
version: 1
include: [more.yaml]
providers: {p: {type: openai, api_key: {env: SOME_KEY}, headers: {x-secret: very-secret}}}
retry: {attempts: 4}
"""
MORE = "deployments: {a: {provider: p, model: m}}\n"


def write(folder: Path) -> str:
    (folder / "gateway.yaml").write_text(FILE)
    (folder / "more.yaml").write_text(MORE)
    return str(folder / "gateway.yaml")


def test_the_configuration_is_shown_whole_without_secrets(tmp_path: Path) -> None:
    path = write(tmp_path)
    done = command("config", "show", "-c", path, env={"SOME_KEY": "very-secret"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "very-secret" not in done.stdout
    shown = yaml.safe_load(done.stdout)
    assert shown["deployments"]["a"]["retry"]["attempts"] == 4
    assert shown["deployments"]["a"]["timeouts"]["idle"] == "1m"
    assert shown["providers"]["p"]["base_url"] == "https://api.openai.com/v1"
    assert "include" not in shown
    (tmp_path / "shown.yaml").write_text(done.stdout)
    again = command("config", "show", "-c", str(tmp_path / "shown.yaml"))
    assert yaml.safe_load(again.stdout) == shown


def test_json_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path)
    text, data = (
        command("config", "show", "-c", path, *words, env={"SOME_KEY": "x"}) for words in ([], ["--format", "json"])
    )
    assert json.loads(data.stdout) == yaml.safe_load(text.stdout)


def test_the_shipped_file_is_shown() -> None:
    done = command("config", "show", cwd=ROOT)
    assert done.returncode == 0
    assert set(yaml.safe_load(done.stdout)["deployments"]) >= {"gpt", "claude"}


def test_a_wrong_file_is_a_finding_and_shows_nothing(tmp_path: Path) -> None:
    path = write(tmp_path)
    done = command("config", "show", "-c", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "SOME_KEY is not set" in done.stderr


def test_show_is_the_only_thing_to_do_with_it() -> None:
    assert command("config").returncode == 2
    assert command("config", "hide").returncode == 2
