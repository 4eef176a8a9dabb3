"""torchvision's transforms on tensors: 8-bit rows of our cache cropped and flipped one by one, normalized together."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.peers import CROP_SCALE, Deliver, Peer, Reader
from pipeline import TensorCache


class Crops:
    """Epochs of shuffled batches."""

    def __init__(self, path: Path, batch_size: int) -> None:
        cache = TensorCache(path)
        self.images = cache.images
        self.batch_size = batch_size
        size = cache.recipe.size
        self.crop = v2.Compose([v2.RandomResizedCrop(size, (CROP_SCALE, 1), antialias=True), v2.RandomHorizontalFlip()])
        self.scale = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3, inplace=True)]
        )

    def __iter__(self) -> Iterator[Tensor]:
        for rows in torch.randperm(len(self.images)).split(self.batch_size):
            yield self.scale(torch.stack([self.crop(self.images[row]) for row in rows.tolist()]))


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Map a cache's rows."""
    return Crops(path, batch_size)


PEER = Peer("torchvision v2", None, (Reader("torchvision v2, tensors", "uint8", ("augmented",), read),))
