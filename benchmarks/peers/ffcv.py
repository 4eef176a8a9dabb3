"""FFCV, raw pixels: compiled loops, threads, reused buffers; channels-last views, its fastest way."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from torch import Tensor

from benchmarks.peers import CROP_SCALE, Deliver, Images, Peer, Reader
from pipeline.system.processes import usable_cores

THREADS, SIZE = usable_cores(), (224, 224)


def build(images: Images, path: Path, workers: int) -> None:
    """Let its own workers decode and write."""
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=workers).from_indexed_dataset(images)


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Shuffle truly, keep the file in memory."""
    threads = torch.get_num_threads()
    half = np.full(3, 127.5)
    scale = [NormalizeImage(half, half, np.float32)] if deliver != "uint8" else []
    decode = [SimpleRGBImageDecoder()]
    if deliver == "augmented":
        decode = [RandomResizedCropRGBImageDecoder(SIZE, scale=(CROP_SCALE, 1)), RandomHorizontalFlip()]
    loader = Loader(
        str(path),
        batch_size=batch_size,
        num_workers=threads if deliver == "augmented" else THREADS,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines={
            "image": [*decode, *scale, ToTensor(), ToTorchImage(channels_last=True)],
            "label": [IntDecoder(), ToTensor()],
        },
    )
    torch.set_num_threads(threads)  # it has changed them, for everybody
    return Stopped(loader)


class Stopped:
    """Epochs of a loader, whose threads end with them."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Tensor]:
        batches = iter(self.loader)
        try:
            for images, _ in batches:
                yield images
        finally:
            batches.close()


PEER = Peer("FFCV", build, (Reader("FFCV raw", "own", ("float32", "uint8", "augmented"), read),))
