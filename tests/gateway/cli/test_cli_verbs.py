"""The command line: what each verb prints, where, and with which exit code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import yaml
from livegateway import ROOT, clean_environment, command

from gateway import __version__
from gateway.__main__ import VERBS, main
from tests.gateway.cli.samples import BAD, GOOD


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Make this standard input."""
    stream = io.TextIOWrapper(io.BytesIO(text.encode()))
    monkeypatch.setattr(sys, "stdin", stream)


def test_no_verb_is_wrong_usage_and_help_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {verb} ", shown, re.M) for verb in VERBS)


@pytest.mark.parametrize(("typo", "meant"), [("chek", "check"), ("serv", "serve"), ("explan", "explain")])
def test_an_unknown_verb_is_wrong_usage_and_names_the_nearest(
    typo: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typo]) == 2
    got = capsys.readouterr()
    assert got.out == ""
    assert f"did you mean '{meant}'?" in got.err


def test_a_verb_that_resembles_nothing_gets_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zzzz"]) == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"version"}))
def test_an_unknown_option_is_wrong_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([verb, "--no-such-option"])
    assert left.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("words", [["version"], ["--version"], ["-V"]])
def test_the_version_is_printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == f"sluiceway {__version__}\n"


def test_the_version_is_there_in_a_fifth_of_a_second() -> None:
    took = []
    for _ in range(5):
        began = time.monotonic()
        done = command("--version")
        took.append(time.monotonic() - began)
        assert done.returncode == 0
    assert min(took) < 0.2


def test_a_good_file_is_good(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("check", "-t"):
        assert main([verb]) == 0
        got = capsys.readouterr()
        assert got.out == "gateway.yaml: good\n"
        assert "error" not in got.err


def test_every_mistake_is_reported_in_one_pass_with_its_place(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.yaml").write_text(BAD)
    assert main(["check", "-c", "bad.yaml"]) == 1
    got = capsys.readouterr()
    assert got.out == ""
    errors = [line for line in got.err.splitlines() if " error: " in line]
    assert len(errors) >= 3
    assert all(re.match(r"bad\.yaml:\d+:\d+: error: [\w.*]+: ", line) for line in errors)
    assert "server" in got.err
    assert "openai" in got.err


def test_findings_are_listed_as_json_when_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.yaml").write_text(BAD)
    assert main(["check", "-c", "bad.yaml", "--format", "json"]) == 1
    got = capsys.readouterr()
    found = json.loads(got.out)
    assert got.err == ""
    assert {entry["level"] for entry in found} == {"error"}
    assert all(entry["message"] for entry in found)


def test_a_warning_is_an_error_when_strict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    literal = GOOD.replace("{env: SOME_KEY}", "sk-literal").replace("http://127.0.0.1:9", "https://api.example.com")
    (here / "gateway.yaml").write_text(literal)
    assert main(["check"]) == 0
    assert " warning: " in capsys.readouterr().err
    assert main(["check", "--strict"]) == 1
    got = capsys.readouterr()
    assert " error: " in got.err
    assert "sk-literal" not in got.out + got.err


def test_a_file_that_is_not_there_is_a_finding(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "-c", "nowhere.yaml"]) == 1
    assert "nowhere.yaml" in capsys.readouterr().err


def test_the_file_may_come_from_standard_input(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, GOOD)
    assert main(["check", "-c", "-"]) == 0
    feed(monkeypatch, BAD)
    assert main(["check", "-c", "-"]) == 1
    assert "<stdin>:" in capsys.readouterr().err


def test_the_environment_names_the_file_and_the_option_goes_over_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "elsewhere.yaml").write_text(GOOD)
    (here / "bad.yaml").write_text(BAD)
    monkeypatch.setenv("SLUICEWAY_CONFIG", "elsewhere.yaml")
    assert main(["check"]) == 0
    assert main(["check", "-c", "bad.yaml"]) == 1
    monkeypatch.setenv("SLUICEWAY_CONFIG", "bad.yaml")
    assert main(["check"]) == 1


