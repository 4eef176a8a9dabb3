"""Memory that was freed stays with the process, where the C library can be told so."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from pipeline.memory import keep_freed_memory
import numpy as np

told = keep_freed_memory() if sys.argv[1] == "keep" else False
for _ in range(3):
    np.ones(50_000_000, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(50_000_000, np.uint8)
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[bool, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    told, count = map(int, done.stdout.split())
    return bool(told), count


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's mallopt")
def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    _, without = faults("leave")
    told, kept = faults("keep")

    assert told
    assert kept < without / 4
