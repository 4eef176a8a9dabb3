"""kornia's augmentations on whole batches, each image with a box of its own."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from kornia.augmentation import AugmentationSequential, RandomHorizontalFlip, RandomResizedCrop
from torch import Tensor

from benchmarks.peers import CROP_SCALE, Deliver, Peer, Reader, normalize
from pipeline import TensorCache


class Crops:
    """Epochs of shuffled batches."""

    def __init__(self, path: Path, batch_size: int) -> None:
        cache = TensorCache(path)
        self.images = cache.images
        self.batch_size = batch_size
        crop = RandomResizedCrop(cache.recipe.size, scale=(CROP_SCALE, 1), cropping_mode="resample")
        self.change = AugmentationSequential(crop, RandomHorizontalFlip())

    def __iter__(self) -> Iterator[Tensor]:
        with torch.inference_mode():
            for rows in torch.randperm(len(self.images)).split(self.batch_size):
                yield self.change(normalize(self.images[rows]))


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Map a cache's rows."""
    return Crops(path, batch_size)


PEER = Peer("kornia", None, (Reader("kornia", "uint8", ("augmented",), read),))
