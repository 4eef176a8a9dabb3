"""LMDB: 8-bit pixels by key, copied into the batch straight from the map."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb
import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import Deliver, Images, Peer, Reader, in_order, normalize


class Gather:
    """Epochs of shuffled batches."""

    def __init__(self, path: Path, batch_size: int, deliver: Deliver) -> None:
        self.env = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)
        self.count = self.env.stat()["entries"]
        self.batch_size = batch_size
        self.deliver = deliver
        with self.env.begin() as transaction:
            self.side = round((len(transaction.get(_key(0)) or b"") / 3) ** 0.5)

    def __iter__(self) -> Iterator[Tensor]:
        order = np.random.default_rng().permutation(self.count)
        for first in range(0, len(order), self.batch_size):
            batch = self._read(order[first : first + self.batch_size].tolist())
            yield normalize(batch) if self.deliver == "float32" else batch

    def _read(self, rows: list[int]) -> Tensor:
        batch = np.empty((len(rows), 3, self.side, self.side), np.uint8)
        with self.env.begin(buffers=True) as transaction:
            for image_CHW, row in zip(batch, rows, strict=True):
                image_CHW[:] = np.frombuffer(transaction.get(_key(row)) or b"", np.uint8).reshape(image_CHW.shape)
        return torch.from_numpy(batch)


def build(images: Images, path: Path, workers: int) -> None:
    """Decode in workers, put from one process, 256 images a transaction."""
    size = 2 * len(images) * 3 * 256 * 256 + 2**24
    env = lmdb.open(str(path), subdir=False, map_size=size, writemap=True, sync=False)
    transaction = env.begin(write=True)
    for row, (pixels_HWC, _) in enumerate(in_order(images, workers)):
        transaction.put(_key(row), np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)).data, append=True)
        if row % 256 == 255:
            transaction.commit()
            transaction = env.begin(write=True)
    transaction.commit()
    env.close()


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Open for reading, without locks."""
    return Gather(path, batch_size, deliver)


def _key(row: int) -> bytes:
    return row.to_bytes(8, "big")


PEER = Peer("LMDB", build, (Reader("LMDB, uint8", "own", ("float32", "uint8"), read),))
