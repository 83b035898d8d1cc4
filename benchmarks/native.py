"""The two C programs of the benchmark, built when their source has changed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent


class CannotBuild(Exception):
    """There is no compiler, or it fails."""


def build(name: str, cache: Path) -> Path:
    """The program from `name`.c, from the cache when it is there."""
    source = SOURCES / f"{name}.c"
    program = cache / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if program.exists():
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise CannotBuild("no C compiler: the upstream and the clients of the benchmark need one (apt-get install gcc)")
    cache.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuild(f"{compiler} does not build {source.name}:\n{done.stderr}")
    return program
