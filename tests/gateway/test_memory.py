"""gateway.memory: what large bodies leave is used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Takes and leaves what a prompt of 400 KB does, and says how often the kernel had to be asked for a page.
PROGRAM = """
import resource, sys
from gateway.memory import keep_freed_memory

def prompt():
    pieces = [bytes(256 * 1024), bytes(144 * 1024)]
    return b"".join(pieces)[100:]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):
    prompt()
before = faults()
for _ in range(100):
    prompt()
print(faults() - before)
"""


def faults(what: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has rules of its own")
def test_a_large_body_finds_the_room_that_the_last_has_left() -> None:
    assert faults("keep") * 20 < faults("leave")
