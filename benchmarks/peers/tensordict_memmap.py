"""TensorDict: 8-bit rows as memory-mapped tensors, gathered by an index; changed by torchvision in this process."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from tensordict import MemoryMappedTensor, TensorDict
from torch import Tensor

from benchmarks.peers import Deliver, Images, Peer, Reader, in_order, normalize
from benchmarks.peers.torchvision_v2 import Crops, Normalized


class Gather:
    """Epochs of shuffled batches."""

    def __init__(self, rows: TensorDict, batch_size: int, normalized: bool) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.normalized = normalized

    def __iter__(self) -> Iterator[Tensor]:
        for some in torch.randperm(len(self.rows)).split(self.batch_size):
            pixels_BCHW = self.rows[some]["images"]
            yield normalize(pixels_BCHW) if self.normalized else pixels_BCHW


def build(images: Images, path: Path, workers: int) -> None:
    """Decode in workers, write from one process into tensors whose files TensorDict can load."""
    rows: TensorDict | None = None
    for row, (pixels_HWC, label) in enumerate(in_order(images, workers)):
        if rows is None:
            empty = {
                "images": MemoryMappedTensor.empty((len(images), 3, *pixels_HWC.shape[:2]), dtype=torch.uint8),
                "labels": MemoryMappedTensor.empty((len(images),), dtype=torch.int64),
            }
            rows = TensorDict(empty, [len(images)]).memmap(path)
        rows["images"][row] = torch.from_numpy(pixels_HWC).permute(2, 0, 1)
        rows["labels"][row] = label


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Map the tensors."""
    rows = TensorDict.load_memmap(path)
    if deliver == "augmented":
        return Normalized(Crops(rows["images"]), batch_size, 0)
    return Gather(rows, batch_size, deliver == "float32")


PEER = Peer("TensorDict", build, (Reader("TensorDict, uint8", "own", ("float32", "uint8", "augmented"), read),))
