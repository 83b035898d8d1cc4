"""Completion scripts: what real shells complete with them."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from livegateway import clean_environment

from gateway.__main__ import main
from gateway.cli.verbs import VERBS

FILE = """
version: 1
deployments:
  gpt: {provider: nobody, model: x}
  "name:with colon": {provider: nobody, model: x}
adapters: {cold: {deployment: gpt}}
routings: {fast: {targets: [gpt]}}
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, as the command prints them."""
    folder = tmp_path_factory.mktemp("scripts")
    for name in ("bash", "zsh", "fish"):
        with redirect_stdout(io.StringIO()) as shown:
            assert main(["completion", name]) == 0
        (folder / name).write_text(shown.getvalue())
    return folder


@pytest.fixture
def here(tmp_path: Path, scripts: Path) -> Path:
    """A folder with a configuration, the scripts, and the command on the path."""
    shutil.copytree(scripts, tmp_path / "scripts")
    (tmp_path / "gateway.yaml").write_text(FILE)
    (tmp_path / "other.yaml").write_text("deployments: {elsewhere: {}}\n")
    script = tmp_path / "bin" / "sluiceway"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m gateway "$@"\n')
    script.chmod(0o755)
    return tmp_path


def shell(here: Path, *line: str) -> str:
    if shutil.which(line[0]) is None:
        pytest.skip(f"{line[0]} is not installed")
    env = clean_environment()
    env["PATH"] = f"{here / 'bin'}:{env['PATH']}"
    env["HOME"] = str(here)
    done = subprocess.run(line, env=env, cwd=here, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def bash(here: Path, words: Sequence[str]) -> list[str]:
    typed = " ".join(f"'{word}'" for word in words)
    script = f"""source scripts/bash
COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _sluiceway
[ ${{#COMPREPLY[@]}} -eq 0 ] || printf '%s\\n' "${{COMPREPLY[@]}}" """
    return shell(here, "bash", "--norc", "-c", script).splitlines()


def zsh(here: Path, words: Sequence[str]) -> list[str]:
    typed = " ".join(f"'{word}'" for word in words)
    # The completion system's own functions say what they are given; outside of a completion they do nothing else.
    script = f"""compdef() {{ }}
source scripts/zsh
compadd() {{ [ "$1" = -a ] && print -l -- ${{(P)2}} || {{ shift; print -l -- "$@" }} }}
_describe() {{ print -l -- ${{${{(P)2}}%%:*}} }}
_files() {{ print FILES }}
words=({typed}); CURRENT={len(words)}; _sluiceway"""
    found = shell(here, "zsh", "-f", "-c", script).splitlines()
    return [word for word in found if word.startswith(words[-1]) or word == "FILES"]


def fish(here: Path, words: Sequence[str]) -> list[str]:
    script = f"source scripts/fish; complete -C '{' '.join(words)}'"
    return [line.partition("\t")[0] for line in shell(here, "fish", "--no-config", "-c", script).splitlines()]


@pytest.mark.parametrize("complete", [bash, zsh, fish])
def test_a_shell_completes_verbs_options_choices_and_models(complete: object, here: Path) -> None:
    assert callable(complete)
    assert set(complete(here, ["sluiceway", "ch"])) == {"check"}
    assert set(complete(here, ["sluiceway", "check", "--s"])) == {"--strict"}
    assert set(complete(here, ["sluiceway", "models", "--format", ""])) == {"text", "json"}
    assert set(complete(here, ["sluiceway", "keys", "n"])) == {"new"}
    assert set(complete(here, ["sluiceway", "explain", "-m", "f"])) == {"fast"}


@pytest.mark.parametrize("complete", [bash, zsh, fish])
def test_a_shell_completes_models_of_the_file_that_the_line_names(complete: object, here: Path) -> None:
    assert callable(complete)
    line = ["sluiceway", "explain", "-c", "other.yaml", "--model", ""]
    assert set(complete(here, line)) == {"elsewhere"}


def test_every_verb_is_completed(here: Path) -> None:
    assert set(bash(here, ["sluiceway", ""])) == set(VERBS)


def test_names_with_special_characters_can_be_typed(here: Path) -> None:
    assert bash(here, ["sluiceway", "explain", "-m", "name"]) == [r"name:with\ colon"]


def test_names_are_listed_from_a_file_with_mistakes_and_from_none(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.delenv("SLUICEWAY_CONFIG", raising=False)
    assert main(["completion", "names"]) == 0
    assert capsys.readouterr().out.splitlines() == ["gpt", "name:with colon", "cold", "fast"]
    (here / "gateway.yaml").write_text("a: [")
    assert main(["completion", "names"]) == 0
    assert main(["completion", "names", "--", "explain", "--config=nowhere.yaml"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_script_has_no_mistake_of_syntax(name: str, here: Path) -> None:
    script = here / "scripts" / name
    assert "sluiceway" in script.read_text()
    assert shell(here, name, "-n", str(script)) == ""
