"""`sluiceway explain`: the attempts, what became of each parameter, and the requests, without secrets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main(["explain", "--format", "json", *words])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else None


def test_explain_shows_the_attempts_of_a_routing_in_order(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = explained(capsys, "-m", "r")
    assert code == 0
    assert [plan["deployment"] for plan in told["attempts"]] == ["a", "cold"]
    bodies = [json.loads(plan["request"]["body"]) for plan in told["attempts"]]
    assert [body.get("temperature") for body in bodies] == [None, 0]
    assert main(["explain", "-m", "r"]) == 0
    text = capsys.readouterr().out
    assert "attempt 1: a (openai)" in text
    assert "POST http://127.0.0.1:9/v1/chat/completions" in text
    assert "sekret" not in text


def test_explain_reads_a_body_and_its_model(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = {"model": "wild/some-model", "messages": [], "x_new": 1}
    (good.parent / "body.json").write_text(json.dumps(body))
    code, told = explained(capsys, "-d", "body.json")
    assert (code, told["model"]) == (0, "wild/some-model")
    (plan,) = told["attempts"]
    assert json.loads(plan["request"]["body"]) == {**body, "model": "some-model"}
    assert plan["parameters"]["x_new"]["decision"] == "forward"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-m", "nobody"], 1),
        (["-d", "nowhere.json", "-m", "a"], 2),
        (["-d", "list.json", "-m", "a"], 1),
        (["-d", "broken.json", "-m", "a"], 1),
    ],
)
def test_explain_says_why_it_cannot(
    good: Path, words: Sequence[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (good.parent / "list.json").write_text("[]")
    (good.parent / "broken.json").write_text('{"messages": ')
    assert main(["explain", *words]) == code
    got = capsys.readouterr()
    assert got.out == ""
    assert got.err.startswith("sluiceway explain: ")


def test_explain_shows_a_refusal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    account = "providers: {p: {type: anthropic, api_key: {env: SOME_KEY}}}"
    (here / "gateway.yaml").write_text(
        f"version: 1\n{account}\ndeployments: {{a: {{provider: p, model: claude-sonnet-4-5}}}}\n"
    )
    (here / "body.json").write_text('{"model": "a", "messages": [], "n": 2}')
    code, told = explained(capsys, "-d", "body.json")
    assert code == 1
    assert told["attempts"][0]["error"]["code"] == "unsupported_parameter"
    assert main(["explain", "-d", "body.json"]) == 1
    assert "refused: unsupported_parameter" in capsys.readouterr().out


def test_explain_names_the_proxy_without_its_password(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    account = "providers: {p: {type: openai, api_key: {env: SOME_KEY}, proxy: 'http://user:hush@proxy.corp:3128'}}"
    (here / "gateway.yaml").write_text(f"version: 1\n{account}\ndeployments: {{a: {{provider: p, model: m}}}}\n")
    code, told = explained(capsys, "-m", "a")
    assert (code, told["attempts"][0]["proxy"]) == (0, "http://***@proxy.corp:3128")
    assert main(["explain", "-m", "a"]) == 0
    out = capsys.readouterr().out
    assert "  via the proxy http://***@proxy.corp:3128\n" in out
    assert "hush" not in out
