"""The chaos run, for a quarter of a minute: `benchmarks/chaos.py` judges by itself, and exits 1 at any violation."""

from __future__ import annotations

import subprocess
import sys

import pytest
from faults.serving import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


def test_every_request_ends_truthfully_while_three_providers_fail_in_every_way() -> None:
    line = [sys.executable, "benchmarks/chaos.py", "--seconds", "15"]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=80, check=False)
    print(ended.stdout)
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    assert "\n0 violations\n" in ended.stdout
