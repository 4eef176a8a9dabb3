"""Rows of a memory map copied into a batch: few bytes through the processor's cache, many past it."""

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from pipeline.load.threads import team_for
from pipeline.system.native import compiled

_STREAMED = 24 * 2**20  # bytes: a smaller batch may still be in the processor's cache when the step reads it


def gather_rows(images: Tensor, rows: Tensor, out: Tensor) -> None:
    """Copy rows, as `torch.index_select(images, 0, rows, out=out)` does.

    Args:
        images: (N, ...) on the CPU.
        rows: (B,) int64 of 0..N-1; whoever calls has checked them.
        out: (B, ...) of the same dtype, on the CPU; is overwritten.
    """
    kernels = compiled_kernels()
    if kernels is None or not _fit(images, rows, out):
        torch.index_select(images, 0, rows, out=out)
        return
    copy = kernels[out.nbytes >= _STREAMED]
    row_bytes = out.nbytes // max(1, len(rows))
    copy(images.data_ptr(), rows.data_ptr(), len(rows), row_bytes, out.data_ptr(), *team_for(out.nbytes))


def _fit(images: Tensor, rows: Tensor, out: Tensor) -> bool:
    """Say whether the kernel may use these addresses; PyTorch handles any other input."""
    same = out.shape == (len(rows), *images.shape[1:]) and out.dtype == images.dtype and out.device.type == "cpu"
    return same and images.is_contiguous() and rows.is_contiguous() and out.is_contiguous()


@cache
def compiled_kernels() -> tuple[Callable[..., None], Callable[..., None]] | None:
    """Return `copy_rows` and `stream_rows` of `_batch.c`, or None where it was not compiled."""
    library = compiled("_batch")
    if library is None:
        return None
    address, number = ctypes.c_void_p, ctypes.c_int64
    for kernel in (library.copy_rows, library.stream_rows):
        kernel.argtypes = [address, address, number, number, address, address, ctypes.c_uint]
        kernel.restype = None
    return library.copy_rows, library.stream_rows
