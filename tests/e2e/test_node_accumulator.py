"""Every recorded stream, as the gateway passes it on, through openai-node's accumulator."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from livegateway import ROOT
from recorded import FOLDERS, NATIVE, OTHER_API, TRANSLATED, passed_on

from tests.corpus import Case, cases


def streams() -> Iterator[tuple[str, list[Any]]]:
    for name in (*TRANSLATED, *NATIVE):
        for row in cases(FOLDERS.get(name, name), kind="stream"):
            case: Case = row.values[0]
            if case["id"] not in OTHER_API and (chunks := passed_on(name, case)) is not None:
                yield case["id"], chunks


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_openai_node_accumulates_every_recorded_stream(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path / "node"
    shutil.copytree(ROOT / "tests" / "node", folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install openai: {installed.stderr[-300:]}")
    told = dict(streams())
    for name, chunks in told.items():
        (folder / f"{name}.json").write_text(json.dumps({"events": chunks}))
    line = ["node", "accumulate.mjs", *(f"{name}.json" for name in told)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=100, check=True)
    answers = [json.loads(row) for row in done.stdout.splitlines()]
    assert len(answers) == len(told) > 100
    failed = {answer["file"]: answer["error"] for answer in answers if "error" in answer}
    assert failed == {}
    for answer in answers:
        chunks = told[answer["file"].removesuffix(".json")]
        for choice in answer["final"]["choices"]:
            text = "".join(
                part["delta"].get("content") or ""
                for chunk in chunks
                for part in chunk["choices"]
                if part["index"] == choice["index"] and part.get("delta")
            )
            assert (choice["message"]["content"] or "") == text
