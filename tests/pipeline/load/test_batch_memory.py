"""Batches lie in memory that costs no page faults, and that nobody else holds."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline import TensorCache
from pipeline.load.batch_memory import BatchMemory

PROGRAM = """
import resource, sys
from pipeline.load.batch_memory import keep_freed_memory
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


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's mallopt")
def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    _, without = faults("leave")
    told, kept = faults("keep")

    assert told
    assert kept < without / 4


def test_memory_comes_back_only_when_nobody_holds_any_of_it() -> None:
    memory = BatchMemory()
    first = memory.empty((4, 3), torch.float32)
    place = first.data_ptr()
    view = first[1]
    del first

    assert memory.empty((4, 3), torch.float32).data_ptr() != place, "a view is still held"
    del view
    assert memory.empty((4, 3), torch.float32).data_ptr() == place


def test_batches_of_ever_other_sizes_do_not_fill_the_memory() -> None:
    memory = BatchMemory()

    for size in range(1, 200):
        place = memory.empty((size, 1000), torch.float32).data_ptr()
        assert memory.empty((size, 1000), torch.float32).data_ptr() == place, "used again at once"

    blocks = [block for free in memory._free.values() for block in free]
    assert sum(block.nbytes for block in blocks) < 10 * 200 * 1000 * 4
    assert not memory._lent


def test_a_batch_that_is_kept_in_any_way_never_changes(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    rows = torch.arange(2)
    kept = [
        cache.read(rows),
        cache.read(rows)[1],
        cache.read(rows).numpy(),
        cache.read(rows).view(-1).detach(),
        torch.utils.dlpack.from_dlpack(cache.read(rows)),
    ]
    copies = [torch.as_tensor(tensor).clone() for tensor in kept]

    for start in range(2, 6):
        for _ in range(8):
            cache.read(rows + start)

    assert all(torch.equal(torch.as_tensor(a), b) for a, b in zip(kept, copies, strict=True))


def test_free_blocks_do_not_pile_up() -> None:
    memory = BatchMemory()
    held = [memory.empty((1000,), torch.uint8) for _ in range(50)]
    del held

    assert [len(blocks) for blocks in memory._free.values()] == [BatchMemory._KEPT]
