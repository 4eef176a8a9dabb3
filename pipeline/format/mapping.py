"""Map the images of several files as one array: each file into one range of addresses, at a multiple of a row.

A batch is then gathered as from a single file. Files are mapped at whole pages, so there may be unused addresses
between two files; they cost no memory.
"""

import ctypes
import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.format.header import IMAGES_OFFSET, Header

_FIXED = 0x10  # MAP_FIXED, on Linux and macOS alike
_NORESERVE = 0x4000 if os.uname().sysname == "Linux" else 0


def map_together(files: Sequence[tuple[int, Header]]) -> tuple[NDArray[Any], list[int], mmap.mmap]:
    """Map the images of files of one recipe, privately, copy-on-write.

    Args:
        files: (file descriptor, header) of each. The descriptors may be closed afterwards.

    Returns:
        (R, 3, H, W) as stored; the row at which each file begins; and the map. R is at least the number of all rows;
        rows between files are zero.

    Raises:
        OSError: the system refused.
    """
    extent = files[0][1].extents["images"]
    starts, size = _lay_out([header for _, header in files])
    whole = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE)
    bytes_of_it = np.frombuffer(whole, np.uint8)  # owns the range: its release unmaps every file in it
    for start, (fd, header) in zip(starts, files, strict=True):
        _map(bytes_of_it.ctypes.data + start * extent.row_bytes, header.file_size, fd)
    rows = (size - IMAGES_OFFSET) // extent.row_bytes
    shape = (rows, *extent.row_shape)
    return np.ndarray(shape, np.dtype(extent.dtype), bytes_of_it, IMAGES_OFFSET), starts, whole


def _lay_out(headers: Sequence[Header]) -> tuple[list[int], int]:
    """Return the row at which each file begins (its map begins at a page), and the size of the map."""
    row_bytes = headers[0].extents["images"].row_bytes
    step = mmap.PAGESIZE // math.gcd(row_bytes, mmap.PAGESIZE)  # rows between two positions at which a file can begin
    starts, end = [], 0
    for header in headers:
        start = -(-end // (row_bytes * step)) * step
        starts.append(start)
        end = start * row_bytes + -(-header.file_size // mmap.PAGESIZE) * mmap.PAGESIZE
    return starts, end + row_bytes


def _map(address: int, size: int, fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    flags = mmap.MAP_PRIVATE | _FIXED | _NORESERVE
    if libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0) != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
