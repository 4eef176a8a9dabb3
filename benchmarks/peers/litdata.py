"""LitData: 8-bit arrays in its chunks, read where they lie; its version check and progress bars are off."""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import Deliver, Epochs, Images, Peer, Reader, normalize

os.environ["LITDATA_DISABLE_VERSION_CHECK"] = "1"  # it would ask the network

from litdata import StreamingDataLoader, StreamingDataset, optimize


def build(images: Images, path: Path, workers: int) -> None:
    """Let its own workers decode and write."""
    rows = range(len(images))
    optimize(
        partial(_sample, images),
        inputs=list(rows),
        output_dir=str(path),
        chunk_bytes="64MB",
        num_workers=workers,
        start_method="fork",
        verbose=False,
    )


def _sample(images: Images, row: int) -> Any:
    pixels_HWC, label = images[row]
    return {"pixels": np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)), "label": label}


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Shuffle chunks, and images in a chunk; in this process, since workers would copy every batch once more."""
    dataset = StreamingDataset(str(path), shuffle=True)
    collate = partial(_batch, deliver=deliver)
    return Epochs(StreamingDataLoader(dataset, batch_size=batch_size, num_workers=0, collate_fn=collate))


def _batch(samples: list[Any], deliver: Deliver) -> tuple[Tensor, Tensor]:
    pixels_NCHW = torch.from_numpy(np.stack([sample["pixels"] for sample in samples]))
    labels = torch.tensor([sample["label"] for sample in samples])
    return normalize(pixels_NCHW) if deliver == "float32" else pixels_NCHW, labels


PEER = Peer("LitData", build, (Reader("LitData, uint8", "own", ("float32", "uint8"), read),))
