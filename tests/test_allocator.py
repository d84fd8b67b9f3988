"""Freed memory stays with the process."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from worldmodels.compute.allocator import keep_freed_memory
if {kept} and not keep_freed_memory():
    sys.exit(3)
def touch():
    for _ in range(20):
        np.ones(8_000_000)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, kept: bool) -> int:
    result = subprocess.run([sys.executable, "-c", FAULTS.format(kept=kept)], check=False, capture_output=True, text=True)
    if result.returncode == 3:
        pytest.skip("not glibc: memory stays as the system has it")
    assert not result.returncode, result.stderr
    return int(result.stdout)


def test_large_blocks_are_not_cleared_again_and_again() -> None:
    before, after = faults(kept=False), faults(kept=True)
    assert after < 100
    assert before > 1000
