"""NumPy's memory map: batches gathered with a list of rows, 8-bit ones normalized in three passes."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import Deliver, Images, Peer, Reader, in_order, normalize
from pipeline.format.reader import CacheReader


class Gather:
    """Epochs of shuffled batches from the rows of a cache, mapped as a plain array."""

    def __init__(self, path: Path, batch_size: int, deliver: Deliver) -> None:
        extent = CacheReader(path).header.extents["images"]
        self.rows = np.memmap(path, extent.dtype, "r", extent.offset, extent.stored_shape)
        self.batch_size = batch_size
        self.normalize = deliver == "float32" and self.rows.dtype == np.uint8

    def __iter__(self) -> Iterator[Tensor]:
        order = np.random.default_rng().permutation(len(self.rows))
        for first in range(0, len(order), self.batch_size):
            batch = torch.from_numpy(self.rows[order[first : first + self.batch_size]])
            yield normalize(batch) if self.normalize else batch


def build(images: Images, path: Path, workers: int) -> None:
    """Decode in workers, write 8-bit rows into a .npy file from one process."""
    rows: np.memmap[tuple[int, ...], np.dtype[np.uint8]] | None = None
    for row, (pixels_HWC, _) in enumerate(in_order(images, workers)):
        if rows is None:
            shape = (len(images), 3, *pixels_HWC.shape[:2])
            rows = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        rows[row] = pixels_HWC.transpose(2, 0, 1)


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Map a cache's rows."""
    return Gather(path, batch_size, deliver)


PEER = Peer(
    "NumPy memmap",
    build,
    (
        Reader("NumPy memmap, float32", "float32", ("float32",), read),
        Reader("NumPy memmap, uint8", "uint8", ("float32", "uint8"), read),
    ),
)
