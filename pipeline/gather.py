"""Rows of a memory map copied into a batch: few bytes by PyTorch, many past the processor's cache."""

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from pipeline.compiled import compiled
from pipeline.threads import in_parts

_STREAMED = 24 * 2**20  # bytes: what is smaller may still be in the last cache when the step reads it


def gather_rows(images: Tensor, rows: Tensor, out: Tensor) -> None:
    """Copy rows, as `torch.index_select(images, 0, rows, out=out)` does.

    A large batch is streamed where `_gather.c` was compiled: what is overwritten is not read before, so two bytes are
    moved for each that is copied, and not three. A small one is better left in the cache, where it is used next.

    Args:
        images: (N, ...) on the CPU.
        rows: (B,) int64 of 0..N-1; whoever calls has checked them.
        out: (B, ...) of the same dtype, on the CPU; is overwritten.
    """
    kernel = streaming_kernel() if out.nbytes >= _STREAMED else None
    if kernel is None or not _fit(images, rows, out):
        torch.index_select(images, 0, rows, out=out)
        return
    row_bytes = out[0].nbytes
    source, numbers, target = images.data_ptr(), rows.data_ptr(), out.data_ptr()

    def work(start: int, end: int) -> None:
        kernel(source, numbers + 8 * start, end - start, row_bytes, target + row_bytes * start)

    in_parts(work, len(rows))


def _fit(images: Tensor, rows: Tensor, out: Tensor) -> bool:
    """Say whether these are addresses that can be counted on; what is no batch of these rows is left to PyTorch."""
    same = out.shape == (len(rows), *images.shape[1:]) and out.dtype == images.dtype and out.device.type == "cpu"
    return same and images.is_contiguous() and rows.is_contiguous() and out.is_contiguous()


@cache
def streaming_kernel() -> Callable[..., None] | None:
    """Return `gather_rows` of `_gather.c`, or None where it was not compiled."""
    library = compiled("_gather")
    if library is None:
        return None
    address, number = ctypes.c_void_p, ctypes.c_int64
    library.gather_rows.argtypes = [address, address, number, number, address]
    library.gather_rows.restype = None
    return library.gather_rows
