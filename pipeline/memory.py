"""Memory for batches that costs no page faults: blocks that nobody holds any more are used again."""

import ctypes
import math
import sys
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> bool:
    """Make glibc reuse freed blocks of up to 1 GiB instead of returning them to the system.

    Gathering a large batch into memory that the process has touched before is up to four times as fast as into new
    memory. This changes the whole process, so a program may call it and a library must not: `train` does.

    Returns:
        True where it was done: Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, 2**30) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


class BatchMemory:
    """Gives out tensors whose memory comes back by itself when the last reference to it is gone.

    A caller who keeps a batch, or any view of it, keeps its memory; only then is it really free. Fresh memory is
    several times slower, since the system has to map and clear every page of it.
    """

    _ALIGNMENT = 64  # bytes, as PyTorch's own allocator
    _KEPT = 4  # free blocks of a size; more are given back to the system

    def __init__(self) -> None:
        self._free: dict[int, list[NDArray[np.uint8]]] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a CPU tensor, its content undefined."""
        count = math.prod(shape) * dtype.itemsize
        free = self._free.setdefault(count, [])
        try:
            block = free.pop()
        except IndexError:
            block = np.empty(count + self._ALIGNMENT, np.uint8)
        start = -block.ctypes.data % self._ALIGNMENT
        lent = block[start : start + count]
        weakref.finalize(lent, self._take_back, free, block).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)

    @classmethod
    def _take_back(cls, free: list[NDArray[np.uint8]], block: NDArray[np.uint8]) -> None:
        if len(free) < cls._KEPT:
            free.append(block)
