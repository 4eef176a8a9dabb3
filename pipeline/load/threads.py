"""Work on a batch by as many threads as PyTorch has, where it releases the interpreter and is worth a thread."""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from threading import Thread

import torch

IMAGES_A_THREAD = 16  # a smaller amount is done before another thread starts
_BYTES_A_THREAD = 2**19  # a smaller amount is written before a thread of a team starts

_forked: list[bool] = []


def team_for(bytes_written: int) -> tuple[int, int]:
    """Return the function by which C code starts threads, and a useful number of threads.

    They are those of PyTorch's operations. Its threads wait for more work with busy cores for a moment after each:
    threads of our own would get a core only behind them, and be a hundred times slower to start. They are gone in a
    process that was forked from one that had them, where whoever waits for them waits forever: work alone there.

    Args:
        bytes_written: of the whole batch.

    Returns:
        The address of OpenMP's `GOMP_parallel`, or 0, and a number of threads.
    """
    threads = 1 if _forked else max(1, min(torch.get_num_threads(), bytes_written // _BYTES_A_THREAD))
    return (_openmp() if threads > 1 else 0), threads


@cache
def _openmp() -> int:
    """Return the address of `GOMP_parallel` in the OpenMP of PyTorch; 0 where it was built with none, or another."""
    for library in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
        try:  # a search with this handle includes the libraries it is linked with
            return ctypes.cast(ctypes.CDLL(str(library)).GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(True))


def in_parts(work: Callable[[int, int], None], images: int) -> None:
    """Call `work(start, end)` for parts of 0..images, in threads that end with this call: none outlives a fork.

    `work` must not raise.
    """
    threads = max(1, min(torch.get_num_threads(), images // IMAGES_A_THREAD))
    first, *rest = pairwise(images * part // threads for part in range(threads + 1))
    others = [Thread(target=work, args=part) for part in rest]
    for other in others:
        other.start()
    work(*first)
    for other in others:
        other.join()
