"""openai-node against every demo model, by the script in tests/node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from livegateway import ROOT, SHIPPED, process, shipped

SCRIPT = ROOT / "tests" / "node"


@pytest.mark.slow
def test_openai_node_is_served_by_every_model(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path / "node"
    shutil.copytree(SCRIPT, folder)
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent"]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install openai: {installed.stderr[-300:]}")
    with process(tmp_path, shipped()) as running:
        line = ["node", "smoke.mjs", running.url, *SHIPPED]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith(", 0 failed")
