"""The threads that a batch is read by: those of PyTorch, alone after a fork, none that outlives its work."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.load.threads import IMAGES_A_THREAD, in_parts, team_for
from tests.support.command_line import REPOSITORY

FORK = """
import os, signal, sys
from pathlib import Path
import numpy as np
import pytest
import torch
from pipeline import TensorCache
from pipeline.load import threads
from pipeline.system import native

native.compiled.__defaults__ = (Path(sys.argv[1]),)
threads._BYTES_A_THREAD = 1
torch.set_num_threads(3)
caches = [TensorCache(path) for path in sys.argv[2:]]
rows = torch.arange(8).repeat(20)
checked = [cache.read(rows).numpy() for cache in caches]
unchecked = [cache.read(rows).numpy() for cache in caches]
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(20)
same = all(np.array_equal(cache.read(rows).numpy(), images) for cache, images in zip(caches, checked))
os._exit(0 if same else 1)
"""


def test_pytorchs_own_threads_are_found_and_as_many_as_it_has(set_threads: Any) -> None:
    assert "OpenMP" in torch.__config__.parallel_info(), "this PyTorch has no threads of that kind to be found"
    set_threads(3)

    start, threads = team_for(2**30)

    assert start and threads == 3


def test_a_small_batch_or_a_single_thread_needs_no_team(set_threads: Any) -> None:
    set_threads(3)
    assert team_for(1000) == (0, 1) == team_for(0)
    set_threads(1)
    assert team_for(2**30) == (0, 1)


@pytest.mark.long
def test_a_forked_process_reads_alone_where_its_parents_threads_are_gone(
    kernels: Path, cache_path: Path, uint8_cache_path: Path
) -> None:
    """PyTorch's own operations wait for them forever: it must not need them."""
    command = [sys.executable, "-c", FORK, *map(str, (kernels, cache_path, uint8_cache_path))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


def test_parts_are_done_once_each_in_threads_that_end(set_threads: Any) -> None:
    done: list[int] = []
    set_threads(3)
    alive = threading.active_count()

    in_parts(lambda start, end: done.extend(range(start, end)), 3 * IMAGES_A_THREAD + 1)

    assert sorted(done) == list(range(3 * IMAGES_A_THREAD + 1))
    assert threading.active_count() == alive, "a thread that lives on would be missing after a fork"
