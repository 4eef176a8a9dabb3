"""Memory for batches: blocks that nobody holds any more are used again, and a GPU copies from page-locked ones."""

import ctypes
import math
import sys
import weakref
from typing import Any

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
    _KEPT = 4  # largest number of free blocks of a shape; the system gets the others back
    _SHAPES = 8  # largest number of shapes with free blocks; batches of many sizes would fill the memory

    def __init__(self) -> None:
        self._free: dict[tuple[tuple[int, ...], torch.dtype], list[NDArray[Any]]] = {}
        self._lent: dict[int, weakref.ref[NDArray[Any]]] = {}  # keeps the references alive, so that they can call back

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a CPU tensor, its content undefined."""
        free = self._free.setdefault((shape, dtype), [])
        if len(self._free) > self._SHAPES:  # start again, in one assignment, because other threads read this
            self._free = {(shape, dtype): free}
        try:
            block = free.pop()
        except IndexError:
            block = self._new_block(shape, dtype)
        lent = block.view()  # every array that the caller derives holds this view, not the block

        def take_back(_gone: object) -> None:
            del self._lent[id(block)]
            if len(free) < self._KEPT:
                free.append(block)

        self._lent[id(block)] = weakref.ref(lent, take_back)
        return torch.from_numpy(lent)

    @classmethod
    def _new_block(cls, shape: tuple[int, ...], dtype: torch.dtype) -> NDArray[Any]:
        memory = np.empty(math.prod(shape) * dtype.itemsize + cls._ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % cls._ALIGNMENT
        block: NDArray[Any] = memory[start : memory.size - cls._ALIGNMENT + start]
        return torch.from_numpy(block).view(dtype).view(shape).numpy()


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, without waiting for the GPU's running work."""
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()  # from other memory a copy waits until all before it is done
    return tensor.to(device, non_blocking=True)
