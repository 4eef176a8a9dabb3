"""torchvision's transforms on tensors: 8-bit rows of our cache cropped and flipped one by one, normalized together."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from benchmarks.peers import CROP_SCALE, Deliver, Peer, Reader
from pipeline import TensorCache


class Crops(Dataset[Tensor]):
    """Rows of (N, 3, S, S) uint8 -> (B, 3, S, S), cropped and flipped."""

    def __init__(self, images_NCHW: Tensor) -> None:
        self.images = images_NCHW
        size = images_NCHW.shape[2:]
        self.change = v2.Compose([v2.RandomResizedCrop(size, (CROP_SCALE, 1)), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        return torch.stack([self.change(self.images[row]) for row in rows])


class Normalized:
    """Epochs of shuffled batches, normalized by this process."""

    def __init__(self, crops: Crops, batch_size: int, workers: int) -> None:
        sampler = BatchSampler(RandomSampler(crops), batch_size, drop_last=False)
        self.loader = DataLoader(
            crops, batch_size=None, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
        )
        self.scale = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3, inplace=True)]
        )

    def __iter__(self) -> Iterator[Tensor]:
        for pixels_BCHW in self.loader:
            yield self.scale(pixels_BCHW)


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Crop in this process."""
    return Normalized(Crops(TensorCache(path).images), batch_size, 0)


def read_with_workers(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Crop in as many processes as PyTorch has threads."""
    return Normalized(Crops(TensorCache(path).images), batch_size, torch.get_num_threads())


PEER = Peer(
    "torchvision v2",
    None,
    (
        Reader("torchvision v2", "uint8", ("augmented",), read),
        Reader("torchvision v2, workers", "uint8", ("augmented",), read_with_workers),
    ),
)
