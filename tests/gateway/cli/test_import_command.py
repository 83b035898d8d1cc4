"""`sluiceway import litellm`: what it prints, what it refuses, and that the result serves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from livegateway import command, free_port, process

from gateway.cli.litellm.convert import convert
from tests.gateway.cli.imports import entry

FILE = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      {model: azure/x, api_base: "https://a.test", api_key: os.environ/AZ, api_version: 2024-10-21, rpm: 6}
  - model_name: gpt-4o
    litellm_params: {model: gpt-4o, api_key: sk-very-secret, cool_new_field: 1}
litellm_settings: {drop_params: yes, success_callback: [langfuse]}
general_settings: {master_key: sk-1234, database_url: "postgresql://u:pw-secret@h/db"}
"""


def run(folder: Path, text: str | bytes, *words: str) -> Any:
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return command("import", "litellm", str(path), *words)


def test_the_command_prints_the_file_and_tells_about_every_field(tmp_path: Path) -> None:
    done = run(tmp_path, FILE)
    assert done.returncode == 0
    values = yaml.safe_load(done.stdout)
    assert set(values["deployments"]) == {"gpt-4o@azure", "gpt-4o@openai"}
    assert values["providers"]["azure"]["api_version"] == "2024-10-21"
    for secret in ("sk-very-secret", "sk-1234", "pw-secret"):
        assert secret not in done.stdout + done.stderr
    assert "unsupported: model_list[1].litellm_params.cool_new_field" in done.stderr
    assert "# unsupported: model_list[1].litellm_params.cool_new_field" in done.stdout
    assert re.search(
        r"^  # manual: model_list\[1\]\.litellm_params\.api_key -> providers\.openai\.api_key", done.stdout, re.M
    )
    assert re.search(r"^ +\d+ exact: ", done.stderr, re.M)
    (tmp_path / "gateway.yaml").write_text(done.stdout)
    checked = command("check", "-c", str(tmp_path / "gateway.yaml"), env={"AZ": "x", "OPENAI_API_KEY": "x"})
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_command_tells_it_to_programs(tmp_path: Path) -> None:
    done = run(tmp_path, FILE, "--format", "json")
    told = json.loads(done.stdout)
    assert {"exact", "approximate", "manual", "unsupported"} == {row["grade"] for row in told["fields"]}
    assert set(told["environment"]) == {"AZ", "OPENAI_API_KEY"}
    assert yaml.safe_load(told["gateway_yaml"])["routings"]["gpt-4o"]["targets"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must be a map"),
        ("", "must be a map"),
        ("a: [", "not valid YAML"),
        (b"a: \xff", "not UTF-8"),
        ("a: &x [*x]", "nested deeper"),
        ("a: !!python/object:os.system x", "not valid YAML"),
    ],
)
def test_a_source_that_cannot_be_read_is_a_finding(tmp_path: Path, text: str | bytes, message: str) -> None:
    done = run(tmp_path, text)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_without_a_model_is_a_finding(tmp_path: Path) -> None:
    assert run(tmp_path, "model_list: []\n").returncode == 1


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = command("import", "litellm", str(tmp_path / "nowhere.yaml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such file" in done.stderr


def test_a_key_that_is_written_twice_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, FILE + "general_settings: {master_key: sk-1234}\n")
    assert "unsupported: general_settings (written again in line" in done.stderr


def test_what_was_imported_serves_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_SECRET", "demo")
    port = free_port()
    source = {
        "model_list": [
            entry("gpt", "openai/demo-fail", api_base=f"http://127.0.0.1:{port}/openai/v1", order=1),
            entry("gpt", "azure/gpt-4o", api_base=f"http://127.0.0.1:{port}/azure", order=2),
            entry("claude", "anthropic/claude-sonnet-4-5", api_base=f"http://127.0.0.1:{port}/anthropic", max_tokens=9),
        ],
        "router_settings": {"fallbacks": [{"gpt": ["claude"]}], "num_retries": 1},
        "general_settings": {"master_key": "sk-1234"},
    }
    for each in source["model_list"]:
        each["litellm_params"]["api_key"] = "os.environ/UPSTREAM_SECRET"
    made = convert(source, {})
    with process(tmp_path, {**made.values, "server": {"demo": f"127.0.0.1:{port}"}}) as running:
        for model, deployment in (("gpt", "gpt@azure"), ("claude", "claude")):
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]}).encode()
            headers = {"authorization": "Bearer sk-1234", "content-type": "application/json"}
            asked = Request(f"http://127.0.0.1:{running.port}/v1/chat/completions", body, headers)
            with urlopen(asked, timeout=30) as answer:
                assert answer.headers["x-gateway-deployment"] == deployment
                assert json.load(answer)["choices"]