def test_without_a_file_the_provider_keys_of_the_environment_make_one(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if Path("/etc/sluiceway/gateway.yaml").exists():
        pytest.skip("this machine has a configuration of its own")
    for verb in ("check", "models", "explain"):
        assert main([verb]) == 1
        assert "no configuration" in capsys.readouterr().err
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sekret")
    monkeypatch.setenv("OPENAI_API_KEY", "sekret")
    assert main(["models", "--format", "json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == {"openai/*", "anthropic/*"}
    assert main(["check"]) == 0
    assert main(["explain", "-m", "anthropic/claude-sonnet-4-5"]) == 0
    got = capsys.readouterr()
    assert "https://api.anthropic.com/v1/messages" in got.out
    assert "sekret" not in got.out + got.err


def test_models_are_listed_with_what_stands_behind_them(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert [line.split()[:2] for line in text.splitlines()] == [
        ["a", "deployment"],
        ["wild/*", "deployment"],
        ["cold", "adapter"],
        ["r", "routing"],
    ]
    assert main(["models", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["leads_to"] for row in rows] == ["p: model-a", "p: *", "a", "priority: a, cold"]


def test_models_of_a_bad_file_are_not_listed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "gateway.yaml").write_text(BAD)
    assert main(["models"]) == 1
    assert capsys.readouterr().out == ""


def test_the_schema_accepts_the_shipped_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(yaml.safe_load((ROOT / "gateway.yaml").read_text()))) == []
    assert list(validator.iter_errors({"version": 1, "servr": {}})) != []


def test_a_new_key_comes_with_the_hash_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "--format", "json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["keys", "new", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] != first["key"]
    assert first["hash"] == "sha256:" + hashlib.sha256(first["key"].encode()).hexdigest()
    assert len(first["key"]) > 40


def test_a_key_from_standard_input_is_hashed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, "secret\n")
    assert main(["keys", "hash"]) == 0
    shown = "hash: sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n"
    assert capsys.readouterr().out == shown
    feed(monkeypatch, "\n")
    assert main(["keys", "hash"]) == 2
    assert capsys.readouterr().out == ""


def on_a_terminal(folder: Path, **env: str) -> str:
    """What `check` prints to a terminal."""
    (folder / "bad.yaml").write_text(BAD)
    ours, theirs = pty.openpty()
    try:
        line = [sys.executable, "-m", "gateway", "check", "-c", "bad.yaml"]
        subprocess.run(line, env={**clean_environment(), **env}, cwd=folder, stderr=theirs, timeout=60, check=False)
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_colour_is_for_terminals_that_want_it(tmp_path: Path) -> None:
    assert "\x1b[31merror:\x1b[0m" in on_a_terminal(tmp_path)
    assert "\x1b" not in on_a_terminal(tmp_path, NO_COLOR="1")
    assert "\x1b" not in command("check", "-c", str(tmp_path / "bad.yaml")).stderr


@pytest.mark.parametrize("verb", ["schema", "--help", "config show"])
def test_a_reader_that_goes_away_is_no_failure(verb: str) -> None:
    line = f"{sys.executable} -m gateway {verb} | head -c 10; exit ${{PIPESTATUS[0]}}"
    bash = ["bash", "-c", line]
    done = subprocess.run(bash, env=clean_environment(), cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 10, b"")


@pytest.mark.parametrize(
    ("verb", "where", "code"),
    [("schema", ">&-", 0), ("schema", "> /dev/full", 1), ("--help", ">&- 2>&-", 0), ("version", "> /dev/full", 1)],
)
def test_output_that_nobody_wants_or_that_has_no_room_ends_without_a_traceback(
    verb: str, where: str, code: int
) -> None:
    line = f"{sys.executable} -m gateway {verb} {where}"
    done = subprocess.run(
        line, shell=True, env=clean_environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (code, "", False)
    assert ("No space left" in done.stderr) == (code == 1)


def test_names_that_a_terminal_cannot_show_are_escaped(good: Path) -> None:
    good.write_text(GOOD.replace("\n  a: ", "\n  modèle-模: {provider: p, model: x}\n  a: "))
    done = command("models", "-c", str(good), env={"SOME_KEY": "x", "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert r"mod\xe8le-\u6a21" in done.stdout


def test_a_file_by_a_name_that_is_no_text_is_read(here: Path) -> None:
    name = os.fsencode(here) + b"/gateway-\xff.yaml"
    Path(os.fsdecode(name)).write_text(GOOD)
    done = command("check", "-c", os.fsdecode(name), env={"SOME_KEY": "x"})
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


@pytest.mark.parametrize(("name", "message"), [("folder", "Is a directory"), ("latin-1.yaml", "not UTF-8")])
def test_a_file_that_cannot_be_read_is_a_finding(here: Path, name: str, message: str) -> None:
    (here / "folder").mkdir()
    (here / "latin-1.yaml").write_bytes("version: 1 # é".encode("latin-1"))
    done = command("check", "-c", str(here / name))
    assert done.returncode == 1
    assert message in done.stderr


def test_an_interrupted_verb_ends_quietly(here: Path) -> None:
    line = [sys.executable, "-m", "gateway", "check", "-c", "-"]
    env = clean_environment()
    with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as running:
        assert running.stdin is not None
        assert running.stderr is not None
        wait_for_reading(running.pid)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
        assert running.stderr.read() == b""


def wait_for_reading(pid: int) -> None:
    """Until the process waits for standard input."""
    until = time.monotonic() + 30
    place = Path(f"/proc/{pid}/syscall")
    # A process that runs says so; one that waits says for which call: 0 is `read` on x86-64, 63 elsewhere, of file 0.
    while not re.match(r"(0|63) 0x0 ", place.read_text()):
        assert time.monotonic() < until, place.read_text()
        time.sleep(0.01)


def test_help_is_there_for_each_verb_and_says_no_command_twice(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in sorted(set(VERBS) - {"version"}):
        with pytest.raises(SystemExit) as left:
            main(["help", verb])
        assert left.value.code == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: sluiceway {verb}")
        assert "`sluiceway" not in shown


@pytest.mark.parametrize("verb", ["serve"])
def test_a_configuration_that_cannot_be_served_is_78(here: Path, verb: str) -> None:
    (here / "bad.yaml").write_text(BAD)
    done = command(verb, "-c", str(here / "bad.yaml"))
    assert (done.returncode, done.stdout) == (78, "")
    assert " error: " in done.stderr
    missing = command(verb, "-c", str(here / "nowhere.yaml"))
    assert missing.returncode == 78


def test_nothing_to_serve_is_78(here: Path) -> None:
    if Path("/etc/sluiceway/gateway.yaml").exists():
        pytest.skip("this machine has a configuration of its own")
    done = command("serve", cwd=here)
    assert done.returncode == 78
    assert "sluiceway demo" in done.stderr


def test_a_terminal_is_asked_for_a_key_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", lambda prompt: "secret")
    assert main(["keys", "hash"]) == 0
