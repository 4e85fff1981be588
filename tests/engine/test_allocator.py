"""Memory that a step frees is there for the next one: counted in page faults, in processes of their own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import numpy as np
from mmcl.common.allocator import keep_freed_memory, return_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory() is (len(sys.argv) < 3)

def step():
    blocks = [np.ones(size << 17) for size in (1, 8, 40, 80)]  # 1 to 80 MiB, more than glibc ever keeps by itself
    return sum(float(block[0]) for block in blocks)

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
kept = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
return_freed_memory()
step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before - kept)
"""
PAGES = 129 * 256  # of 4 KiB that a step touches; where pages are larger, faults are fewer

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")


def faults(*words: str, **environment: str) -> tuple[int, int]:
    """Page faults of five steps, and of one after all free memory has been returned."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", STEPS, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=own | environment)
    kept, after = done.stdout.split()
    return int(kept), int(after)


@glibc
def test_no_page_is_touched_anew_until_memory_is_returned() -> None:
    by_default, _ = faults("default")
    kept, after_return = faults("kept")
    assert kept < 0.01 * by_default and kept < 0.01 * PAGES
    assert after_return > 10 * (kept + 1)


@glibc
def test_what_the_environment_says_is_left_alone() -> None:
    assert faults("kept", "not", MALLOC_ARENA_MAX="2")[0] > 0.1 * faults("default")[0]
