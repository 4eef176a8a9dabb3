"""WebDataset: 8-bit pixels in tar files, shuffled in a buffer, batched in the pipeline."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from torch import Tensor

from benchmarks.peers import Deliver, Epochs, Images, Peer, Reader, in_order, normalize

SHARD = 512  # images
BUFFER = 256


def build(images: Images, path: Path, workers: int) -> None:
    """Decode in workers, write tar files from one process."""
    path.mkdir()
    with webdataset.ShardWriter(f"{path}/%06d.tar", maxcount=SHARD, verbose=0) as writer:
        for row, (pixels_HWC, label) in enumerate(in_order(images, workers)):
            data = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)).tobytes()
            writer.write({"__key__": f"{row:07d}", "pixels": data, "label": str(label).encode()})


def read(path: Path, batch_size: int, deliver: Deliver) -> Iterable[Tensor]:
    """Shuffle shards and, in a buffer, images; in this process, since workers would copy every batch once more."""
    shards = sorted(map(str, path.glob("*.tar")))
    dataset = webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(BUFFER)
    batches = dataset.to_tuple("pixels", "label").batched(batch_size, collation_fn=partial(_batch, deliver=deliver))
    return Epochs(batches)


def _batch(samples: list[Any], deliver: Deliver) -> tuple[Tensor, Tensor]:
    flat = np.stack([np.frombuffer(pixels, np.uint8) for pixels, _ in samples])
    side = round((flat.shape[1] / 3) ** 0.5)
    pixels_NCHW = torch.from_numpy(flat.reshape(-1, 3, side, side))
    labels = torch.tensor([int(label) for _, label in samples])
    return normalize(pixels_NCHW) if deliver == "float32" else pixels_NCHW, labels


PEER = Peer("WebDataset", build, (Reader("WebDataset, uint8", "own", ("float32", "uint8"), read),))
