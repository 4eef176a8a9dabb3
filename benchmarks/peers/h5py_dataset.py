"""The usual Dataset around an HDF5 file: a row an item, opened once a worker."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers import Deliver, Epochs, Images, Peer, Reader, in_order


class H5Dataset(Dataset[tuple[Tensor, int]]):
    """Index -> (row, label)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None
        with h5py.File(path) as file:
            self.count = len(file["images"])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.file is None:
            self.file = h5py.File(self.path)
        return torch.from_numpy(self.file["images"][index]), int(self.file["labels"][index])


def build(images: Images, path: Path, workers: int) -> None:
    """Decode in workers, write normalized float32 rows from one process."""
    count = len(images)
    with h5py.File(path, "w") as file:
        for row, (pixels_HWC, label) in enumerate(in_order(images, workers)):
            if not row:
                side = len(pixels_HWC)
                file.create_dataset("images", (count, 3, side, side), "float32")
                file.create_dataset("labels", (count,), "int64")
            file["images"][row] = ((pixels_HWC.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)
            file["labels"][row] = label


def read(path: Path, batch_size: int, deliver: Deliver, workers: int) -> Iterable[Tensor]:
    """Shuffle with torch's DataLoader and its own collate."""
    loader = DataLoader(H5Dataset(path), batch_size, shuffle=True, num_workers=workers)
    return Epochs(loader)


PEER = Peer(
    "plain h5py",
    build,
    tuple(
        Reader(f"plain h5py, {workers} workers", "float32", ("float32",), partial(read, workers=workers))
        for workers in (0, 2)
    ),
)
