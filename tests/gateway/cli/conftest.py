"""A folder to run verbs in, and a good configuration in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from livegateway import clean_environment

from tests.gateway.cli.samples import GOOD


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and an environment without keys."""
    for name in set(os.environ).difference(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOME_KEY", "sekret")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def good(here: Path) -> Path:
    """The path of a good configuration there."""
    (here / "gateway.yaml").write_text(GOOD)
    return here / "gateway.yaml"
