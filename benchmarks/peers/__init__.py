"""Other systems, each at a good setting of its own; one that is not installed is skipped by name."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Deliver = Literal["float32", "uint8", "augmented"]

CROP_SCALE = 0.35  # of "augmented": smallest part of an image's area that a crop keeps
_MODULES = (
    *("h5py_dataset", "imagefolder", "memmap", "webdataset", "litdata", "lmdb", "ffcv", "tensordict_memmap"),
    *("torchvision_v2", "kornia_crops"),
)


class Images(Dataset[Any]):
    """Index -> ((S, S, 3) uint8, label), of a known number."""

    @abstractmethod
    def __len__(self) -> int: ...


class Reader(NamedTuple):
    """One way to read shuffled batches.

    Attributes:
        name: as tables show it.
        store: what it reads: its peer's own files, our cache of that dtype (bytes any HDF5 reader sees), or the photos.
        delivers: (B, 3, S, S): normalized "float32", "uint8" pixels, or "augmented": random crops resized to S, half of
            them flipped, float32 and normalized, by as many threads as PyTorch has.
        open: (path of the store, batch size, one of `delivers`) -> something that is an epoch whenever it is iterated.
    """

    name: str
    store: Literal["own", "float32", "uint8", "photos"]
    delivers: tuple[Deliver, ...]
    open: Callable[[Path, int, Deliver], Iterable[Tensor]]


class Peer(NamedTuple):
    """A system.

    Attributes:
        name: as tables show it.
        build: (images, path, workers) -> writes its own store; None for one that has none.
        readers: ways to read.
    """

    name: str
    build: Callable[[Images, Path, int], None] | None
    readers: tuple[Reader, ...]


class Epochs:
    """The images of a loader of (images, labels), anew whenever it is iterated."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Tensor]:
        for images, *_ in self.loader:
            yield images


def load_peers() -> tuple[list[Peer], list[str]]:
    """Return the systems that can be imported, and for each of the others a line that says why not."""
    peers, skipped = [], []
    for name in _MODULES:
        try:
            peers.append(import_module(f"{__name__}.{name}").PEER)
        except ImportError as error:
            skipped.append(f"{name} is skipped: {error}")
    return peers, skipped


def in_order(images: Images, workers: int) -> Iterable[tuple[Any, int]]:
    """Decode with worker processes and yield (pixels, label) in order, for builders that write from one process."""
    for some in DataLoader(images, batch_size=16, num_workers=workers, collate_fn=list):
        yield from some


def normalize(pixels_NCHW: Tensor) -> Tensor:
    """Scale uint8 pixels with mean and std 0.5, in the three steps of torchvision: the same bits."""
    return pixels_NCHW.to(torch.float32).div_(255).sub_(0.5).div_(0.5)
