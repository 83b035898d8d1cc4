"""openai-python's own tests of chat completions, run against the gateway."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import openai
import pytest
from livegateway import clean_environment, process, shipped

NEEDED = ("pytest-asyncio", "pytest-xdist", "rich", "inline-snapshot")
OWN = "tests/api_resources/chat/test_completions.py"


def source(folder: Path) -> Path:
    """The unpacked source of the openai package that is installed; skips where it cannot be had."""
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "openai", "-d", str(folder)]
    got = subprocess.run(
        [*line, f"openai=={openai.__version__}"], capture_output=True, text=True, timeout=200, check=False
    )
    if got.returncode:
        pytest.skip(f"the source of openai cannot be downloaded: {got.stderr[-300:]}")
    (archive,) = folder.glob("openai-*.tar.gz")
    with tarfile.open(archive) as packed:
        # The filter by name came with Python 3.11.4.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


def runner(folder: Path) -> Path:
    """What openai's tests need besides pytest, in a folder of its own; skips where it cannot be had."""
    line = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *NEEDED]
    got = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)
    if got.returncode:
        pytest.skip(f"{', '.join(NEEDED)} cannot be installed: {got.stderr[-300:]}")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_chat_completion_tests_of_openai_pass(tmp_path: Path) -> None:
    root = source(tmp_path)
    if not (root / OWN).is_file():
        pytest.skip(f"the source of openai {openai.__version__} carries no {OWN}")
    content = shipped()
    content["deployments"]["any"] = {"provider": "openai", "model": "demo-anything"}
    # The values are a generator's, some of which no provider takes.
    sound = {"max_tokens": 16, "max_completion_tokens": 16, "stream_options": None}
    for name in set(re.findall(r'model="([^"]+)"', (root / OWN).read_text())):
        content["adapters"][name] = {"deployment": "any", "set": sound}
    with process(tmp_path, content) as running:
        env = {**clean_environment(), "TEST_API_BASE_URL": running.url, "PYTHONPATH": str(runner(tmp_path / "more"))}
        line = [sys.executable, "-m", "pytest", OWN, "-k", "create", "-q", "-p", "no:cacheprovider", "-n", "0"]
        done = subprocess.run(line, cwd=root, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
